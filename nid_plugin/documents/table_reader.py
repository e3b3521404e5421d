"""Documents in tables: parquet files, and data sets that the library ``datasets`` reads."""

import contextlib
import importlib
import os
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from nid_plugin.documents.document import RawDocument
from nid_plugin.documents.prefetching import prefetched
from nid_plugin.documents.settings import DocumentSettings
from plugin_common.errors import UserError

_ROWS = 256  # of a data set, taken at a time; documents are kilobytes
# Of a parquet file: as much as a row group of the usual 1,000 documents. Nearly all of the decoding is done at its
# start, so that a caller who has a smaller part to work on would wait there.
_MOST_ROWS, _BATCH_BYTES = 1024, 4 * 2**20
_BUFFER_BYTES = 2**20
_SAVED_PARTS = 64  # that a data set on disk is shuffled by


def read_parquet(paths: Sequence[str], text_column: str) -> Iterator[RawDocument]:
    """The text column's cells of files, row by row; the other columns are not read.

    ``source`` is ``path:row``, row from 1. While the rows of one part are worked on, the next one is read and decoded,
    across the files' ends, too.

    Raises:
        UserError: a file is broken, has no such column (lists those it has), or the column holds no text.
    """
    for path, row, column in prefetched(chain.from_iterable(_batches(path, text_column) for path in paths)):
        for number, cell in enumerate(_cells(column), start=row):
            yield cell, f"{path}:{number}"


def _batches(path: str, text_column: str) -> Iterator[tuple[str, int, Any]]:
    """Parts of a file's text column, each with the path and the number of its first row."""
    import pyarrow as pa
    from pyarrow import parquet

    row = 1
    try:
        # Page by page: with `pre_buffer` the column's whole part of a row group would be in memory, compressed.
        with parquet.ParquetFile(
            path, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
        ) as file:
            _check_column(path, text_column, {field.name: field.type for field in file.schema_arrow})
            for batch in file.iter_batches(_batch_rows(file.metadata, text_column), columns=[text_column]):
                yield path, row, batch.column(0)
                row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        where = f"after row {row - 1}: " if row > 1 else ""
        raise UserError(f"{path}: {where}not a sound parquet file ({_first_line(error)}); fetch it again") from error


def _batch_rows(metadata: Any, text_column: str) -> int:
    """Rows of the column that take about ``_BATCH_BYTES``, by the fullest row group; ``_MOST_ROWS`` at most."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [(group.num_rows, group.column(place)) for group in groups for place in range(group.num_columns)]
    largest = max(
        (part.total_uncompressed_size / rows for rows, part in columns if rows and part.path_in_schema == text_column),
        default=0,
    )
    return max(1, min(_MOST_ROWS, int(_BATCH_BYTES / max(largest, 1))))


def read_dataset(name: str, settings: DocumentSettings, *, saved: bool) -> Iterator[RawDocument]:
    """A data set's text column, streamed.

    ``source`` is ``name[config]/split:row``, row from 1. Where the settings ask for shuffling, the parts (files,
    row groups) that the data set is made of come in an order by the seed, and ``source`` is
    ``name[config]/split#part:row``.

    Args:
        name: on the Hugging Face hub, or a folder.
        saved: the folder was written by the library's ``save_to_disk``.

    Raises:
        UserError: the hub is out of reach, or there is no such data set, configuration, split or column.
    """
    config = f"[{settings.dataset_config}]" if settings.dataset_config else ""
    title = f"{name}{config}/{settings.dataset_split}"
    with _explained(title):
        stream = _open_saved(name, settings) if saved else _open_named(name, settings)
        if not settings.shuffle_buffer:
            yield from _rows_of(stream, title, settings.text_column)
            return
        parts = list(range(stream.num_shards))
        random.Random(settings.seed).shuffle(parts)
        for part in parts:
            chosen = stream.shard(num_shards=len(parts), index=part)
            yield from _rows_of(chosen, f"{title}#{part + 1}", settings.text_column)


def _rows_of(stream: Any, title: str, text_column: str) -> Iterator[RawDocument]:
    number = 0
    for table in stream.with_format("arrow").iter(batch_size=_ROWS):
        if number == 0:
            _check_column(title, text_column, {field.name: field.type for field in table.schema})
        for number, cell in enumerate(_cells(table.column(text_column)), start=number + 1):  # noqa: B020
            yield cell, f"{title}:{number}"


def _import_datasets() -> Any:
    """The library, without PyTorch: it would load that, where installed, for nothing but 200 MB and two seconds."""
    if "torch" in sys.modules or "datasets" in sys.modules:
        return importlib.import_module("datasets")
    before = os.environ.get("USE_TORCH")
    os.environ["USE_TORCH"] = "0"
    try:
        return importlib.import_module("datasets")
    finally:
        if before is None:
            del os.environ["USE_TORCH"]
        else:
            os.environ["USE_TORCH"] = before


def _open_named(name: str, settings: DocumentSettings) -> Any:
    datasets = _import_datasets()
    builder = datasets.load_dataset_builder(name, settings.dataset_config, revision=settings.dataset_revision)
    if hasattr(builder.config, "fragment_scan_options"):  # parquet files
        from pyarrow import dataset

        # As in `read_parquet`; by default the library holds whole row groups, compressed and decoded.
        builder.config.fragment_scan_options = dataset.ParquetFragmentScanOptions(
            pre_buffer=False, use_buffered_stream=True, buffer_size=_BUFFER_BYTES
        )
        builder.config.batch_size = _ROWS
    return builder.as_streaming_dataset(split=settings.dataset_split)


def _open_saved(folder: str, settings: DocumentSettings) -> Any:
    split = settings.dataset_split
    datasets = _import_datasets()
    loaded = datasets.load_from_disk(folder)
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise UserError(f"{folder}: no split {split}; --dataset-split takes one of {', '.join(loaded)}")
        loaded = loaded[split]
    return loaded.to_iterable_dataset(
        num_shards=max(1, min(_SAVED_PARTS, len(loaded))) if settings.shuffle_buffer else 1
    )


@contextlib.contextmanager
def _explained(title: str) -> Iterator[None]:
    """Errors of the library become ``UserError``; it raises a great many kinds, by the files and the network."""
    try:
        yield
    except (UserError, ModuleNotFoundError, MemoryError, GeneratorExit):
        raise
    except Exception as error:
        raise UserError(
            f"{title}: cannot be read as a data set ({type(error).__name__}: {_shortened(error)}); check the name, "
            "--dataset-config, --dataset-split and --dataset-revision, and whether the Hugging Face hub can be "
            "reached; for a file or folder, check the path"
        ) from error


def _check_column(where: str, column: str, types: dict[str, Any]) -> None:
    from pyarrow import types as kinds

    if column not in types:
        raise UserError(
            f"{where}: no column {column!r}; --text-column takes one of {', '.join(map(repr, types)) or 'none'}"
        )
    kind = types[column]
    if kinds.is_dictionary(kind):
        kind = kind.value_type
    tests = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "null")
    if not any(getattr(kinds, f"is_{test}")(kind) for test in tests):
        raise UserError(f"{where}: column {column!r} holds {types[column]}, expected text; give another --text-column")


def _cells(column: Any) -> Iterable[Any]:
    """The cells of an Arrow column: a ``str``, None, or ``bytes`` where a batch has text that is no UTF-8."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        import pyarrow as pa

        return column.cast(pa.large_binary()).to_pylist()


def _shortened(error: Exception, longest: int = 250) -> str:
    """The message in one line, its end left out where it is long."""
    words = " ".join(str(error).split())
    return words if len(words) <= longest else f"{words[:longest]} …"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]

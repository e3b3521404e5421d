"""Which pairs hold parts of evaluation sets: runs of 13 words in common.

The measure of Brown et al., "Language Models are Few-Shot Learners" (arXiv 2005.14165), appendix C: words without
punctuation and in lower case; runs of N words, 13 at most and 8 at least. Here N is one number for all sets. An item
shorter than N words is looked for as a whole; one shorter than ``shortest`` is left out (and counted), since it would
be found by chance. Unlike there, runs that many training texts have are not passed over: look at the hits.
Words are those of ``normalised_words``: in a script without spaces, a run of 13 letters.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nid_plugin.controls.text_measures import normalised_words
from plugin_common.errors import UserError
from plugin_common.json_lines import explained_reading, open_maybe_compressed, read_json_lines, read_raw_lines

WORDS = 13
SHORTEST = 8
NAMES_OF_AN_ITEM = 3
"""Where several items have a run of words, so many are named."""
FIELDS = ("turns", "prompt", "question", "problem", "instruction", "input", "query", "goal", "ctx", "text", "content")
"""Fields of items that are looked for when none is named, in Hugging Face's and the judges' data sets."""

_MARK = b"\xef\xbb\xbf"
_START = 2**12  # bytes in which the first character shows

_NAMES = ("question_id", "uid", "task_id", "id")


@dataclass(frozen=True, slots=True)
class Item:
    """A text of an evaluation set.

    Attributes:
        name: file, and line or the item's own id.
        text: as it stands there.
    """

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A run of words of an evaluation item that a pair has.

    Attributes:
        item: its name.
        words: the run, normalised.
        side: ``prompt``, ``completion`` or ``both`` where it goes across.
    """

    item: str
    words: str
    side: str


@dataclass
class EvaluationIndex:
    """The runs of words of evaluation items.

    Attributes:
        n: words of a run.
        items: how many are indexed.
        too_short: how many were left out.
        without_text: rows of the files with nothing to look for: their fields are empty or hold no text.
        runs: length in words → run → names of its items, the first three.
    """

    n: int
    items: int = 0
    too_short: int = 0
    without_text: int = 0
    runs: dict[int, dict[str, list[str]]] = field(default_factory=dict)

    def add(self, item: Item, shortest: int) -> None:
        """Index an item, unless it has fewer than ``shortest`` words."""
        words = normalised_words(item.text)
        if len(words) < min(shortest, self.n):
            self.too_short += 1
            return
        self.items += 1
        length = min(self.n, len(words))
        runs = self.runs.setdefault(length, {})
        for run in _runs(words, length):
            names = runs.setdefault(run, [])
            if len(names) < NAMES_OF_AN_ITEM and item.name not in names:
                names.append(item.name)

    def hits(self, prompt: Sequence[str], completion: Sequence[str]) -> list[Hit]:
        """What a pair has of the items: the first run of each item. Words as ``normalised_words`` gives them."""
        words = [*prompt, *completion]
        found: dict[str, Hit] = {}
        for length, runs in self.runs.items():
            for start, run in enumerate(_runs(words, length)):
                for name in runs.get(run, ()):
                    found.setdefault(name, Hit(name, run, _side(start, length, len(prompt))))
        return list(found.values())


def _runs(words: Sequence[str], length: int) -> Iterator[str]:
    return map(" ".join, zip(*(words[start:] for start in range(length)), strict=False))


def _side(start: int, length: int, prompt_words: int) -> str:
    if start >= prompt_words:
        return "completion"
    return "prompt" if start + length <= prompt_words else "both"


def evaluation_index(
    paths: Iterable[str], fields: Sequence[str] | None, *, n: int = WORDS, shortest: int = SHORTEST
) -> EvaluationIndex:
    """Read and index evaluation sets.

    Args:
        paths: JSON Lines or Parquet with the texts in fields, or plain text with an item a line.
        fields: of JSON Lines and Parquet; a text, a list of texts or of objects with a ``content`` (a text, or parts
            with a ``text``). None: those of ``FIELDS`` that an item has.
        n: words of a run.
        shortest: items with fewer words are left out.

    Raises:
        UserError: a file cannot be read or has none of the fields, or nothing is left to index.
    """
    index = EvaluationIndex(n)
    for path in paths:
        before, empty = index.items + index.too_short, Counter[str]()
        for item in read_items(path, fields, empty):
            index.add(item, shortest)
        index.without_text += empty.total()
        if index.items + index.too_short == before:
            why = f": there is no text in {', '.join(empty)} of its {empty.total():,} rows" if empty else ""
            raise UserError(f"--decontaminate {path}: holds no item{why}")
    if index.too_short and not index.items:
        raise UserError(
            f"--decontaminate: all {index.too_short:,} items have fewer than {shortest} words; "
            "lower --decontaminate-shortest"
        )
    return index


def read_items(path: str, fields: Sequence[str] | None, empty: Counter[str] | None = None) -> Iterator[Item]:
    """The texts of an evaluation set (see :func:`evaluation_index`); rows without any are counted in ``empty``."""
    empty = Counter() if empty is None else empty
    kind = Path(path.removesuffix(".gz").removesuffix(".zst")).suffix.lower()
    if kind == ".txt":
        yield from _lines(path)
    elif kind in (".jsonl", ".json", ".ndjson"):
        yield from _items(_json_rows(path), path, fields, empty)
    elif kind == ".parquet":
        yield from _items(_parquet_rows(path), path, fields, empty)
    else:
        raise UserError(f"--decontaminate {path}: a name that ends in .jsonl, .json, .parquet or .txt is expected")


def _lines(path: str) -> Iterator[Item]:
    for number, line in read_raw_lines(path):
        try:
            yield Item(f"{path}:{number}", line.decode("utf-8-sig").strip())
        except UnicodeDecodeError as error:
            raise UserError(f"--decontaminate {path}, line {number}: not valid UTF-8 ({error.reason})") from error


def _json_rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of JSON Lines, or of a file that is one array of them."""
    with explained_reading(path), open_maybe_compressed(path) as stream:
        start = stream.read(_START)
        is_array = start.removeprefix(_MARK).lstrip().startswith(b"[")
        whole = start + stream.read() if is_array else b""
    if not is_array:
        yield from read_json_lines(path)
        return
    try:
        rows = json.loads(whole)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: neither JSON Lines nor one JSON array ({error})") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path}, item {number}: a JSON object is expected, found {type(row).__name__}")
        yield number, row


def _parquet_rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        rows = (row for batch in file.iter_batches(1024) for row in batch.to_pylist())
        yield from enumerate(rows, start=1)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"--decontaminate {path}: cannot be read as Parquet ({error})") from error


def _items(
    rows: Iterable[tuple[int, dict[str, Any]]], path: str, fields: Sequence[str] | None, empty: Counter[str]
) -> Iterator[Item]:
    for number, row in rows:
        wanted = [name for name in (fields or FIELDS) if row.get(name) is not None]
        if not wanted:
            looked_for = ", ".join(fields or FIELDS)
            raise UserError(
                f"--decontaminate {path}, item {number}: has none of the fields {looked_for}; it has "
                f"{', '.join(map(str, row)) or 'none'}: name those with the text by --decontaminate-field"
            )
        own = next((row[name] for name in _NAMES if isinstance(row.get(name), str | int)), None)
        name = f"{path}:{number}" if own is None else f"{path}:{number} ({own})"
        texts = {key: list(_texts(row[key])) for key in wanted}
        if not any(text.strip() for listed in texts.values() for text in listed):
            empty[", ".join(wanted)] += 1
        for key, listed in texts.items():
            for turn, text in enumerate(listed, start=1):
                if text.strip():
                    yield Item(f"{name} {key}" + (f"[{turn}]" if len(listed) > 1 else ""), text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, dict):
        yield from _texts(value.get("content", value.get("text")))

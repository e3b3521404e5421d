"""Documents in JSON Lines and text files, plain or compressed."""

from collections.abc import Iterator

import orjson

from nid_plugin.documents.document import MAX_DOCUMENT_BYTES, Oversized, RawDocument
from plugin_common.errors import UserError
from plugin_common.json_lines import explained_reading, json_object, open_maybe_compressed, read_raw_lines


def read_jsonl(path: str, text_column: str) -> Iterator[RawDocument]:
    """The text field of each line's object. ``source`` is ``path:line``.

    A line that is no UTF-8 is given as the bytes it is; a field that is absent from one but the first object, as None.

    Raises:
        UserError: the file cannot be read, a line is no JSON object, or the first has no such field (lists its fields).
    """
    first = True
    for number, line in read_raw_lines(path):
        source = f"{path}:{number}"
        try:
            record = orjson.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            # Python's own reader takes lone surrogates, which are counted, and says better what is wrong.
            if not _is_utf8(line):
                yield line, source
                continue
            record = json_object(line, f"{path}, line {number}")
        if first and text_column not in record:
            fields = ", ".join(map(repr, record)) or "none"
            raise UserError(f"{path}, line {number}: no field {text_column!r}; --text-column takes one of {fields}")
        first = False
        yield record.get(text_column), source


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_txt_file(path: str) -> Iterator[RawDocument]:
    """The whole file as one document, in bytes. ``source`` is ``path``.

    Raises:
        UserError: the file cannot be read.
    """
    with explained_reading(path), open_maybe_compressed(path) as stream:
        data = stream.read(MAX_DOCUMENT_BYTES + 1)
    yield data if len(data) <= MAX_DOCUMENT_BYTES else Oversized(), path


def read_txt_paragraphs(path: str) -> Iterator[RawDocument]:
    """The paragraphs between blank lines, in bytes, without their last line end. ``source`` is ``path:line``.

    Raises:
        UserError: the file cannot be read.
    """
    lines: list[bytes] = []
    size, first_line = 0, 1
    for number, line in read_raw_lines(path, blank=True):
        if line.isspace():
            if size:
                yield _paragraph(lines, size, f"{path}:{first_line}")
            lines, size = [], 0
            continue
        if not size:
            first_line = number
        size += len(line)
        if size <= MAX_DOCUMENT_BYTES:
            lines.append(line)
    if size:
        yield _paragraph(lines, size, f"{path}:{first_line}")


def _paragraph(lines: list[bytes], size: int, source: str) -> RawDocument:
    if size > MAX_DOCUMENT_BYTES:
        return Oversized(), source
    return b"".join(lines).removesuffix(b"\n").removesuffix(b"\r"), source

"""Write JSON Lines: one object a line, plain or compressed by the file's name; ``json_lines`` reads them."""

import contextlib
import gzip
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from plugin_common.atomic_file import atomic_output


def json_line(value: Any) -> bytes:
    """The value as one line of UTF-8 with its newline. Text with lone surrogates, which UTF-8 has not, is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(value).encode() + b"\n"


@contextlib.contextmanager
def lines_output(path: str) -> Iterator[BinaryIO]:
    """As ``atomic_output``; what is written goes through gzip (a name with ``.gz``) or Zstandard (``.zst``).

    Equal lines give equal files: no time is noted in them.

    Raises:
        UserError: the folder or file cannot be written, or the disk is full.
    """
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(atomic_output(path))
        if path.endswith(".gz"):
            stream = cast(BinaryIO, stack.enter_context(gzip.GzipFile("", "wb", 6, stream, mtime=0)))
        elif path.endswith(".zst"):
            import zstandard

            stream = stack.enter_context(zstandard.ZstdCompressor().stream_writer(stream, closefd=False))
        yield stream

"""Read JSON Lines: one object a line, plain or compressed, with errors that name the line."""

import contextlib
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from plugin_common.errors import UserError


def read_json_lines(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with their line numbers (from 1); blank lines are passed over. Memory for one line.

    Args:
        path: a file, gzip (``.gz``) or Zstandard (``.zst``) too, or ``-`` for standard input.

    Raises:
        UserError: the file cannot be read, a compressed one is broken, or a line is no JSON object.
    """
    number = 0
    try:
        with open_maybe_compressed(path) as stream:
            for number, line in enumerate(stream, start=1):  # noqa: B007 (the error below names it)
                if line.strip():
                    yield number, _object(line, f"{path}, line {number}")
    except OSError as error:
        where = f"{path}, after line {number}" if number else path
        raise UserError(f"{where}: cannot be read ({error.strerror or error})") from error
    except (EOFError, zlib.error) as error:
        raise UserError(f"{path}, after line {number}: broken gzip data ({error}); fetch the file again") from error


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON ({error}); one JSON object a line is expected") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: one JSON object a line is expected, found {type(value).__name__}")
    return value


@contextlib.contextmanager
def open_maybe_compressed(path: str) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, through gzip (``.gz``) or Zstandard (``.zst``) by its name; ``-`` is standard input.

    Raises:
        OSError: it cannot be opened; reading broken Zstandard data raises ``UserError``, broken gzip data ``EOFError``,
            ``zlib.error`` or ``OSError``.
    """
    if path == "-":
        yield sys.stdin.buffer
    elif path.endswith(".gz"):
        with gzip.open(path, "rb") as stream:
            yield cast(BinaryIO, stream)
    elif path.endswith(".zst"):
        with _zstandard(path) as stream:
            yield stream
    else:
        with Path(path).open("rb") as stream:
            yield stream


@contextlib.contextmanager
def _zstandard(path: str) -> Iterator[BinaryIO]:
    import zstandard

    with Path(path).open("rb") as raw:
        try:
            with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as plain:
                yield cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, plain), 2**18))
        except zstandard.ZstdError as error:
            raise UserError(f"{path}: broken Zstandard data ({error}); fetch the file again") from error

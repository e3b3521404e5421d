"""Read JSON Lines: one object a line, plain or compressed, with errors that name the line."""

import contextlib
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from plugin_common.errors import UserError

if TYPE_CHECKING:
    import zstandard
    from _typeshed import WriteableBuffer

MAX_LINE_BYTES = 256 * 2**20
"""A longer line is no JSON Lines but, most likely, one JSON array."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")  # escaped, or as bytes, which Python's reader takes

_COMPRESSED_BYTES = 2**14  # fed to the decompressor at a time: bounds what comes out of it
_LONGEST_WINDOW = 2**31  # `zstd --long=31`, used by large public text dumps; the library's own limit is 128 MiB


def read_json_lines(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with their line numbers (from 1); blank lines are passed over. Memory for one line.

    Args:
        path: a file, gzip (``.gz``) or Zstandard (``.zst``) too, or ``-`` for standard input.

    Raises:
        UserError: the file cannot be read, a compressed one is broken or cut off, or a line is no JSON object or has a
            text that is no valid Unicode (half of a surrogate pair: it could not be written or sent).
    """
    for number, line in read_raw_lines(path):
        value = json_object(line, f"{path}, line {number}")
        check_unicode(line, value, f"{path}, line {number}")
        yield number, value


def read_raw_lines(path: str, *, blank: bool = False) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, as they stand in it, with their numbers (from 1). Memory for one line.

    Args:
        path: see :func:`read_json_lines`.
        blank: whether to give lines of nothing but white space, too.

    Raises:
        UserError: the file cannot be read, is broken or cut off, or a line exceeds ``MAX_LINE_BYTES``.
    """
    number = 0
    with explained_reading(path, lambda: f"after line {number}" if number else ""), open_maybe_compressed(path) as file:
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            if len(line) == MAX_LINE_BYTES:
                raise UserError(
                    f"{path}, line {number}: longer than {MAX_LINE_BYTES // 2**20} MiB; expected JSON Lines (one "
                    "object a line) or text"
                )
            if blank or not line.isspace():
                yield number, line


def json_object(line: bytes, where: str) -> dict[str, Any]:
    """The object that a line holds.

    Raises:
        UserError: it holds no JSON object; the message begins with ``where``.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({error}); one JSON object a line is expected") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: one JSON object a line is expected, found {type(value).__name__}")
    return value


def check_unicode(line: bytes, value: dict[str, Any], where: str) -> None:
    """Check that the object of a line can be written in UTF-8.

    Raises:
        UserError: it holds half of a surrogate pair; the message begins with ``where``.
    """
    if not _SURROGATE.search(line):
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])[1:-1]
        raise UserError(f"{where}: {half} without its other half is no valid Unicode; take the line out") from error


@contextlib.contextmanager
def explained_reading(path: str, where: Callable[[], str] = str) -> Iterator[None]:
    """Errors of reading from :func:`open_maybe_compressed` become ``UserError``.

    Args:
        where: called when an error comes; how far reading had got, or an empty text.
    """
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{_place(path, where())}: broken compressed data ({error}); fetch the file again") from error
    except OSError as error:
        raise UserError(f"{_place(path, where())}: cannot be read ({error.strerror or error})") from error


def _place(path: str, where: str) -> str:
    return f"{path}, {where}" if where else path


@contextlib.contextmanager
def open_maybe_compressed(path: str) -> Iterator[BinaryIO]:
    """Open a file of bytes, by its name through gzip (``.gz``) or Zstandard (``.zst``); ``-`` is standard input.

    Raises:
        OSError: it cannot be opened. Reading broken or cut off data raises ``UserError`` (Zstandard), or ``EOFError``,
            ``zlib.error`` or ``OSError`` (gzip); :func:`explained_reading` makes all of them ``UserError``.
    """
    if path == "-":
        yield sys.stdin.buffer
    elif path.endswith(".gz"):
        with gzip.open(path, "rb") as stream:
            yield cast(BinaryIO, stream)
    elif path.endswith(".zst"):
        with Path(path).open("rb") as raw:
            yield zstandard_stream(raw, path)
    else:
        with Path(path).open("rb") as stream:
            yield stream


def zstandard_stream(raw: BinaryIO, name: str) -> BinaryIO:
    """The decompressed bytes of ``raw``: one or more Zstandard frames.

    Reading raises ``UserError``, which begins with ``name``, where the data is broken or ends within a frame.
    """
    return cast(BinaryIO, io.BufferedReader(_ZstandardFrames(raw, name), 2**18))


class _ZstandardFrames(io.RawIOBase):
    """Decompresses frame after frame; unlike the library's own reader it notices where a frame is cut off."""

    def __init__(self, raw: BinaryIO, name: str) -> None:
        self._raw, self._name = raw, name
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        target = memoryview(buffer).cast("B")
        while not self._output:
            if not self._input:
                self._input = self._raw.read(_COMPRESSED_BYTES)
            if not self._input:
                if self._frame is not None:
                    raise UserError(f"{self._name}: the Zstandard data is cut off; fetch the file again")
                return 0
            self._decompress()
        count = min(len(target), len(self._output))
        target[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _decompress(self) -> None:
        import zstandard

        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor(max_window_size=_LONGEST_WINDOW).decompressobj()
        try:
            self._output = memoryview(self._frame.decompress(self._input))
        except zstandard.ZstdError as error:
            raise UserError(f"{self._name}: broken Zstandard data ({error}); fetch the file again") from error
        self._input = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = None

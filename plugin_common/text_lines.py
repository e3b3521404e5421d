"""Read text files line by line, exactly: a line ends at ``\\n`` alone, bytes are UTF-8, control characters are no text.

Python's text mode also ends lines at ``\\r``, ``str.splitlines`` at U+0085, U+2028 and others; two files of a parallel
corpus then no longer match line for line. Memory is bounded by the block size, whatever the size of the file.
"""

import codecs
import contextlib
import gzip
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from plugin_common.errors import UserError

ControlCharacters = Literal["error", "space"]
CONTROL_CHARACTERS: tuple[ControlCharacters, ...] = ("error", "space")

MAX_LINE_BYTES = 16 * 2**20

# Unicode category Cc without tab and newline; a carriage return before a newline is removed before this is searched.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CONTROL_BESIDE_LINE_ENDS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n|\\Z)")


@dataclass
class TextCounts:
    """Lines read, and what was changed on the way.

    ``crlf_ends`` counts the carriage returns removed at ends of lines; ``final_returns`` are those of them that no
    newline follows, at the end of a file.
    """

    lines: int = 0
    crlf_ends: int = 0
    final_returns: int = 0
    control_characters: int = 0
    byte_order_marks: int = 0

    def add(self, other: "TextCounts") -> None:
        """Add the counts of another part of the same text."""
        self.lines += other.lines
        self.crlf_ends += other.crlf_ends
        self.final_returns += other.final_returns
        self.control_characters += other.control_characters
        self.byte_order_marks += other.byte_order_marks

    def changes(self) -> list[str]:
        """What was changed, one phrase each; empty when the text was taken as it is."""
        phrases = {
            "Windows line ends (CR LF) read as newlines": self.crlf_ends - self.final_returns,
            "carriage returns at the end of a file removed": self.final_returns,
            "control characters replaced by spaces": self.control_characters,
            "byte order marks removed": self.byte_order_marks,
        }
        return [f"{count:,} {phrase}" for phrase, count in phrases.items() if count]


@dataclass(frozen=True)
class LineBlock:
    """Whole lines of a file (only the file's last one may lack its newline) and where they stand in it.

    ``first_line`` counts from 1, ``first_byte`` from 0.
    """

    data: bytes
    first_line: int
    first_byte: int


def read_blocks(path: str, block_bytes: int = 2**18) -> Iterator[LineBlock]:
    """The file in blocks of about ``block_bytes`` bytes, cut after newlines.

    Args:
        path: a text file, a gzip file whose name ends in ``.gz``, or ``-`` for standard input.
        block_bytes: how much is read at a time; a longer line makes a longer block.

    Raises:
        UserError: the file cannot be read, or a line exceeds ``MAX_LINE_BYTES``.
    """
    first_line, first_byte = 1, 0
    unfinished: list[bytes] = []
    unfinished_bytes = 0
    with open_bytes(path) as stream:
        while chunk := _read(stream, block_bytes, path):
            end = chunk.rfind(b"\n") + 1
            if end:
                block = LineBlock(b"".join([*unfinished, chunk[:end]]), first_line, first_byte)
                yield block
                first_line += block.data.count(b"\n")
                first_byte += len(block.data)
                unfinished, unfinished_bytes = [], 0
            unfinished.append(chunk[end:])
            unfinished_bytes += len(chunk) - end
            if unfinished_bytes > MAX_LINE_BYTES:
                raise UserError(
                    f"{shown_name(path)}: line {first_line} is longer than {MAX_LINE_BYTES // 2**20} MiB; expected "
                    "text with one sentence a line"
                )
    if unfinished_bytes:
        yield LineBlock(b"".join(unfinished), first_line, first_byte)


def decode_block(
    block: LineBlock, path: str, control_characters: ControlCharacters = "error"
) -> tuple[list[str], TextCounts]:
    """The block's lines without their ends, and the counts of what was changed.

    Carriage returns that stand before a newline and a byte order mark at the start of the file are removed.

    Args:
        path: names the file in errors.
        control_characters: what to do with characters of Unicode category Cc other than tab: ``error`` raises,
            ``space`` puts a space for each.

    Raises:
        UserError: bytes that are no UTF-8, or (``error``) a control character; names file, line and byte offset.
    """
    text, counts = _clean_text(block, path, control_characters)
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines, counts


def count_block(block: LineBlock, path: str, control_characters: ControlCharacters = "error") -> TextCounts:
    """The counts of :func:`decode_block` alone: checks the text without splitting it."""
    return _clean_text(block, path, control_characters)[1]


def read_lines(
    path: str, control_characters: ControlCharacters = "error", counts: TextCounts | None = None
) -> Iterator[str]:
    """The file's lines, one at a time; see :func:`read_blocks` and :func:`decode_block`.

    ``counts``, when given, is added to as the reading goes on.
    """
    for block in read_blocks(path):
        lines, block_counts = decode_block(block, path, control_characters)
        if counts is not None:
            counts.add(block_counts)
        yield from lines


def _clean_text(block: LineBlock, path: str, control_characters: ControlCharacters) -> tuple[str, TextCounts]:
    """The block's text with ``\\n`` as the only line end and without control characters."""
    counts = TextCounts()
    try:
        original = block.data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid_utf8(block, path, error) from error
    text = original
    if block.first_byte == 0 and text.startswith("\ufeff"):
        text = text[1:]
        counts.byte_order_marks = 1
    if "\r" in text:
        counts.final_returns = int(text.endswith("\r"))
        counts.crlf_ends = text.count("\r\n") + counts.final_returns
        text = text.replace("\r\n", "\n").removesuffix("\r")
    if _CONTROL.search(text):
        if control_characters == "error":
            raise _control_character(block, path, original)
        text, counts.control_characters = _CONTROL.subn(" ", text)
    counts.lines = text.count("\n") + (text != "" and not text.endswith("\n"))
    return text, counts


def _invalid_utf8(block: LineBlock, path: str, error: UnicodeDecodeError) -> UserError:
    line = block.first_line + block.data.count(b"\n", 0, error.start)
    wrong = block.data[error.start : max(error.end, error.start + 1)].hex(" ")
    looks_utf16 = block.first_byte == 0 and block.data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "UTF-16" if looks_utf16 else "ITS-ENCODING"
    return UserError(
        f"{shown_name(path)}, line {line}, byte offset {block.first_byte + error.start}: not valid UTF-8 "
        f"(bytes {wrong}); expected UTF-8 text, convert it first (iconv -f {encoding} -t UTF-8)"
    )


def _control_character(block: LineBlock, path: str, text: str) -> UserError:
    """The error for the first control character of ``text``, the block's text as it stands in the file."""
    found = _CONTROL_BESIDE_LINE_ENDS.search(text)
    assert found is not None  # the caller found one
    line = block.first_line + text.count("\n", 0, found.start())
    offset = block.first_byte + len(text[: found.start()].encode())
    return UserError(
        f"{shown_name(path)}, line {line}, byte offset {offset}: control character U+{ord(found.group()):04X}, "
        "expected text; remove it, or give --control-characters space to read each as a space"
    )


def shown_name(path: str) -> str:
    """How messages call ``path``."""
    return "standard input" if path == "-" else path


@contextlib.contextmanager
def open_bytes(path: str, *, buffered: bool = True) -> Iterator[BinaryIO]:
    """``path`` as a stream of (decompressed) bytes; ``-`` is standard input.

    Args:
        buffered: False gives a stream whose reads return what is there, without waiting for more.

    Raises:
        UserError: there is no such file, or it cannot be opened.
    """
    if path == "-":
        if sys.stdin is None:
            raise UserError("standard input is closed; give a file instead, or send text")
        yield sys.stdin.buffer if buffered else getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
        return
    try:
        buffering = -1 if buffered else 0
        stream = gzip.open(path, "rb") if path.endswith(".gz") else Path(path).open("rb", buffering)  # noqa: SIM115
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no such file; check the path, `ls {Path(path).parent}` shows what is there"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected a text file") from error
    with stream:
        yield stream  # type: ignore[misc]


@contextlib.contextmanager
def explained_reading(path: str) -> Iterator[None]:
    """Errors of reading from :func:`open_bytes` become ``UserError``."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a complete gzip file ({error}); `gzip -t {path}` tells, make it again") from error
    except OSError as error:
        raise UserError(f"{shown_name(path)}: cannot be read ({error.strerror}); expected a text file") from error


def _read(stream: BinaryIO, size: int, path: str) -> bytes:
    with explained_reading(path):
        return stream.read(size)

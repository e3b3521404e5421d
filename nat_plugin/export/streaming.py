"""Lines of text as they come in and go out, for a program that answers what is there and waits for nothing more.

A line ends at ``\\n`` alone, see :mod:`plugin_common.text_lines`. What is read at once is what the input holds at that
moment, up to a bound, so that a program that sends one line and waits for its translation gets it, and one that sends
many gets them in batches; the operating system's pipe holds back a sender that is faster.
"""

import select
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from plugin_common.errors import UserError
from plugin_common.text_lines import (
    MAX_LINE_BYTES,
    LineBlock,
    TextCounts,
    decode_block,
    explained_reading,
    open_bytes,
    shown_name,
)

InvalidUtf8 = Literal["error", "replace"]
INVALID_UTF8: tuple[InvalidUtf8, ...] = ("error", "replace")

_READ_BYTES = 2**16
_BLOCK_BYTES = 2**18
"""A block is given on when it is this long, though more is there."""


@dataclass
class InputCounts:
    """What was changed on reading; ``first_invalid`` tells where the first invalid line is."""

    text: TextCounts = field(default_factory=TextCounts)
    invalid_lines: int = 0
    first_invalid: str = ""

    def changes(self) -> list[str]:
        """What was changed, one phrase each."""
        lines = "1 line" if self.invalid_lines == 1 else f"{self.invalid_lines:,} lines"
        invalid = [f"{lines} with bytes that are no UTF-8, read as U+FFFD (first {self.first_invalid})"]
        return [*self.text.changes(), *(invalid if self.invalid_lines else [])]


class LineWriter:
    """A stream for whole lines, each handed to the system at once.

    Args:
        stream: without a buffer of its own.
        name: how messages call it.
    """

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream, name

    def write(self, lines: str) -> None:
        """Write all of it, however long the other end takes.

        Raises:
            BrokenPipeError: nobody reads any more.
            UserError: nothing more can be written, as to a full disk.
        """
        try:
            left = memoryview(lines.encode())
            while left:  # a disk with room for a part takes that part without an error
                written = self._stream.write(left)
                if written is None:  # another program has set the stream not to wait, and it is full
                    select.select([], [self._stream], [])
                else:
                    left = left[written:]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(
                f"{self._name}: cannot be written ({error.strerror}); the lines before are out; make room and "
                "translate the rest"
            ) from error


def line_windows(path: str, *, most_lines: int, invalid_utf8: InvalidUtf8, counts: InputCounts) -> Iterator[list[str]]:
    """The lines of an input in lists of 1 to ``most_lines``: as many as are there at once.

    Control characters are read as spaces.

    Args:
        path: a text file, a gzip file whose name ends in ``.gz``, or ``-`` for standard input.
        invalid_utf8: ``replace`` reads what is no UTF-8 as U+FFFD.
        counts: added to as the reading goes on.

    Raises:
        UserError: the input cannot be read, a line exceeds ``MAX_LINE_BYTES``, or (``error``) is no UTF-8: names line
            and byte; the lines before it are given first.
    """
    for block in _blocks(path):
        rest = None
        if invalid_utf8 == "replace":
            block = _mended(block, path, counts)
        else:
            block, rest = _split_at_invalid(block)
        lines, changes = decode_block(block, path, "space")
        counts.text.add(changes)
        for first in range(0, len(lines), most_lines):
            yield lines[first : first + most_lines]
        if rest is not None:
            _refuse(rest, path)


def _blocks(path: str) -> Iterator[LineBlock]:
    """Whole lines (only the last may lack its newline), as many as are there at once, about 256 KiB at most."""
    first_line, first_byte = 1, 0
    unfinished = bytearray()
    with open_bytes(path, buffered=False) as stream:
        while piece := _read(stream, path):
            unfinished += piece
            if len(unfinished) < _BLOCK_BYTES and _has_more(stream):
                continue
            end = unfinished.rfind(b"\n") + 1
            if end:
                block = LineBlock(bytes(unfinished[:end]), first_line, first_byte)
                yield block
                first_line += block.data.count(b"\n")
                first_byte += end
                del unfinished[:end]
            if len(unfinished) > MAX_LINE_BYTES:
                raise UserError(
                    f"{shown_name(path)}: line {first_line} is longer than {MAX_LINE_BYTES // 2**20} MiB; expected "
                    "text with one sentence a line"
                )
    if unfinished:
        yield LineBlock(bytes(unfinished), first_line, first_byte)


def _split_at_invalid(block: LineBlock) -> tuple[LineBlock, LineBlock | None]:
    """The lines before the first one that is no UTF-8, and what begins with it."""
    try:
        block.data.decode()
    except UnicodeDecodeError as error:
        start = block.data.rfind(b"\n", 0, error.start) + 1
        head = block.data[:start]
        rest = LineBlock(block.data[start:], block.first_line + head.count(b"\n"), block.first_byte + start)
        return LineBlock(head, block.first_line, block.first_byte), rest
    return block, None


def _refuse(block: LineBlock, path: str) -> None:
    try:
        decode_block(block, path, "space")
    except UserError as error:
        raise UserError(f"{error}; or read such bytes as U+FFFD with --invalid-utf8 replace") from error


def _mended(block: LineBlock, path: str, counts: InputCounts) -> LineBlock:
    """The block with U+FFFD for what is no UTF-8."""
    try:
        block.data.decode()
    except UnicodeDecodeError:
        pass
    else:
        return block
    mended = []
    for number, line in enumerate(block.data.split(b"\n"), start=block.first_line):
        text = line.decode(errors="replace").encode()
        if text != line:
            counts.invalid_lines += 1
            counts.first_invalid = counts.first_invalid or f"{shown_name(path)}, line {number}"
        mended.append(text)
    return LineBlock(b"\n".join(mended), block.first_line, block.first_byte)


def _read(stream: Any, path: str) -> bytes:
    """At least one byte, unless the input has ended."""
    with explained_reading(path):
        read = getattr(stream, "read1", stream.read)
        while (piece := read(_READ_BYTES)) is None:  # a pipe that another program has set not to wait
            select.select([stream], [], [])
        return bytes(piece)


def _has_more(stream: Any) -> bool:
    """Whether a read would return at once, as at the end of the input; False where that cannot be told."""
    try:
        return bool(select.select([stream], [], [], 0)[0])
    except (OSError, ValueError):
        return False

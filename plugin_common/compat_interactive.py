"""The cure of :mod:`plugin_common.compat` that concerns the lines that fairseq-interactive reads."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from plugin_common.errors import UserError

logger = logging.getLogger(__name__)


def read_interactive_lines_exactly() -> None:
    """``fairseq-interactive``: a line ends at ``\\n`` alone, and bytes that are no UTF-8 do not end the session.

    Python's text mode also breaks lines at a lone carriage return, after which output line k no longer belongs to
    input line k.
    """
    for name in ("fairseq_cli.interactive", "__main__"):
        module = sys.modules.get(name)
        if module is not None and hasattr(module, "buffered_read"):
            module.buffered_read = _buffered_read  # type: ignore[attr-defined]


def _buffered_read(input: str, buffer_size: int) -> Iterator[list[str]]:  # fairseq's parameter names
    """Lists of at most ``buffer_size`` stripped lines of the file ``input`` (``-``: standard input)."""
    buffer: list[str] = []
    for line in _lines_with_replacements(input):
        buffer.append(line.strip())
        if len(buffer) >= buffer_size:
            yield buffer
            buffer = []
    if buffer:
        yield buffer


def _lines_with_replacements(path: str) -> Iterator[str]:
    """Lines of a byte stream split at ``\\n``; what is no UTF-8 becomes U+FFFD, with a warning that names the line."""
    with contextlib.ExitStack() as stack:
        if path == "-":
            stream = sys.stdin.buffer
        else:
            try:
                stream = stack.enter_context(Path(path).open("rb"))
            except OSError as error:
                raise UserError(
                    f"--input {path}: {error.strerror}; give a readable text file, or - for stdin"
                ) from error
        for number, raw in enumerate(stream, start=1):
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError as error:
                logger.warning("input line %d: byte %d is no UTF-8; replaced by U+FFFD", number, error.start + 1)
                yield raw.decode("utf-8", errors="replace")

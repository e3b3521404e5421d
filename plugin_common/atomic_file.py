"""Write a file so that it appears under its name only when it is complete."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from plugin_common.errors import UserError


@contextlib.contextmanager
def atomic_output(path: str) -> Iterator[BinaryIO]:
    """A binary file that takes the name ``path`` when the block ends without an exception, and vanishes otherwise.

    Until then the data stands beside it under a hidden temporary name; a file that was there before stays as it was.
    ``-`` is standard output; it and anything else that is no regular file (a pipe, ``/dev/null``) is written directly.

    Raises:
        UserError: the folder or file cannot be written, or the disk is full.
    """
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        if Path(path).exists() and not Path(path).is_file():
            with Path(path).open("wb") as stream:
                yield stream
        else:
            with _renamed_at_the_end(Path(path)) as stream:
                yield stream
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); check folder, rights and free space") from error


@contextlib.contextmanager
def _renamed_at_the_end(path: Path) -> Iterator[BinaryIO]:
    target = path.resolve()  # a symbolic link stays one
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def clean_up_when_terminated() -> Iterator[None]:
    """Within the block SIGTERM ends the process like an exception (status 143), so that temporary files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(signal_number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signal_number)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)

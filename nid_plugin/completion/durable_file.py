"""An append-only file of lines of which each is on the disk before it counts, with a reserve for a full disk."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk."""

WholeLine = Callable[[bytes], bool]
"""Whether a line, given without its newline, is complete."""


class DurableFile:
    """Appends whole lines; when :meth:`append` returns they survive a kill and a power cut.

    What an interrupted run left behind the last newline is cut off on opening (``torn`` bytes), unless ``whole``
    says that it is a complete line: then it gets its newline.

    Args:
        path: made if need be; the folder's entry is on the disk, too.
        whole: tells whether a last line without a newline is complete.
        read_only: leave the file as it is; one that is not there is empty. Others may be appending to it.
    """

    def __init__(self, path: Path, whole: WholeLine | None = None, *, read_only: bool = False) -> None:
        self.path = path
        self.torn = 0
        if read_only:
            self._fd = os.open(path if path.exists() else os.devnull, os.O_RDONLY)
        else:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self.torn = self._mend(whole)
            sync_folder(path.parent)
        self.size = os.fstat(self._fd).st_size

    def append(self, data: bytes, *, sync: bool = True) -> int:
        """Write whole lines and wait until they are on the disk; returns where they begin.

        Where it fails, the file is as before.

        Raises:
            OSError: it could not be written (full disk, broken disk).
        """
        begin = self.size
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
            if sync:
                os.fsync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, begin)
            error.filename = str(self.path)
            raise
        self.size = begin + len(data)
        return begin

    def sync(self) -> None:
        """Wait until all that was appended is on the disk."""
        os.fsync(self._fd)

    def read_line(self, offset: int) -> bytes:
        """The line that begins at a byte, without its newline."""
        size, data = 1 << 14, b""
        while b"\n" not in data:
            block = os.pread(self._fd, size, offset + len(data))
            if not block:
                break
            data += block
        return data.partition(b"\n")[0]

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The whole lines that were there on opening, with the bytes at which they begin."""
        with os.fdopen(os.dup(self._fd), "rb", buffering=1 << 18) as stream:
            stream.seek(0)
            offset = 0
            while offset < self.size:
                line = stream.readline()
                if not line.endswith(b"\n"):
                    return
                yield offset, line
                offset += len(line)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def _mend(self, whole: WholeLine | None) -> int:
        size = os.fstat(self._fd).st_size
        if not size or os.pread(self._fd, 1, size - 1) == b"\n":
            return 0
        tail, begin = b"", size
        while begin and b"\n" not in tail:
            step = min(begin, 1 << 16)
            begin -= step
            tail = os.pread(self._fd, step, begin) + tail
        rest = tail.rpartition(b"\n")[2]
        if whole is not None and whole(rest):
            os.write(self._fd, b"\n")
            os.fsync(self._fd)
            return 0
        os.ftruncate(self._fd, size - len(rest))
        os.fsync(self._fd)
        return len(rest)


class Reserve:
    """Space on the disk that is set aside, so that answers already paid for can be saved when the disk fills up."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        with contextlib.suppress(OSError), path.open("wb") as stream:  # a fuller disk: what there is must do
            os.posix_fallocate(stream.fileno(), 0, size)

    def release(self) -> None:
        """Give the space back."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


def sync_folder(folder: Path) -> None:
    """Wait until the folder's entries are on the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

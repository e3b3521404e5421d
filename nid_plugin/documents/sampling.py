"""An exact uniform sample of a stream of unknown length, in little memory."""

import heapq
import tempfile
from collections.abc import Iterator
from hashlib import blake2b
from typing import BinaryIO

from plugin_common.errors import UserError

_LEAST_GARBAGE_BYTES = 64 * 2**20  # rewriting the temporary file for less is not worth it


class Sample:
    """The N records with the smallest keys, where a record's key is a hash of the seed and its document's digest.

    Every set of N documents is equally likely over the seeds; which ones are drawn does not depend on their order.
    Equal documents have equal keys and are drawn once. The records stand in a temporary file (in ``TMPDIR``) of at most
    about three times their size; in memory there are about 250 bytes for each.

    Args:
        size: N.
        seed: another one draws another sample.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._hash_key = seed.to_bytes(16, "little", signed=True)
        self._drawn: list[tuple[int, int, int, int]] = []  # a heap: largest key first, as (-key, number, offset, size)
        self._keys: set[int] = set()
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the sample)
        self._end = self._live = self._number = 0

    def __len__(self) -> int:
        return len(self._drawn)

    def may_draw(self, digest: bytes) -> bool:
        """Whether a document with this digest would be drawn if the stream ended with it."""
        key = self._key(digest)
        return key not in self._keys and (len(self._drawn) < self._size or key < -self._drawn[0][0])

    def add(self, digest: bytes, record: bytes) -> None:
        """Offer a document.

        Raises:
            UserError: the disk of the temporary folder is full.
        """
        if not self.may_draw(digest):
            return
        key = self._key(digest)
        entry = (-key, self._number, self._end, len(record))
        self._number += 1
        self._write(record)
        self._keys.add(key)
        if len(self._drawn) < self._size:
            heapq.heappush(self._drawn, entry)
        else:
            lost = heapq.heapreplace(self._drawn, entry)
            self._keys.remove(-lost[0])
            self._live -= lost[3]
        if self._end - self._live > max(_LEAST_GARBAGE_BYTES, 2 * self._live):
            self._compact()

    def records(self) -> Iterator[bytes]:
        """The drawn records in the order in which they were offered."""
        for _, _, offset, size in sorted(self._drawn, key=lambda entry: entry[1]):
            self._file.seek(offset)
            yield self._file.read(size)

    def _key(self, digest: bytes) -> int:
        return int.from_bytes(blake2b(digest, digest_size=8, key=self._hash_key).digest(), "little")

    def _write(self, record: bytes) -> None:
        try:
            self._file.write(record)
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"--sample: the temporary file in {tempfile.gettempdir()} cannot be written ({error.strerror}); set "
                "TMPDIR to a folder with more room"
            ) from error
        self._end += len(record)
        self._live += len(record)

    def _compact(self) -> None:
        """Copy the records that are still drawn into a new temporary file."""
        old, self._file = self._file, tempfile.TemporaryFile()  # noqa: SIM115
        self._end = self._live = 0
        moved = []
        for key, number, offset, size in sorted(self._drawn, key=lambda entry: entry[2]):
            old.seek(offset)
            moved.append((key, number, self._end, size))
            self._write(old.read(size))
        old.close()
        heapq.heapify(moved)
        self._drawn = moved

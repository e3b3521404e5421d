"""Find records by their prompt, with only hashes and positions in memory."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import IO, Generic, TypeVar

from nid_plugin.halving import Half
from nid_plugin.pairs import Pair

T = TypeVar("T", Pair, Half)


class ByPrompt(Generic[T]):
    """Records in a temporary file, to be taken by their prompt; some 150 bytes of memory a record.

    Where several have the same prompt, they are taken in the order in which they came.
    """

    def __init__(self, stream: IO[bytes], make: Callable[..., T]) -> None:
        """Nothing yet; ``make`` gets the values of a record's fields, in order."""
        self._stream = stream
        self._make: Callable[..., T] = make
        self._end = 0
        self._first: dict[int, int] = {}
        self._more: dict[int, list[int]] = {}  # where prompts repeat: the positions after the first, in order

    def add(self, record: T) -> None:
        """Keep a record."""
        key = prompt_key(record.prompt)
        if key in self._first:
            self._more.setdefault(key, []).append(self._end)
        else:
            self._first[key] = self._end
        values = record if isinstance(record, tuple) else astuple(record)
        self._end += self._stream.write(json.dumps(values).encode() + b"\n")

    def take(self, prompt: str) -> T | None:
        """The next record with this prompt, which is then no longer here; None where there is none."""
        key = prompt_key(prompt)
        last = not self._more.get(key)
        record = self.find(prompt)
        if last:
            self._first.pop(key, None)
        return record

    def find(self, prompt: str) -> T | None:
        """As :meth:`take`, but the last record with this prompt stays, and is found again."""
        key = prompt_key(prompt)
        position = self._first.get(key)
        if position is None:
            return None
        if waiting := self._more.get(key):
            self._first[key] = waiting.pop(0)
        self._stream.seek(position)
        record = self._make(*json.loads(self._stream.readline()))
        return record if record.prompt == prompt else None

    def __len__(self) -> int:
        """How many are left, counted by prompt."""
        return len(self._first) + sum(map(len, self._more.values()))


@contextmanager
def by_prompt(records: Iterable[T], make: Callable[..., T], folder: Path) -> Iterator[ByPrompt[T]]:
    """All ``records``, to be taken by prompt within the block; their texts wait in a nameless file in ``folder``."""
    with tempfile.TemporaryFile(dir=folder) as stream:
        found = ByPrompt(stream, make)
        for record in records:
            found.add(record)
        yield found


def prompt_key(prompt: str, seed: int | None = None) -> int:
    """64 bits of a hash of the prompt (and the seed), the same on every machine and in every run."""
    key = b"" if seed is None else str(seed).encode()
    return int.from_bytes(hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest())

"""Let a thread get the next item of a stream while the caller works on this one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

T = TypeVar("T")


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """The same items in the same order, each fetched in a thread, one ahead. Errors come where they would have come.

    Pays where fetching leaves Python's global lock (reading, decompressing) and an item is worth a millisecond.
    """
    end = object()
    with ThreadPoolExecutor(1, "prefetch") as thread:
        upcoming = thread.submit(next, items, end)
        while (item := upcoming.result()) is not end:
            upcoming = thread.submit(next, items, end)
            yield cast(T, item)

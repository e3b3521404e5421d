"""Let a thread get the next item of a stream while the caller works on this one."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

T = TypeVar("T")


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """The same items in the same order, each fetched in a thread, one ahead. Errors come where they would have come.

    Pays where fetching leaves Python's global lock (reading, decompressing) and an item is worth a millisecond.
    """
    end = object()
    begun = threading.Event()

    def fetch() -> object:
        begun.set()
        return next(items, end)

    def ask() -> "Future[object]":
        # A thread that wants the lock from a busy one gets it after 5 ms at the earliest, which is longer than the work
        # on an item: without waiting here, fetching would begin only when the caller is done, and nothing be gained.
        begun.clear()
        upcoming = thread.submit(fetch)
        begun.wait()
        return upcoming

    with ThreadPoolExecutor(1, "prefetch") as thread:
        upcoming = ask()
        while (item := upcoming.result()) is not end:
            upcoming = ask()
            yield cast(T, item)

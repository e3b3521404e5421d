"""Let a thread get the next item of a stream while the caller works on this one."""

import contextlib
import sys
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
        # A thread that wants the lock from a busy one has to wait for it, at times longer than the work on an item
        # takes: without waiting here, fetching would begin only when the caller is done, and nothing be gained.
        begun.clear()
        upcoming = thread.submit(fetch)
        begun.wait()
        return upcoming

    with _quick_handover(), ThreadPoolExecutor(1, "prefetch") as thread:
        upcoming = ask()
        while (item := upcoming.result()) is not end:
            upcoming = ask()
            yield cast(T, item)


@contextlib.contextmanager
def _quick_handover() -> Iterator[None]:
    """Let a waiting thread have Python's lock after 1 ms instead of 5.

    Each item makes the thread wait for it at least once, and the work on an item takes about ten milliseconds.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, 0.001))
    try:
        yield
    finally:
        sys.setswitchinterval(before)

"""Map functions over streams on several processes: results in order, memory bounded, no process left behind."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, TypeVar

from plugin_common.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """``work(item)`` for each item, in order; ``items`` is read at most three items a worker ahead.

    Args:
        work: can be pickled, unless there is one worker.
        items: read in this process.
        workers: processes; 1 works in this process.

    Raises:
        UserError: a process was killed.
    """
    if workers <= 1:
        yield from map(work, items)
        return
    with ordered_pool(workers) as map_in_order:
        yield from map_in_order(work, items)


@contextmanager
def ordered_pool(
    workers: int, prepare: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]]:
    """A function ``map_in_order(work, items)`` that works as :func:`ordered_map`, on processes that serve all calls.

    Args:
        workers: processes, at least 1.
        prepare: each process calls ``prepare(*arguments)`` when it starts. Forked processes share the arguments;
            where forking is not safe (macOS), each gets a copy.

    Raises:
        UserError: a process was killed.
    """
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(prepare, arguments))
    try:
        pool.submit(os.getpid).result()  # start the processes before any thread, of a progress bar for example
        yield lambda work, items: _map_in_order(pool, work, items, 3 * workers)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, probably because memory ran out; nothing was written. Try again with fewer: "
            f"--workers {max(1, workers // 2)}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _map_in_order(
    pool: ProcessPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], in_flight: int
) -> Iterator[Result]:
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) >= in_flight:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _start_worker(prepare: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    if prepare is not None:
        prepare(*arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends the work
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker must not outlive a parent that was killed: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)

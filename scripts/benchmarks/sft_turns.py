"""Two training programs that take turns, each in a process of its own.

A side's whole training loop runs in its process, as its users run it; after every update it calls :meth:`Turns.update`,
which holds it when its turn is over. While one side trains, the others wait without using the processor.
"""

import math
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self

from scripts.benchmarks.child_process import ChildProcess
from scripts.benchmarks.steps import resident_mib


@dataclass(frozen=True)
class Turn:
    """One turn: real tokens and places (padding included) of its batches, seconds and processor seconds of its updates,
    the peak resident size of the process so far, in MiB, and the mean loss in nats per label (NaN where not told)."""

    tokens: int
    places: int
    seconds: float
    cpu_seconds: float
    peak_mib: float
    loss: float = math.nan

    @property
    def tokens_per_s(self) -> float:
        """Speed."""
        return self.tokens / self.seconds


class Stopped(Exception):
    """Raised out of a training loop whose turns are over."""


class Turns:
    """A side's own end: counts updates, reports a turn and waits for the next."""

    def __init__(self, pipe: Connection, warm_up: int, updates: int) -> None:
        self._pipe, self._updates, self._left = pipe, updates, warm_up
        self._warm = False
        self._tokens, self._places, self._losses = 0, 0, list[float]()
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def update(self, tokens: int, places: int, loss: float = math.nan) -> None:
        """Note an update that read so many real tokens in so many places.

        Raises:
            Stopped: no more turns are wanted.
        """
        self._tokens += tokens
        self._places += places
        self._losses.append(loss)
        self._left -= 1
        if self._left > 0:
            return
        seconds, cpu = time.perf_counter() - self._started, time.process_time() - self._cpu_started
        loss = sum(self._losses) / len(self._losses)
        turn = Turn(self._tokens, self._places, seconds, cpu, resident_mib("VmHWM"), loss)
        self._pipe.send(turn if self._warm else None)
        try:
            self._pipe.recv()
        except EOFError:
            raise Stopped from None
        self._warm = True
        self._left, self._tokens, self._places, self._losses = self._updates, 0, 0, []
        self._started, self._cpu_started = time.perf_counter(), time.process_time()


class Side(ChildProcess):
    """``with Side(train, …) as turn: turn()`` lets ``train(turns, *arguments)`` make its next turn in its process.

    The process starts at once; entering waits for the end of its warm-up.

    Raises:
        RuntimeError: the process failed, or ended by itself; with its error.
    """

    def __init__(self, train: Callable[..., None], *arguments: Any, warm_up: int, updates: int, threads: int) -> None:
        super().__init__(_serve, train, arguments, warm_up, updates, threads, patience=20)

    def __call__(self) -> Turn:
        turn: Turn = self.ask(None)
        return turn

    def __enter__(self) -> Self:
        try:
            self.answer()
        except BaseException:
            self.close()
            raise
        return self


def _serve(
    pipe: Connection,
    train: Callable[..., None],
    arguments: tuple[Any, ...],
    warm_up: int,
    updates: int,
    threads: int,
) -> None:
    # Before torch is loaded: libraries that it brings read these once.
    os.environ |= {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    try:
        import torch

        torch.set_num_threads(threads)
        train(Turns(pipe, warm_up, updates), *arguments)
        pipe.send("the training ended before its turns were over")
    except Stopped:
        pass
    except (Exception, SystemExit):
        pipe.send(traceback.format_exc())

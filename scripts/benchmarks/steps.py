"""Time and peak memory of training steps, each variant in a process of its own.

A variant's memory then holds nothing of another's, and its first step, which loads libraries and compiles kernels, can
be thrown away. The processes wait for each other: one step runs at a time, with all cores.

Memory is the extra peak over what exists before the step (inputs, parameters, optimizer state): what the step holds at
its fullest, gradients of inputs and parameters included, which every variant has to have. On a CPU it is the peak
resident size that Linux keeps for the process, reset before the step, less the resident size before it; on CUDA that of
torch's allocator. Gradients of the previous step are dropped first.
"""

import contextlib
import functools
import gc
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch

from plugin_common.free_memory import give_back_free_memory
from scripts.benchmarks.child_process import ChildProcess


class Steps(Protocol):
    """A variant, ready to run."""

    def reset(self) -> None:
        """Drop the last step's gradients; not timed."""

    def step(self, *arguments: Any) -> Any:
        """One whole step; returns a number for comparison (the loss), or whatever else a benchmark needs of it."""


@dataclass(frozen=True)
class Step:
    """One step: seconds, extra peak memory in MiB (NaN where the system does not tell), and what it returned."""

    seconds: float
    peak_mib: float
    value: Any


class StepProcess(ChildProcess):
    """``with StepProcess(make, *arguments) as step: step()`` runs a step of ``make(*arguments)`` in another process.

    What ``step`` is called with goes to the step. ``threads`` are those on the CPU; ``tf32`` lets CUDA's float32
    products use TensorFloat-32.

    Raises:
        RuntimeError: the process failed; with its error, or that it ended without one (as it does when memory is full).
    """

    def __init__(
        self, make: Callable[..., Steps], *arguments: Any, device: str = "cpu", threads: int = 1, tf32: bool = False
    ) -> None:
        super().__init__(_serve, make, arguments, device, threads, tf32)
        self.answer()

    def __call__(self, *arguments: Any) -> Step:
        step: Step = self.ask(arguments)
        return step


def _serve(
    pipe: Connection, make: Callable[..., Steps], arguments: tuple[Any, ...], device: str, threads: int, tf32: bool
) -> None:
    torch.set_num_threads(threads)
    if device == "cuda":
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
    measure = cuda_step if device == "cuda" else cpu_step
    try:
        steps = make(*arguments)
        pipe.send(None)
        while True:
            try:
                request = pipe.recv()
            except EOFError:
                return
            steps.reset()
            measured = measure(functools.partial(steps.step, *request))
            steps.reset()  # what is left would take memory from the others
            pipe.send(measured)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def cpu_step(step: Callable[[], Any]) -> Step:
    """Run and measure one step on the CPU."""
    gc.collect()
    give_back_free_memory()  # what the C library still holds is not in use
    before = resident_mib("VmRSS")
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    started = time.perf_counter()
    value = _plain(step())
    seconds = time.perf_counter() - started
    return Step(seconds, resident_mib("VmHWM") - before, value)


def _plain(value: Any) -> Any:
    """A tensor's number (which waits for the device), anything else as it is."""
    return float(value) if isinstance(value, int | float | torch.Tensor) else value


def resident_mib(field: str) -> float:
    """This process's resident size (``VmRSS``) or its peak (``VmHWM``) in MiB; NaN where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    return math.nan


def cuda_step(step: Callable[[], Any]) -> Step:
    """Run and measure one step on the current CUDA device; the step's value is read after the clock has stopped."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    value = step()
    end.record()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    return Step(start.elapsed_time(end) / 1000, peak / 2**20, _plain(value))


def all_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)

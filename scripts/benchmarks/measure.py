"""What the benchmarks share: run variants in turn, sum the figures up, say on what machine, write JSON.

Each benchmark is run by its path, so Python puts this folder first on the module search path, where ``tokenize.py``
would hide Python's own module of that name. So each one begins with::

    import sys
    from pathlib import Path

    if __name__ == "__main__":  # see measure.py
        here = Path(__file__).resolve().parent
        sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]
"""

import contextlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SAMPLING_SECONDS = 0.05


@dataclass(frozen=True)
class CommandRun:
    """One run of a command: wall-clock seconds, and the peak memory of its largest process in MiB (NaN off Linux)."""

    seconds: float
    peak_mib: float


def run_command(command: Sequence[str], environment: Mapping[str, str] | None = None) -> CommandRun:
    """Run a command to its end, its output thrown away.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            list(command), env={**os.environ, **(environment or {})}, stdout=output, stderr=subprocess.STDOUT
        )
        peaks: list[float] = []
        sampler = threading.Thread(target=_sample_peaks, args=(process, peaks))
        sampler.start()
        process.wait()
        seconds = time.perf_counter() - started
        sampler.join()
        if process.returncode != 0:
            output.seek(max(0, output.tell() - 2000))
            end = output.read().decode(errors="replace")
            raise RuntimeError(f"{' '.join(command)}\nended with status {process.returncode}:\n{end}")
    return CommandRun(seconds, max(peaks, default=math.nan))


def _sample_peaks(process: subprocess.Popen[bytes], peaks: list[float]) -> None:
    """Collect the peak memory of the process and its descendants until it ends.

    The figure that the kernel gives at the end (``ru_maxrss``) begins at the size of the process that forked it: ours.
    """
    while process.returncode is None:
        for pid in _with_descendants(process.pid):
            peaks += _peak_mib(pid)
        time.sleep(SAMPLING_SECONDS)


def _with_descendants(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _with_descendants(int(child))


def _peak_mib(pid: int) -> list[float]:
    """The most memory that a running process has held; empty if there is no such process any more."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return [int(line.split()[1]) / 1024]
    return []


def run_in_turn(variants: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[Any]]:
    """Call every variant ``repeats`` times: all once in each round, every second round backwards.

    A change in the machine's load then meets all variants alike, and results of one round form a pair.
    """
    results: dict[str, list[Any]] = {name: [] for name in variants}
    for round_number in range(repeats):
        names = list(variants)[:: 1 if round_number % 2 == 0 else -1]
        for name in names:
            results[name].append(variants[name]())
            print(f"round {round_number + 1} of {repeats}: {name}: {results[name][-1]}", file=sys.stderr)
    return results


def row(values: Sequence[float]) -> dict[str, float]:
    """Smallest, median and largest of one variant's figures."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of ``ours ÷ theirs`` over the rounds."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def machine() -> dict[str, Any]:
    """The processor, its cores, the memory and the system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "ram_gib": round(pages / 2**30, 1),
        "system": platform.platform(),
        "load_average_before": os.getloadavg()[0],
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of the installed packages."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_report(path: str | Path, report: Mapping[str, Any]) -> None:
    """Write the JSON report; every benchmark's holds ``machine``, ``versions``, ``rows`` and ``ratios``."""
    assert {"machine", "versions", "rows", "ratios"} <= set(report)
    Path(path).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

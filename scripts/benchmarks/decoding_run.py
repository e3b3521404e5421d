"""Runs the decoding benchmark: makes files, starts a process for each system, lets them translate in turn."""

import functools
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scripts.benchmarks.decoding_models import ModelFiles
from scripts.benchmarks.decoding_systems import (
    SYSTEMS,
    DecodingSteps,
    Models,
    Turn,
    Workload,
    make_side,
    missing,
)
from scripts.benchmarks.measure import run_in_turn
from scripts.benchmarks.steps import Step, StepProcess

REST_SECONDS = 0.3
"""Before each turn: some libraries' threads go on waiting actively for up to 0.2 s after their work is done."""


@dataclass
class Run:
    """Processes at work and what became of the others.

    Attributes:
        processes: by the name of the system; left_out: why a system is not measured.
        parameters: of the random models, by side.
        models: what the processes loaded.
    """

    models: Models
    processes: dict[str, StepProcess] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)

    def leave_out(self, name: str, reason: object) -> None:
        """Note a system that cannot be measured, and say so."""
        self.left_out[name] = str(reason)[:500]
        self.processes.pop(name, None)
        print(f"left out: {name}: {self.left_out[name]}", file=sys.stderr)


def random_models(size: str, folder: Path) -> Models:
    """Where the checkpoints with random weights of a size will stand."""
    ours, theirs = (ModelFiles(str(folder / f"{side}.pt"), str(folder)) for side in ("ours", "theirs"))
    return Models(str(folder), ours, theirs, size)


@contextmanager
def started(models: Models, names: Sequence[str], *, threads: int, device: str) -> Iterator[Run]:
    """All systems loaded, each in a process of its own; ours and theirs are made side by side."""
    run = Run(models)
    wanted = []
    for name in names:
        reason = missing(name, device)
        if reason is None:
            wanted.append(name)
        else:
            run.leave_out(name, reason)
    with ExitStack() as stack:
        start = functools.partial(_start_side, run, stack, threads, device)
        sides = {side: [n for n in wanted if SYSTEMS[n].ours == (side == "ours")] for side in ("ours", "theirs")}
        with ThreadPoolExecutor(max_workers=2) as pool:
            for done in [pool.submit(start, side, of_side) for side, of_side in sides.items() if of_side]:
                done.result()
        run.processes = {name: run.processes[name] for name in names if name in run.processes}
        yield run


def _start_side(run: Run, stack: ExitStack, threads: int, device: str, side: str, names: Sequence[str]) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
        run.parameters[side], failed = child.submit(make_side, run.models, side, names).result()
    for name in names:
        if SYSTEMS[name].family in failed:
            run.leave_out(name, failed[SYSTEMS[name].family])
            continue
        try:
            process = StepProcess(DecodingSteps, name, run.models, threads, device, device=device, threads=threads)
            run.processes[name] = stack.enter_context(process)
        except RuntimeError as error:
            run.leave_out(name, error)


def measure(run: Run, workload: Workload, names: Sequence[str], repeats: int) -> dict[str, list[Step]]:
    """``repeats`` turns of each system, after a batch of each shape that is not counted.

    A system that fails, then or in a turn, or whose translations do not have the forced length, is left out.
    """
    turns: dict[str, Callable[[], Step | None]] = {}
    for name in names:
        if name not in run.processes:
            continue
        try:
            first: Turn = run.processes[name](workload, True).value
            if first.problem is not None:
                raise RuntimeError(first.problem)
        except RuntimeError as error:
            run.leave_out(name, f"{described(workload)}: {error}")
            continue
        turns[name] = functools.partial(_turn, run, name, workload)
    print(f"== {described(workload)}", file=sys.stderr)
    results: dict[str, list[Step]] = run_in_turn(turns, repeats)
    return {name: steps for name, steps in results.items() if name in run.processes}


def _turn(run: Run, name: str, workload: Workload) -> Step | None:
    """A turn, after a rest; None of a system that failed in this one or one before."""
    if name not in run.processes:
        return None
    time.sleep(REST_SECONDS)
    try:
        step = run.processes[name](workload, False)
        if step.value.problem is not None:
            raise RuntimeError(step.value.problem)
    except RuntimeError as error:
        run.leave_out(name, f"{described(workload)}: {error}")
        return None
    return step


def described(workload: Workload) -> str:
    """A workload's part of the names of rows."""
    return f"{workload.sentences}/batch{workload.batch}"


def workloads(sets: Sequence[str], sizes: Sequence[int], *, quick: bool) -> list[Workload]:
    """What is measured: equal lengths at each batch size, ragged ones at the batch size closest to 32."""
    made = []
    if "even" in sets:
        at_batch_1 = 2 if quick else 20
        made += [Workload("even", n, at_batch_1 if n == 1 else n * max(1, 32 // n)) for n in sizes]
    if "ragged" in sets:
        closest = min(sizes, key=lambda n: abs(n - 32))
        made.append(Workload("ragged", closest, 4 * closest))
    # Smallest batches first: some libraries never give memory back, which would count for all that follows.
    return sorted(made, key=lambda workload: workload.batch)


def agreement(results: Mapping[str, list[Step]]) -> dict[str, float]:
    """Share of sentences whose tokens are those of fairseq in float32 with the same checkpoint and beam."""
    shares = {}
    for name, steps in results.items():
        system = SYSTEMS[name]
        reference = "ours_fp32" if system.ours else f"fairseq_fp32_beam{system.beam}"
        if reference in results and name != reference and not name.startswith("huggingface"):
            theirs = [_without_end(row) for row in results[reference][0].value.tokens]
            own = [_without_end(row) for row in steps[0].value.tokens]
            # fairseq's last forced step gives </s>, CTranslate2's a token.
            pairs = [(a[: len(b)], b) if len(a) > len(b) else (a, b) for a, b in zip(own, theirs, strict=True)]
            shares[name] = sum(a == b for a, b in pairs) / len(pairs)
    return shares


def _without_end(row: list[int]) -> list[int]:
    return row[:-1] if row and row[-1] == 2 else row

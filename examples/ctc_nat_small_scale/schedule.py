"""Makes units, several at a time, each in a process of its own, each after what it needs."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from examples.ctc_nat_small_scale.commands import Setting
from examples.ctc_nat_small_scale.units import Unit, is_made
from plugin_common.stage_processes import ended_by_signals

OUT_OF_TIME = 75  # EX_TEMPFAIL: try again
POLL_SECONDS = 0.2
GRACE_SECONDS = 20


@dataclass
class Work:
    """What is to be made.

    Attributes:
        setting: of the reproduction.
        every: all units in order of urgency.
        chosen: those asked for; what they need is made as well.
        again: command line to which ``--unit NAME`` is added for the process of a unit.
        jobs: processes at a time.
        minutes: until all are stopped, or None.
    """

    setting: Setting
    every: Sequence[Unit]
    chosen: Sequence[Unit]
    again: Sequence[str]
    jobs: int
    minutes: float | None = None
    failed: dict[str, int] = field(default_factory=dict)

    def waiting(self) -> list[Unit]:
        """The chosen units and what they need, without what is made already, in order."""
        by_name = {unit.name: unit for unit in self.every}
        unmade: dict[str, bool] = {}
        again: set[str] = set()

        def look(unit: Unit) -> bool:
            """True if the unit is not made, or what it needs is not."""
            if unit.name not in unmade:
                needed = [look(by_name[name]) for name in unit.needs]
                unmade[unit.name] = any(needed) or not is_made(self.setting, unit, by_name)
                if unmade[unit.name]:
                    look_for_inputs(unit)
            return unmade[unit.name]

        def look_for_inputs(unit: Unit) -> None:
            """What was made may have lost its weights since; now they are read."""
            for need in map(by_name.__getitem__, unit.needs):
                if not unmade[need.name] and need.name not in again and lacks(unit, need):
                    again.add(need.name)
                    look_for_inputs(need)

        for unit in self.chosen:
            look(unit)
        return [unit for unit in self.every if unmade.get(unit.name) or unit.name in again]


def lacks(unit: Unit, need: Unit) -> bool:
    """Whether the unit reads anything of the other one that is not there."""
    made = {path for stage in need.stages for path in stage.outputs}
    read = [path for stage in unit.stages for path in stage.inputs]
    return any(path in made or made & set(path.parents) for path in read if not path.exists())


def make(work: Work) -> int:
    """Make all that is asked for.

    What does not need a unit that failed is made all the same. Children are stopped when time is up or this process is
    interrupted; what they had trained until their last checkpoint is kept.

    Returns:
        0; 1 if a unit failed; ``OUT_OF_TIME``.
    """
    end = time.monotonic() + 60 * work.minutes if work.minutes else float("inf")
    waiting = work.waiting()
    total, done = len(waiting), 0
    running: dict[str, _Child] = {}
    print(f"{total} parts to make in {work.setting.work}, {work.jobs} at a time", flush=True)
    with ended_by_signals():
        try:
            while waiting or running:
                if time.monotonic() > end:
                    return OUT_OF_TIME
                for unit in _startable(waiting, running, work):
                    waiting.remove(unit)
                    running[unit.name] = _Child(unit.name, work.again)
                for child in [child for child in running.values() if child.process.poll() is not None]:
                    del running[child.name]
                    done += 1
                    if (status := child.finish()) != 0:
                        work.failed[child.name] = status
                    told = "made" if status == 0 else f"FAILED with status {status}"
                    print(f"[{child.name}] {told} in {child.seconds / 60:.1f} minutes ({done} of {total})", flush=True)
                if not running and not _startable(waiting, running, work):
                    break
                time.sleep(POLL_SECONDS)
        finally:
            _stop(running.values())
    for unit in waiting:
        print(f"[{unit.name}] left out: it needs what failed", file=sys.stderr)
    return 1 if work.failed or waiting else 0


def _startable(waiting: Sequence[Unit], running: dict[str, "_Child"], work: Work) -> list[Unit]:
    """What may start now; what is timed runs alone, after all else."""
    blocked = {unit.name for unit in waiting} | running.keys() | work.failed.keys()
    ready = [unit for unit in waiting if not blocked & set(unit.needs)]
    together = [unit for unit in ready if not unit.alone]
    if together or running:
        return together[: work.jobs - len(running)]
    return ready[:1]


class _Child:
    """The process of a unit; its lines appear with the unit's name before them."""

    def __init__(self, name: str, again: Sequence[str]) -> None:
        self.name, self._started = name, time.monotonic()
        self.process = subprocess.Popen(
            [*again, "--unit", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        self._reader = threading.Thread(target=self._show, daemon=True)
        self._reader.start()
        self.seconds = 0.0

    def _show(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            print(f"[{self.name}] {line}", end="", flush=True)

    def finish(self) -> int:
        self._reader.join(timeout=GRACE_SECONDS)
        self.seconds = time.monotonic() - self._started
        return self.process.wait()


def _stop(children: Iterable[_Child]) -> None:
    there = list(children)
    for child in there:
        child.process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for child in there:
        try:
            child.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()

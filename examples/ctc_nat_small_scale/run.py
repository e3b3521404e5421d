"""A small-scale reproduction of one-pass translation with a pretrained masked LM: text, models, grid, tables.

python examples/ctc_nat_small_scale/run.py all --size tiny
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence

from examples.ctc_nat_small_scale.commands import HERE, ROOT, Setting
from examples.ctc_nat_small_scale.options import Request, keep_setting, request
from examples.ctc_nat_small_scale.schedule import OUT_OF_TIME, Work, make
from examples.ctc_nat_small_scale.units import Unit, drop_outdated, mark_made, units, workspace
from plugin_common.command_line import read_and_run
from plugin_common.errors import UserError
from plugin_common.stage_runner import Runner, project_programs
from plugin_common.stages import plan, show_plan

PACKAGES = ("ve-fairseq", "torch", "transformers", "tokenizers", "sacrebleu")


def runner(threads: int) -> Runner:
    """Runs the programs of this environment, each with so many threads."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        "PYTHONPATH": os.pathsep.join(paths),
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(threads),
    }
    return Runner(project_programs(), environment, packages=PACKAGES)


def make_unit(asked: Request, unit: Unit) -> None:
    """Make one unit in this process."""
    threads = max(1, asked.cores // asked.jobs)
    drop_outdated(asked.setting, unit)
    runner(threads).run(workspace(asked.setting, unit), unit.stages)
    mark_made(asked.setting, unit, {one.name: one for one in units(asked.setting)})
    if asked.drop_checkpoints:
        shutil.rmtree(asked.setting.work / unit.name / "checkpoints", ignore_errors=True)


def show(asked: Request, waiting: Sequence[Unit]) -> None:
    """Tell what would be done."""
    print(f"{len(waiting)} parts to make in {asked.setting.work}, {asked.jobs} at a time")
    for unit in waiting:
        print(f"== {unit.name}" + (f" (after {', '.join(unit.needs)})" if unit.needs else ""))
        print(show_plan(plan(workspace(asked.setting, unit), unit.stages)))


def run(asked: Request) -> int:
    """Do what is asked for; the exit status."""
    every = units(asked.setting)
    if asked.unit is not None:
        make_unit(asked, next(unit for unit in every if unit.name == asked.unit))
        return 0
    chosen = asked.chosen(every)
    again = [sys.executable, str(Path(__file__).resolve()), *asked.again]
    work = Work(asked.setting, every, chosen, again, asked.jobs, asked.minutes)
    if asked.dry_run:
        show(asked, work.waiting())
        return 0
    started = time.monotonic()
    with alone_in(asked.setting.work):
        keep_setting(asked.setting)
        status = make(work)
        if status == OUT_OF_TIME or asked.part not in ("all", "results"):
            return status
        if asked.minutes and time.monotonic() - started > 60 * asked.minutes:
            return OUT_OF_TIME
        return make_results(asked.setting) or status


def make_results(setting: Setting) -> int:
    """Tables and figures of what there is; 0 or 1."""
    words = [sys.executable, str(HERE / "results.py"), "--work", str(setting.work), "--size", setting.size.name]
    return 0 if subprocess.run(words).returncode == 0 else 1


@contextlib.contextmanager
def alone_in(work: Path) -> Iterator[None]:
    """Hold the working folder: another run that makes the same parts would be in the way.

    Raises:
        UserError: another run holds it.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"{work}: another run.py works here; wait for it, stop it, or give another --work"
            ) from None
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 when a part failed, 2 for wrong options, 75 when time was up, 130 when interrupted."""
    status = read_and_run(request, run, argv)
    if status == OUT_OF_TIME:
        print("time is up; the same command goes on from here", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

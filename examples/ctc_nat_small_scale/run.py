"""A small-scale reproduction of one-pass translation with a pretrained masked LM: text, models, grid, tables.

python examples/ctc_nat_small_scale/run.py all --size tiny
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import os
import subprocess
from collections.abc import Sequence

from examples.ctc_nat_small_scale.commands import HERE, ROOT, programs
from examples.ctc_nat_small_scale.options import Request, request
from examples.ctc_nat_small_scale.schedule import OUT_OF_TIME, Work, make
from examples.ctc_nat_small_scale.units import Unit, mark_made, units, workspace
from plugin_common.errors import UserError
from plugin_common.stage_runner import Runner
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
    return Runner(programs(), environment, packages=PACKAGES)


def make_unit(asked: Request, unit: Unit) -> None:
    """Make one unit in this process."""
    threads = max(1, asked.cores // asked.jobs)
    runner(threads).run(workspace(asked.setting, unit), unit.stages)
    mark_made(asked.setting, unit, {one.name: one for one in units(asked.setting)})


def show(asked: Request, chosen: Sequence[Unit]) -> None:
    """Tell what would be done."""
    for unit in chosen:
        print(f"== {unit.name}" + (f" (after {', '.join(unit.needs)})" if unit.needs else ""))
        print(show_plan(plan(workspace(asked.setting, unit), unit.stages)))


def run(asked: Request) -> int:
    """Do what is asked for; the exit status."""
    every = units(asked.setting)
    if asked.unit is not None:
        make_unit(asked, next(unit for unit in every if unit.name == asked.unit))
        return 0
    chosen = [unit for unit in every if asked.wants(unit)]
    if asked.dry_run:
        show(asked, chosen)
        return 0
    again = [sys.executable, str(Path(__file__).resolve()), *asked.again]
    status = make(Work(asked.setting, every, chosen, again, asked.jobs, asked.minutes))
    if status != OUT_OF_TIME and asked.part in ("all", "results"):
        size, work = asked.setting.size.name, str(asked.setting.work)
        status |= subprocess.run([sys.executable, str(HERE / "results.py"), "--work", work, "--size", size]).returncode
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 when a part failed, 2 for wrong options, 75 when time was up, 130 when interrupted."""
    try:
        asked = request(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        status = run(asked)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    if status == OUT_OF_TIME:
        print("time is up; the same command goes on from here", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

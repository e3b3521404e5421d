"""The command line of ``run.py``."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.ctc_nat_small_scale.commands import ROOT, Setting
from examples.ctc_nat_small_scale.corpora import SOURCES
from examples.ctc_nat_small_scale.grid import BASELINE, ROWS
from examples.ctc_nat_small_scale.sizes import DIRECTIONS, SIZES
from examples.ctc_nat_small_scale.units import GROUPS, Unit, units
from plugin_common.errors import UserError, raise_all

PARTS = ("all", *GROUPS)
PRECISIONS = ("bf16", "fp32")


@dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        setting: of the reproduction.
        part: of ``PARTS``.
        rows, directions, seeds: of the trainings; empty: all.
        jobs: units made at the same time.
        cores: of this machine.
        minutes: stop after that time, or None.
        unit: the one unit to make in this process, or None.
        dry_run: only tell.
        again: options that give another process the same setting.
    """

    setting: Setting
    part: str
    rows: tuple[str, ...]
    directions: tuple[str, ...]
    seeds: tuple[int, ...]
    jobs: int
    cores: int
    minutes: float | None
    unit: str | None
    dry_run: bool
    again: tuple[str, ...]

    def wants(self, unit: Unit) -> bool:
        """Whether the unit is asked for by itself, not only for another one."""
        if self.part not in ("all", unit.group):
            return False
        if unit.training is None:
            return unit.group != "baseline" or not self.rows  # distilled data of named rows: made if they need them
        training = unit.training
        chosen = ((self.rows, training.row), (self.directions, training.direction), (self.seeds, training.seed))
        return all(not wanted or value in wanted for wanted, value in chosen)


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser(
        prog="run.py",
        description="Reproduce one-pass translation with a pretrained masked LM at small scale.",
        epilog="example:\n  run.py all --size tiny\n  run.py grid --size cpu --rows pmlm random --directions de-en",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("part", metavar="PART", help=f"{' | '.join(PARTS)}; with what it needs")
    sizes = "; ".join(f"{size.name}: {size.purpose}" for size in SIZES.values())
    made.add_argument("--size", default="tiny", help=f"{sizes} (default: %(default)s)")
    made.add_argument("--work", metavar="DIR", help="everything goes there (default: runs/ctc-nat-small-scale-SIZE)")
    which = made.add_argument_group("which trainings")
    which.add_argument("--rows", nargs="+", default=[], metavar="ROW", help=f"{', '.join((BASELINE, *ROWS))}")
    which.add_argument("--directions", nargs="+", default=[], metavar="PAIR", help=", ".join(DIRECTIONS))
    which.add_argument("--seeds", nargs="+", default=[], metavar="N")
    how = made.add_argument_group("how")
    how.add_argument("--jobs", metavar="N", help="trainings at a time (default: 4 on a GPU, one a core on a CPU)")
    how.add_argument("--minutes", metavar="N", help="stop then; the same command goes on from there")
    how.add_argument("--cpu", action="store_true", help="although there is a GPU")
    how.add_argument("--precision", help=f"{' | '.join(PRECISIONS)} (default: bf16 where the machine is fast in it)")
    how.add_argument("--dry-run", action="store_true", help="tell what would be done and why, with all commands")
    text = made.add_argument_group("where the text comes from")
    text.add_argument("--source", help=f"{' | '.join(SOURCES)}: of the corpora (default: the size's)")
    text.add_argument("--cache", metavar="DIR", help="keeps Debian's packages (default: runs/debian-packages)")
    text.add_argument("--no-download", action="store_true", help="take the packages in --cache as they are")
    made.add_argument("--unit", help=argparse.SUPPRESS)
    return made


def request(argv: Sequence[str]) -> Request:
    """What a command line asks for.

    Raises:
        UserError: everything that is wrong with it.
    """
    args, unknown = parser().parse_known_args(argv)
    problems = [f"{word}: no such option; --help lists them" for word in unknown]
    named = [("PART", args.part, PARTS), ("--size", args.size, tuple(SIZES))]
    named += [("--precision", args.precision, PRECISIONS)] if args.precision else []
    named += [("--source", args.source, SOURCES)] if args.source else []
    named += [("--rows", row, (BASELINE, *ROWS)) for row in args.rows]
    named += [("--directions", direction, DIRECTIONS) for direction in args.directions]
    problems += [f"{option} {value}: expected one of {', '.join(known)}" for option, value, known in named
                 if value not in known]  # fmt: skip
    seeds = tuple(int(_number("--seeds", seed, problems)) for seed in args.seeds)
    minutes = _number("--minutes", args.minutes, problems) if args.minutes else None
    jobs = int(_number("--jobs", args.jobs, problems)) if args.jobs else None
    work = Path(args.work) if args.work else ROOT / "runs" / f"ctc-nat-small-scale-{args.size}"
    if work.exists() and not work.is_dir():
        problems.append(f"--work {work}: is a file; give a folder")
    elif work.is_dir() and any(work.iterdir()) and not (work / "data").is_dir():
        problems.append(f"--work {work}: holds files that no reproduction made; give a new or empty folder")
    raise_all(problems)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpu = not args.cpu and _gpu_there()
    setting = Setting(
        size=SIZES[args.size],
        work=work.resolve(),
        gpu=gpu,
        precision=args.precision or ("bf16" if gpu or _fast_bf16() else "fp32"),
        workers=cores,
        source=args.source,
        cache=Path(args.cache).resolve() if args.cache else ROOT / "runs" / "debian-packages",
        no_download=args.no_download,
    )
    if args.unit and args.unit not in {unit.name for unit in units(setting)}:
        raise UserError(f"--unit {args.unit}: no such part of size {args.size}")
    jobs = jobs or (4 if gpu else cores)
    return Request(
        setting, args.part, tuple(args.rows), tuple(args.directions), seeds, jobs, cores, minutes, args.unit,
        args.dry_run, _again(setting, args, jobs),
    )  # fmt: skip


def _again(setting: Setting, args: argparse.Namespace, jobs: int) -> tuple[str, ...]:
    words = ["all", "--size", setting.size.name, "--work", str(setting.work), "--jobs", str(jobs)]
    words += ["--precision", setting.precision, "--cache", str(setting.cache)]
    words += ["--source", setting.source] if setting.source else []
    return (*words, *(() if setting.gpu else ("--cpu",)), *(("--no-download",) if args.no_download else ()))


def _number(option: str, text: str, problems: list[str]) -> float:
    try:
        number = float(text) if option == "--minutes" else int(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        problems.append(f"{option} {text}: expected a {'number' if option == '--minutes' else 'whole number'} above 0")
        return 1
    return number


def _gpu_there() -> bool:
    import torch

    return torch.cuda.is_available()


def _fast_bf16() -> bool:
    """Whether the processor multiplies in bfloat16; elsewhere it is emulated slowly."""
    info = Path("/proc/cpuinfo")
    return info.exists() and any(flag in info.read_text() for flag in ("avx512_bf16", "amx_bf16"))

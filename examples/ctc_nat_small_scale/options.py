"""The command line of ``run.py``."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.ctc_nat_small_scale.commands import ROOT, Setting
from examples.ctc_nat_small_scale.corpora import SOURCES
from examples.ctc_nat_small_scale.grid import BASELINE, ROWS, Expected
from examples.ctc_nat_small_scale.sizes import DIRECTIONS, SIZES
from examples.ctc_nat_small_scale.units import GROUPS, Unit, units
from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError, raise_all

DEFAULT_SIZE = "tiny"
PARTS = ("all", *GROUPS)
PRECISIONS = ("bf16", "fp32")
SETTING = "setting.json"


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
        drop_checkpoints: delete those of a model when all is made of it.
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
    drop_checkpoints: bool
    again: tuple[str, ...]

    def chosen(self, every: Sequence[Unit]) -> list[Unit]:
        """The units that are asked for by themselves, not only for another one.

        Raises:
            UserError: there is none.
        """
        trainings = {unit.name: self._wants(unit.training) for unit in every if unit.training}

        # The baseline's translations take long: with a choice of rows they are made only for a row that reads them.
        def by_itself(unit: Unit) -> bool:
            return bool(self.rows) and unit.group == "baseline"

        found = [
            unit
            for unit in every
            if self.part in ("all", unit.group)
            and trainings.get(unit.name, not by_itself(unit) and all(trainings.get(need, True) for need in unit.needs))
        ]
        if not found:
            size, group = self.setting.size, self.part
            there = [unit.name for unit in every if unit.group == group or (group == "all" and unit.training)]
            raise UserError(
                f"no part of {group} at size {size.name} has these --rows, --directions and --seeds; there are "
                f"{', '.join(there)}"
            )
        return found

    def _wants(self, training: Expected) -> bool:
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
    made.add_argument("--size", help=f"{sizes} (default: that of --work, else {DEFAULT_SIZE})")
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
    how.add_argument(
        "--drop-checkpoints", action="store_true", help="delete a model's checkpoints once it is averaged and scored"
    )
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
    kept = kept_setting(Path(args.work)) if args.work else {}
    args.size = args.size or kept.get("size") or DEFAULT_SIZE
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
    elif work.is_dir() and any(work.iterdir()) and not (work / "data").is_dir() and not (work / SETTING).is_file():
        problems.append(f"--work {work}: holds files that no reproduction made; give a new or empty folder")
    kept = kept or kept_setting(work)
    for name, given in (("size", args.size), ("source", args.source), ("precision", args.precision)):
        if given and name in kept and given != kept[name]:
            begun = kept[name] or "that of its size"
            problems.append(f"--{name} {given}: {work} was begun with {begun}; give another --work")
    raise_all(problems)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpu = not args.cpu and _gpu_there()
    setting = Setting(
        size=SIZES[args.size],
        work=work.resolve(),
        gpu=gpu,
        precision=args.precision or kept.get("precision") or ("bf16" if _fast_bf16(gpu) else "fp32"),
        workers=cores,
        source=args.source or kept.get("source"),
        cache=Path(args.cache).resolve() if args.cache else ROOT / "runs" / "debian-packages",
        no_download=args.no_download,
    )
    if args.unit and args.unit not in {unit.name for unit in units(setting)}:
        raise UserError(f"--unit {args.unit}: no such part of size {args.size}")
    jobs = jobs or (4 if gpu else cores)
    return Request(
        setting, args.part, tuple(args.rows), tuple(args.directions), seeds, jobs, cores, minutes, args.unit,
        args.dry_run, args.drop_checkpoints, _again(setting, args, jobs),
    )  # fmt: skip


def kept_setting(work: Path) -> dict[str, str | None]:
    """What the folder was begun with: size, source, precision; empty for a new one.

    Raises:
        UserError: it cannot be read.
    """
    path = work / SETTING
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); delete it, and give the options of the first run"
        ) from error


def keep_setting(setting: Setting) -> None:
    """Write down what decides all that the folder will hold."""
    kept = {"size": setting.size.name, "source": setting.source, "precision": setting.precision}
    setting.work.mkdir(parents=True, exist_ok=True)
    with atomic_output(str(setting.work / SETTING)) as stream:
        stream.write((json.dumps(kept) + "\n").encode())


def _again(setting: Setting, args: argparse.Namespace, jobs: int) -> tuple[str, ...]:
    words = ["all", "--size", setting.size.name, "--work", str(setting.work), "--jobs", str(jobs)]
    words += ["--precision", setting.precision, "--cache", str(setting.cache)]
    words += ["--source", setting.source] if setting.source else []
    flags = {"--cpu": not setting.gpu, "--no-download": args.no_download, "--drop-checkpoints": args.drop_checkpoints}
    return (*words, *(name for name, given in flags.items() if given))


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


def _fast_bf16(gpu: bool) -> bool:
    """Whether the device multiplies in bfloat16; elsewhere it is emulated slowly."""
    if gpu:
        import torch

        return torch.cuda.get_device_capability() >= (8, 0)
    info = Path("/proc/cpuinfo")
    return info.exists() and any(flag in info.read_text() for flag in ("avx512_bf16", "amx_bf16"))

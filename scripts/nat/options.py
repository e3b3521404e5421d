"""The options of the reproductions: read, and checked all at once."""

import argparse
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plugin_common.errors import raise_all
from scripts.nat.pipeline import ROOT, Choices, stages
from scripts.nat.recipes import RECIPES, tiny
from scripts.nat.training import Machine, least_gpu_tokens

PRECISIONS = ("fp16", "bf16", "fp32")
DATA = ("distilled", "raw", "mixed")
SCALES = ("full", "tiny")
_SETTING = re.compile(r"([a-z-]+)\.([A-Za-z][A-Za-z0-9-]*)(?:=(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Request:
    """What is to be done.

    Attributes:
        choices: the reproduction.
        scale: ``full`` or ``tiny``.
        selected: names of the stages to look at, in order.
        redo: names of stages to run in any case.
        dry_run: only tell.
    """

    choices: Choices
    scale: str
    selected: tuple[str, ...]
    redo: tuple[str, ...]
    dry_run: bool


def parser() -> argparse.ArgumentParser:
    """The command line. Values are checked by :func:`request`, so that all that is wrong is told at once."""
    made = argparse.ArgumentParser(
        prog="reproduce.py",
        description="From nothing to a BLEU with its signature: download, clean, prune, tokenise, train the "
        "autoregressive baseline, distil, train the one-pass model, translate, score, time.",
        epilog="example:\n  scripts/nat/wmt16_enro.sh --dry-run\n  scripts/nat/wmt16_enro.sh --work runs/enro --gpus 8",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("reproduction", help=" | ".join(RECIPES))
    made.add_argument("--work", metavar="DIR", help="where everything goes (default: runs/REPRODUCTION)")
    made.add_argument("--gpus", metavar="N", help="GPUs to use; 0 is the CPU (default: all that are there)")
    made.add_argument(
        "--gpu-tokens",
        default="12288",
        metavar="N",
        help="most tokens at once on a GPU, in training and translating; larger batches are accumulated over several "
        "steps (default: %(default)s)",
    )
    made.add_argument(
        "--pmlm",
        default="FacebookAI/xlm-roberta-base",
        metavar="NAME-OR-FOLDER",
        help="masked LM to start from (default: %(default)s)",
    )
    made.add_argument("--data", default="distilled", help=f"{' | '.join(DATA)}: training data (default: %(default)s)")
    made.add_argument("--precision", help=f"{' | '.join(PRECISIONS)} (default: fp16 on GPUs, fp32 on the CPU)")
    made.add_argument("--seed", default="1", metavar="N", help="of both trainings (default: %(default)s)")
    made.add_argument("--scale", default="full", help="full, or tiny: the same commands in minutes (default: full)")
    source = made.add_argument_group("where the archives come from")
    source.add_argument("--mirror", metavar="URL-OR-FOLDER", help="instead of their publishers")
    source.add_argument("--archives", metavar="DIR", help="keeps them; may be shared (default: archives in --work)")
    source.add_argument("--checksums", metavar="FILE", help="of archives that are not the published ones")
    which = made.add_argument_group("stages")
    which.add_argument("--dry-run", action="store_true", help="tell what would be done and why, with all commands")
    which.add_argument("--from", dest="start", metavar="STAGE", help="leave the stages before it as they are")
    which.add_argument("--until", metavar="STAGE", help="stop after it")
    which.add_argument("--redo", action="append", default=[], metavar="STAGE", help="run it although it is done")
    which.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="STAGE.OPTION[=VALUE]",
        help="add an option to a stage's command, for example nat-train.lr=1e-4; the last of several counts",
    )
    return made


def request(argv: Sequence[str]) -> Request:
    """What a command line asks for.

    Raises:
        UserError: everything that is wrong with it.
    """
    args, unknown = parser().parse_known_args(argv)
    problems = [f"{word}: no such option; --help lists them" for word in unknown]
    problems += [
        f"{option} {value}: expected one of {', '.join(known)}"
        for option, value, known in (
            ("reproduction", args.reproduction, tuple(RECIPES)),
            ("--data", args.data, DATA),
            ("--precision", args.precision or "fp32", PRECISIONS),
            ("--scale", args.scale, SCALES),
        )
        if value not in known
    ]
    gpus = _gpus(args.gpus, problems)
    if args.precision == "fp16" and gpus == 0:
        problems.append("--precision fp16: only for GPUs; on the CPU give bf16 or fp32")
    seed = _number("--seed", args.seed, 0, problems)
    work = Path(args.work) if args.work else ROOT / "runs" / args.reproduction
    _check_places(args, work, problems)
    recipe = RECIPES.get(args.reproduction, next(iter(RECIPES.values())))
    least = least_gpu_tokens(recipe, distilled=args.data != "raw")
    room = f": twice the longest training pair's, so that it fits into any share of an update ({least // 2:,} tokens)"
    gpu_tokens = _number("--gpu-tokens", args.gpu_tokens, least, problems, instead=least, why=room)
    folder = Path(args.pmlm)
    choices = Choices(
        recipe=tiny(recipe) if args.scale == "tiny" else recipe,
        work=work.resolve(),
        machine=Machine(gpus, gpu_tokens, _cores(), args.precision or ("fp16" if gpus else "fp32")),
        pmlm=str(folder.resolve()) if folder.is_dir() else args.pmlm,
        data=args.data,
        seed=seed,
        device=device_name(gpus),
        mirror=str(Path(args.mirror).resolve()) if args.mirror and Path(args.mirror).is_dir() else args.mirror,
        archives=Path(args.archives).resolve() if args.archives else None,
        checksums=Path(args.checksums).resolve() if args.checksums else None,
        extra=_extra(args.set, problems),
    )
    names = [stage.name for stage in stages(choices)]
    selected = _selected(args, names, choices, problems)
    raise_all(problems)
    return Request(choices, args.scale, selected, tuple(args.redo), args.dry_run)


def _selected(args: argparse.Namespace, names: Sequence[str], choices: Choices, problems: list[str]) -> tuple[str, ...]:
    named = [("--from", args.start), ("--until", args.until), *(("--redo", name) for name in args.redo)]
    named += [("--set", name) for name in choices.extra or {}]
    wrong = [(option, name) for option, name in named if name is not None and name not in names]
    problems += [f"{option} {name}: no such stage; there are {', '.join(names)}" for option, name in wrong]
    if wrong:
        return ()
    first = names.index(args.start) if args.start else 0
    last = names.index(args.until) if args.until else len(names) - 1
    if last < first:
        problems.append(f"--until {args.until}: comes before --from {args.start}; the order is {', '.join(names)}")
    selected = tuple(names[first : last + 1])
    problems += [f"--redo {name}: is left out by --from or --until" for name in args.redo if name not in selected]
    return selected


def _check_places(args: argparse.Namespace, work: Path, problems: list[str]) -> None:
    if work.exists() and not work.is_dir():
        problems.append(f"--work {work}: is a file; give a folder")
    elif work.is_dir() and any(work.iterdir()) and not (work / ".stages").is_dir():
        problems.append(f"--work {work}: holds files that no reproduction made; give a new or empty folder")
    if not Path(args.pmlm).is_dir() and (args.pmlm.startswith((".", "/", "~")) or args.pmlm.count("/") > 1):
        problems.append(f"--pmlm {args.pmlm}: no such folder; give a masked LM's folder or its name on the hub")
    if args.mirror and "://" not in args.mirror and not Path(args.mirror).is_dir():
        problems.append(f"--mirror {args.mirror}: no such folder; give a folder or a URL that starts with https://")
    if args.checksums and not Path(args.checksums).is_file():
        problems.append(f"--checksums {args.checksums}: no such file; sha256sum ARCHIVE… > FILE makes it")


def _extra(settings: Sequence[str], problems: list[str]) -> dict[str, list[str]]:
    extra: dict[str, list[str]] = {}
    for setting in settings:
        if (match := _SETTING.fullmatch(setting)) is None:
            problems.append(f"--set {setting}: expected STAGE.OPTION=VALUE, or STAGE.OPTION for one without a value")
            continue
        stage, option, value = match.groups()
        extra.setdefault(stage, []).extend([f"--{option}"] if value is None else [f"--{option}", value])
    return extra


def _number(option: str, text: str, least: int, problems: list[str], *, instead: int = 1, why: str = "") -> int:
    """The number that ``text`` is; ``instead`` and one more problem if it is none, or too small."""
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        problems.append(f"{option} {text}: expected a whole number, {least} or more{why}")
        return instead
    return number


def _gpus(text: str | None, problems: list[str]) -> int:
    asked = None if text is None else _number("--gpus", text, 0, problems, instead=0)
    if asked == 0:
        return 0  # without waiting for torch to be loaded
    import torch

    there = torch.cuda.device_count()
    if asked is not None and asked > there:
        problems.append(f"--gpus {text}: {there} GPUs can be used here; give at most that many (0: the CPU)")
    return there if asked is None else asked


def device_name(gpus: int) -> str:
    """The GPU's or the processor's name."""
    if gpus:
        import torch

        return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else "no GPU"
    cores = f"{_cores()} cores"
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return f"{found[1] if found else platform.processor() or platform.machine()}, {cores}"


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""Options that all reproductions have, and checks that tell all that is wrong at once."""

import argparse
import os
import platform
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

PRECISIONS = ("fp16", "bf16", "fp32")
SCALES = ("full", "tiny")
ChoicesT = TypeVar("ChoicesT")
_SETTING = re.compile(r"([a-z0-9-]+)\.([A-Za-z][A-Za-z0-9_-]*)(?:=(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Request(Generic[ChoicesT]):
    """What is to be done.

    Attributes:
        choices: the reproduction.
        scale: ``full`` or ``tiny``.
        selected: names of the stages to look at, in order.
        redo: names of stages to run in any case.
        dry_run: only tell.
    """

    choices: ChoicesT
    scale: str
    selected: tuple[str, ...]
    redo: tuple[str, ...]
    dry_run: bool


def new_parser(description: str, examples: str, names: Iterable[str]) -> argparse.ArgumentParser:
    """A command line whose first word is one of ``names``; its values are checked later, all at once.

    Args:
        description: of the program.
        examples: command lines, each indented by two.
        names: of the reproductions.
    """
    made = argparse.ArgumentParser(
        prog="reproduce.py",
        description=description,
        epilog=f"example:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("reproduction", help=" | ".join(names))
    return made


def unknown_values(named: Iterable[tuple[str, str, Collection[str]]]) -> Iterator[str]:
    """What is wrong with options, each given as its name, its value and the values that it may have."""
    for option, value, known in named:
        if value not in known:
            yield f"{option} {value}: expected one of {', '.join(known)}"


def add_stage_options(parser: argparse.ArgumentParser, *, setting: str) -> None:
    """Add the options about stages.

    Args:
        parser: gets them.
        setting: an example of ``--set``.
    """
    which = parser.add_argument_group("stages")
    which.add_argument("--dry-run", action="store_true", help="tell what would be done and why, with all commands")
    which.add_argument("--from", dest="start", metavar="STAGE", help="leave the stages before it as they are")
    which.add_argument("--until", metavar="STAGE", help="stop after it")
    which.add_argument("--redo", action="append", default=[], metavar="STAGE", help="run it although it is done")
    which.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="STAGE.OPTION[=VALUE]",
        help=f"add an option to a stage's command, for example {setting}; the last of several counts",
    )


def extra_options(settings: Sequence[str], problems: list[str]) -> dict[str, list[str]]:
    """By stage the options that ``--set`` adds; what is wrong goes to ``problems``."""
    extra: dict[str, list[str]] = {}
    for setting in settings:
        if (match := _SETTING.fullmatch(setting)) is None:
            problems.append(f"--set {setting}: expected STAGE.OPTION=VALUE, or STAGE.OPTION for one without a value")
            continue
        stage, option, value = match.groups()
        extra.setdefault(stage, []).extend([f"--{option}"] if value is None else [f"--{option}", value])
    return extra


def selected_stages(
    args: argparse.Namespace, names: Sequence[str], extra: Collection[str], problems: list[str]
) -> tuple[str, ...]:
    """The stages that ``--from`` and ``--until`` leave; what is wrong with these and ``--redo`` goes to ``problems``.

    Args:
        args: with the options of :func:`add_stage_options`.
        names: of all stages, in order.
        extra: stages that ``--set`` names.
        problems: gets more.
    """
    named = [("--from", args.start), ("--until", args.until), *(("--redo", name) for name in args.redo)]
    named += [("--set", name) for name in extra]
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


def check_work(work: Path, problems: list[str]) -> None:
    """A run's folder must be new, empty, or a former run's."""
    if work.exists() and not work.is_dir():
        problems.append(f"--work {work}: is a file; give a folder")
    elif work.is_dir() and any(work.iterdir()) and not (work / ".stages").is_dir():
        problems.append(f"--work {work}: holds files that no reproduction made; give a new or empty folder")


def looks_like_missing_folder(model: str) -> bool:
    """Whether ``model`` is written like a folder's path, and there is none."""
    return not Path(model).is_dir() and (model.startswith((".", "/", "~")) or model.count("/") > 1)


def whole_number(option: str, text: str, least: int, problems: list[str], *, instead: int = 1, why: str = "") -> int:
    """The number that ``text`` is; ``instead`` and one more problem if it is none, or too small."""
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        problems.append(f"{option} {text}: expected a whole number, {least} or more{why}")
        return instead
    return number


def gpus_to_use(text: str | None, problems: list[str], *, plan_only: bool = False) -> int:
    """How many GPUs ``--gpus`` asks for (None: all that are there).

    Args:
        text: as given.
        problems: gets one more where so many are not there.
        plan_only: they need not be there.
    """
    asked = None if text is None else whole_number("--gpus", text, 0, problems, instead=0)
    if asked == 0 or (plan_only and asked is not None):
        return asked  # without waiting for torch to be loaded
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
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return f"{found[1] if found else platform.processor() or platform.machine()}, {cores()} cores"


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

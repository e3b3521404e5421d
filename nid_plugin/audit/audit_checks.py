"""What is wrong with the options of ``nid audit``, told before any work is done."""

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from nid_plugin.audit.audit_command import FIGURE, MARKDOWN, REPORT
from nid_plugin.controls.files import read_only_once
from plugin_common.errors import raise_all


def check_options(args: argparse.Namespace) -> None:
    """Raise for what is wrong with the options, all at once, and for packages that are missing.

    Raises:
        UserError: see above.
        ModuleNotFoundError: a package that the options need; before the work, not after it or in another process.
    """
    asked = (args.report, args.filter, args.dropped, args.judge_dry_run)
    if not any(asked) and args.fail_above is None:
        args.wrong_use(
            "give --report DIR, --filter FILE, --dropped FILE or --fail-above SHARE: nothing would come of it"
        )
    raise_all(_problems(args))
    _need_packages(args)


def _problems(args: argparse.Namespace) -> Iterator[str]:
    if once := read_only_once(args.pairs):
        yield f"{once}, and pairs are read more often; give a file"
    elif not Path(args.pairs).is_file():
        yield f"{args.pairs}: no such file; `nid complete` writes pairs"
    if args.halves and args.halves != "-" and not Path(args.halves).exists():
        yield f"--halves {args.halves}: no such file; `nid halve` writes halves, and a ledger has them (halves.jsonl)"
    for option, value, least in (
        ("--examples", args.examples, 0),
        ("--workers", args.workers, 1),
        ("--decontaminate-words", args.decontaminate_words, 1),
        ("--decontaminate-shortest", args.decontaminate_shortest, 1),
        ("--judge-sample", args.judge_sample, 1),
    ):
        if value is not None and value < least:
            yield f"{option} {value}: at least {least} is expected"
    if args.fail_above is not None and not 0 <= args.fail_above <= 1:
        yield f"--fail-above {args.fail_above:g}: a share from 0 to 1 is expected"
    for option in ("judge_prompt", "judge_ledger", "judge_sample", "judge_dry_run", "max_cost", "base_url"):
        if getattr(args, option) and not args.judge:
            yield f"--{option.replace('_', '-')} needs --judge MODEL"
    if args.decontaminate_field and not args.decontaminate:
        yield "--decontaminate-field needs --decontaminate FILE"
    yield from _output_problems(args)


def _output_problems(args: argparse.Namespace) -> Iterator[str]:
    inputs = [path for path in (args.pairs, args.halves, args.judge_prompt, *args.decontaminate) if path]
    outputs = {option: path for option, path in (("--filter", args.filter), ("--dropped", args.dropped)) if path}
    for option, path in outputs.items():
        if path == "-":
            continue
        if not Path(path).resolve().parent.is_dir():
            yield f"{option} {path}: there is no folder {Path(path).resolve().parent}; make it first"
        elif Path(path).is_dir():
            yield f"{option} {path}: is a folder; give a file"
        elif any(Path(path).resolve() == Path(other).resolve() for other in inputs):
            yield f"{option} {path}: is also read, and would be lost; give another name"
    if len(outputs) == 2 and Path(args.filter).resolve() == Path(args.dropped).resolve():
        yield f"--filter and --dropped are both {args.filter}; give two files"
    if args.report:
        yield from _report_problems(args.report, [*inputs, *outputs.values()])


def _report_problems(folder: str, others: Iterable[str]) -> Iterator[str]:
    """What keeps a report from being written to ``folder``, where only an earlier one of this command is replaced."""
    target = Path(folder)
    if target.exists() and not target.is_dir():
        yield f"--report {folder}: is a file; give a folder"
        return
    own = [target / name for name in (REPORT, MARKDOWN, FIGURE)]
    if lost := [path for path in others if Path(path).resolve() in {one.resolve() for one in own}]:
        yield f"--report {folder}: its files would take the place of {lost[0]}; give another folder"
    elif (there := [path.name for path in own if path.exists()]) and not _is_audit(target / REPORT):
        yield f"--report {folder}: holds {', '.join(there)}, not of an audit, which would be lost; give another folder"


def _is_audit(report: Path) -> bool:
    try:
        return "detectors" in json.loads(report.read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def check_outputs(args: argparse.Namespace) -> None:
    """Raise a ``UserError`` if a folder that is to be written to cannot be: before the work, not after it."""
    raise_all(_unwritable(args))


def _unwritable(args: argparse.Namespace) -> Iterator[str]:
    files = {"--filter": args.filter, "--dropped": args.dropped}
    folders = {option: Path(path).resolve().parent for option, path in files.items() if path and path != "-"}
    if args.report:
        report = Path(args.report).resolve()
        folders["--report"] = next(folder for folder in (report, *report.parents) if folder.exists())
    for option, folder in folders.items():
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            yield f"{option}: nothing can be written to {folder} ({error.strerror}); check folder and rights"


def _need_packages(args: argparse.Namespace) -> None:
    """See :func:`check_options`."""
    from importlib.util import find_spec

    needed = {
        "matplotlib": bool(args.report) and not args.no_figure,
        "py3langid": not args.no_language,
        "rensa": not args.no_near_duplicates,
        "rbloom": not args.no_near_duplicates,
        "openai": bool(args.judge),
    }
    for package, wanted in needed.items():
        if wanted and find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)

"""Time ``nat tokenize`` against ``fairseq-preprocess`` on the same text, with the same number of processes.

``nat tokenize`` turns text into token text, ``fairseq-preprocess`` turns that token text into numbers; both are run
as a user runs them, start-up included, in turn. Each is also run on a single line, which shows how much is start-up::

    python scripts/benchmarks/tokenize.py --json tokenize.json [--quick]

Rows give seconds (and MiB of the largest process); ratios are ours ÷ fairseq's: ``tokenize/fairseq_preprocess`` by the
whole commands, ``tokenize/fairseq_preprocess/without_startup`` after each one's median start-up is taken off.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # see measure.py
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import ast
import itertools
import os
import statistics
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from scripts.benchmarks.measure import (
    CommandRun,
    machine,
    paired_ratio,
    row,
    run_command,
    run_in_turn,
    versions,
    write_report,
)

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
OURS, THEIRS = "tokenize", "fairseq_preprocess"
LINES_AND_REPEATS = {"full": (200_000, 5), "quick": (30_000, 3)}
PIECES = 8000
TRAINING_LINES = 20_000  # for the vocabulary


def parse_args() -> argparse.Namespace:
    """The options."""
    lines, repeats = LINES_AND_REPEATS["full"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", required=True, metavar="OUT", help="report to write")
    parser.add_argument("--quick", action="store_true", help="less text, fewer repeats: under a minute")
    parser.add_argument(
        "--text", metavar="FILE", help="text to use (default: the quickstart's, or docstrings of Python's)"
    )
    parser.add_argument(
        "--pmlm", metavar="FOLDER", help=f"PMLM folder (default: {PIECES} pieces learned from the text)"
    )
    parser.add_argument("--lines", type=int, help=f"lines of text, repeated as needed (default: {lines})")
    parser.add_argument("--repeats", type=int, help=f"runs of each command (default: {repeats})")
    cores = machine()["cores"]
    parser.add_argument("--workers", type=int, default=cores, help="processes of each command (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    """Make text and PMLM folder where none is given, measure, show and write."""
    args = parse_args()
    lines, repeats = LINES_AND_REPEATS["quick" if args.quick else "full"]
    lines, repeats = args.lines or lines, args.repeats or repeats
    with tempfile.TemporaryDirectory(prefix="tokenize-benchmark-") as folder:
        work = Path(folder)
        origin, text = source_lines(args.text)
        (work / "line.txt").write_text("One line.\n")
        (work / "text.txt").write_text("".join(itertools.islice(itertools.cycle(text), lines)), encoding="utf-8")
        pmlm = Path(args.pmlm) if args.pmlm else make_pmlm(work, text[:TRAINING_LINES])
        about_machine = machine()
        startup = run_in_turn(commands(work, "line", pmlm, args.workers), 1 if args.quick else repeats)
        whole = run_in_turn(commands(work, "text", pmlm, args.workers), repeats)
        pieces = check_outputs(work, lines)
        size = (work / "text.txt").stat().st_size
    report = {
        "machine": about_machine,
        "versions": versions("tokenizers", "ve-fairseq", "torch"),
        "settings": {"text": origin, "lines": lines, "bytes": size, "pieces": pieces, "workers": args.workers},
        "rows": rows(whole, startup),
        "ratios": ratios(whole, startup),
    }
    write_report(args.json, report)
    for name, figures in report["rows"].items():
        print(f"{name:32} min {figures['min']:8.2f}  median {figures['median']:8.2f}  max {figures['max']:8.2f}")
    for name, ratio in report["ratios"].items():
        print(f"{name:48} {ratio:.3f}")


def source_lines(text: str | None) -> tuple[str, list[str]]:
    """Where the text is from, and its lines with their newlines."""
    if text is not None:
        files, origin = [Path(text)], text
    else:
        files = sorted(ROOT.glob("examples/quickstart/data/*/train.[a-z][a-z]"))
        origin = "examples/quickstart/data"
    lines = [f"{line}\n" for file in files for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    return (origin, lines) if lines else ("docstrings of Python's standard library", list(docstring_paragraphs()))


def docstring_paragraphs() -> Iterator[str]:
    """The paragraphs of the standard library's documentation strings, one a line."""
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if {"site-packages", "test", "tests"} & set(file.parts):
            continue
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                    if line := " ".join("".join(c if c.isprintable() else " " for c in paragraph).split()):
                        yield f"{line}\n"


def make_pmlm(work: Path, lines: list[str]) -> Path:
    """A PMLM folder with a vocabulary learned from ``lines``, made by ``nat prepare-pmlm``."""
    (work / "training.txt").write_text("".join(lines), encoding="utf-8")
    options = ["--from-scratch", "--vocab-size", str(PIECES), "--corpus", str(work / "training.txt")]
    run_command([*nat("prepare-pmlm"), *options, "--output", str(work / "pmlm")], ENVIRONMENT)
    return work / "pmlm"


def nat(command: str) -> list[str]:
    """The words that call a command of ``nat``."""
    return [sys.executable, "-m", "nat_plugin.cli", command]


def commands(work: Path, name: str, pmlm: Path, workers: int) -> dict[str, Callable[[], CommandRun]]:
    """The two commands on ``NAME.txt``; fairseq's reads what ours wrote, so ours is called once right away."""
    tokenized, binarized = work / f"{name}.tok", work / f"{name}-bin"
    ours = [*nat("tokenize"), "--pmlm", str(pmlm), "--input", str(work / f"{name}.txt"), "--output", str(tokenized)]
    theirs = [sys.executable, "-m", "fairseq_cli.preprocess", "--only-source", "--source-lang", "tok"]
    theirs += ["--trainpref", str(work / name), "--srcdict", str(pmlm / "dict.txt"), "--destdir", str(binarized)]
    count = ["--workers", str(workers)]
    run_command([*ours, *count], ENVIRONMENT)
    return {
        OURS: lambda: run_command([*ours, *count], ENVIRONMENT),
        THEIRS: lambda: run_command([*theirs, *count], ENVIRONMENT),
    }


def check_outputs(work: Path, lines: int) -> int:
    """Both did their work: lines in = lines out, in fairseq's index too; the number of pieces."""
    token_text = (work / "text.tok").read_text(encoding="utf-8")
    sentences = int.from_bytes((work / "text-bin" / "train.tok-None.tok.idx").read_bytes()[18:26], "little")
    counted = token_text.count("\n")
    if not lines == counted == sentences:
        raise RuntimeError(f"{lines} lines in, {counted} tokenized, {sentences} binarized by fairseq")
    return len(token_text.split())


def rows(whole: dict[str, list[CommandRun]], startup: dict[str, list[CommandRun]]) -> dict[str, dict[str, float]]:
    """Seconds and MiB of both commands."""
    figures: dict[str, dict[str, float]] = {}
    for name in (OURS, THEIRS):
        figures[f"{name}/seconds"] = row([run.seconds for run in whole[name]])
        figures[f"{name}/startup_seconds"] = row([run.seconds for run in startup[name]])
        figures[f"{name}/peak_mib"] = row([run.peak_mib for run in whole[name]])
    return figures


def ratios(whole: dict[str, list[CommandRun]], startup: dict[str, list[CommandRun]]) -> dict[str, Any]:
    """Ours ÷ fairseq's, with and without start-up."""
    seconds = {name: [run.seconds for run in runs] for name, runs in whole.items()}
    starts = {name: statistics.median(run.seconds for run in runs) for name, runs in startup.items()}
    net = {name: [total - starts[name] for total in totals] for name, totals in seconds.items()}
    return {
        f"{OURS}/{THEIRS}": paired_ratio(seconds[OURS], seconds[THEIRS]),
        f"{OURS}/{THEIRS}/without_startup": paired_ratio(net[OURS], net[THEIRS]),
    }


if __name__ == "__main__":
    main()

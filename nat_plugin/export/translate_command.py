"""``nat translate``: lines of text → translations, with an export folder; needs no torch and no fairseq."""

import argparse
import contextlib
import logging
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nat_plugin.export.folder import MODEL_FILES, recorded_files
from nat_plugin.export.streaming import INVALID_UTF8, InputCounts, LineWriter, line_windows
from plugin_common.errors import UserError, raise_all

if TYPE_CHECKING:
    from nat_plugin.export.translator import Translation, Translator

logger = logging.getLogger(__name__)

SUMMARY = "Translate lines of text with an export folder, by onnxruntime alone."
EXAMPLE = (
    "nat translate exported < text.en > text.de\n  nat translate exported --input news.en more.en.gz --output out.de"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nat translate``."""
    parser.add_argument("folder", metavar="FOLDER", help="made by nat export")
    _configure_text(parser.add_argument_group("text"))
    _configure_speed(parser.add_argument_group("speed"))
    _configure_search(parser.add_argument_group("beam search"))


def _configure_text(files: Any) -> None:
    files.add_argument(
        "--input",
        nargs="+",
        default=["-"],
        metavar="FILE",
        help="UTF-8 text, one sentence a line; also .gz; several are translated one after the other; - is standard "
        "input (default: -)",
    )
    files.add_argument(
        "--output",
        default="-",
        metavar="FILE",
        help="one line for each line of input; - is standard output (default: -)",
    )
    files.add_argument(
        "--scores",
        action="store_true",
        help="put before each translation a score and a tab: natural-log probability of the most probable alignment "
        "divided by its positions",
    )
    files.add_argument(
        "--invalid-utf8",
        choices=INVALID_UTF8,
        default="error",
        help="what to do with bytes that are no UTF-8: stop (error), or read them as U+FFFD, counted "
        "(default: %(default)s)",
    )


def _configure_speed(speed: Any) -> None:
    speed.add_argument(
        "--precision", choices=list(MODEL_FILES), help="of the model (default: int8 where the folder has it, else fp32)"
    )
    speed.add_argument(
        "--threads", type=_positive, metavar="N", help="to compute with, at most 4 a core (default: one a core)"
    )
    speed.add_argument(
        "--provider",
        default="CPUExecutionProvider",
        metavar="NAME",
        help="onnxruntime's execution provider, such as CUDAExecutionProvider (default: %(default)s)",
    )
    speed.add_argument(
        "--window",
        type=_positive,
        default=1024,
        metavar="N",
        help="most lines that are read before they are translated, sorted by length; fewer where the input pauses "
        "(default: %(default)s)",
    )
    speed.add_argument(
        "--positions-per-run",
        type=_positive,
        metavar="N",
        help="most sentences x positions that the model computes at once (default: 400, the fastest on a CPU)",
    )
    speed.add_argument(
        "--skip-checksums", action="store_true", help="at the start, compare the sizes of the folder's files alone"
    )


def _configure_search(search: Any) -> None:
    search.add_argument(
        "--ctc-beam",
        type=_positive,
        default=1,
        metavar="N",
        help="prefixes that CTC beam search keeps for each sentence; 1 is greedy (default: %(default)s)",
    )
    search.add_argument(
        "--ctc-candidates", type=_positive, metavar="N", help="labels considered at each position (default: 20)"
    )
    search.add_argument(
        "--lm",
        metavar="FILE",
        help="n-gram language model over the pieces, see nat ngram-lm; needs --lm-weight. It prefers short "
        "translations: give a --ctc-token-bonus, too",
    )
    search.add_argument(
        "--lm-weight", type=float, default=0.0, metavar="X", help="of the language model's log-probability"
    )
    search.add_argument(
        "--ctc-token-bonus",
        type=float,
        default=0.0,
        metavar="X",
        help="added to a translation's rank for each token, in nats (default: 0)",
    )


def run(args: argparse.Namespace) -> None:
    """Translate the inputs, line by line; report on standard error what was cut or changed."""
    _check_files(args)
    with _warnings_on_stderr():
        translator = _translator(args)
        with _output(args.output) as stream:
            try:
                summary = _translate(translator, args, stream)
            except BrokenPipeError:  # whoever read our output has had enough, as in `nat translate … | head`
                raise SystemExit(141) from None
        for line in summary:
            logger.warning("%s", line)


def _translator(args: argparse.Namespace) -> "Translator":
    from nat_plugin.export import translator

    return translator.Translator(
        args.folder,
        precision=args.precision,
        threads=args.threads,
        provider=args.provider,
        max_positions_per_run=args.positions_per_run or translator.MAX_POSITIONS_PER_RUN,
        beam=args.ctc_beam,
        candidates=args.ctc_candidates or translator.CANDIDATES,
        lm=args.lm,
        lm_weight=args.lm_weight,
        token_bonus=args.ctc_token_bonus,
        checksums=not args.skip_checksums,
    )


def _translate(translator: "Translator", args: argparse.Namespace, stream: LineWriter) -> list[str]:
    """Write the translation of every line as soon as it is there; what is to be told at the end."""
    from nat_plugin.export.translator import CutLines

    counts, cut = InputCounts(), CutLines()
    lines = 0
    for path in args.input:
        windows = line_windows(path, most_lines=args.window, invalid_utf8=args.invalid_utf8, counts=counts)
        for window in windows:
            translations = translator.translate_numbered(window, first_line=lines + 1, scores=args.scores, cut=cut)
            stream.write("".join(_shown(translation, args.scores) for translation in translations))
            lines += len(window)
    were = f"of {lines:,} lines {'was' if cut.count == 1 else 'were'} cut to {translator.settings.positions} tokens"
    return [*([f"{cut.count:,} {were}"] if cut.count else []), *counts.changes()]


def _shown(translation: "Translation", scores: bool) -> str:
    return f"{translation.score:.4f}\t{translation.text}\n" if scores else f"{translation.text}\n"


def _check_files(args: argparse.Namespace) -> None:
    """Refuse inputs that are not there, and an output that is read from, before anything is loaded."""
    files = [Path(path) for path in args.input if path != "-"]
    problems = [f"--input {file}: no such file; check the path" for file in files if not file.exists()]
    problems += [f"--input {file}: is a folder, expected a text file" for file in files if file.is_dir()]
    if args.input.count("-") > 1:
        problems.append("--input names standard input (-) more than once")
    output = _regular_file(args.output, sys.stdout)
    if output is not None:
        read_from = [(_regular_file(path, sys.stdin), "is also an input") for path in args.input]
        folder = Path(args.folder)
        read_from += [(_regular_file(folder / name), f"is a file of {folder}") for name in recorded_files(folder)]
        read_from += [(_regular_file(args.lm), "is the language model")] if args.lm else []
        shown = STANDARD_OUTPUT if args.output == "-" else f"--output {args.output}"
        same = [what for file, what in read_from if file is not None and os.path.samestat(file, output)]
        problems += [f"{shown}: {what}; give another output" for what in same[:1]]
    raise_all(problems)


def _regular_file(path: str | Path, stream: Any = None) -> os.stat_result | None:
    """The file that a path names, or that the stream is where the path is ``-``; None for a pipe and the like."""
    try:
        found = os.fstat(stream.fileno()) if path == "-" else Path(path).stat()
    except (OSError, ValueError, AttributeError):  # not there; or a stream that is closed, or no file at all
        return None
    return found if stat.S_ISREG(found.st_mode) else None


STANDARD_OUTPUT = "standard output"


@contextlib.contextmanager
def _output(path: str) -> Iterator[LineWriter]:
    """Standard output or a file, which is written as the translations come."""
    if path == "-":
        if sys.stdout is None:
            raise UserError("standard output is closed; give --output FILE")
        yield LineWriter(getattr(sys.stdout.buffer, "raw", sys.stdout.buffer), STANDARD_OUTPUT)
        return
    try:
        stream = Path(path).open("wb", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise UserError(f"--output {path}: cannot be written ({error.strerror}); check folder and rights") from error
    with stream:
        yield LineWriter(stream, path)


@contextlib.contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Show what the translator logs, such as a line that was cut."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("nat translate: %(message)s"))
    logger = logging.getLogger("nat_plugin")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _positive(text: str) -> int:
    if not text.isdecimal() or len(text) > 10 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 1 to 9,999,999,999")
    return int(text)

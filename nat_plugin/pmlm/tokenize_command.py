"""``nat tokenize``: text → token text for ``fairseq-preprocess``."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from plugin_common.atomic_file import clean_up_when_terminated
from plugin_common.dictionary_file import FAIRSEQ_SYMBOLS, read_dictionary
from plugin_common.errors import UserError, raise_all
from plugin_common.hf_folder import CONFIG_FILE, DICTIONARY_FILE, MAKE_IT, TOKENIZER_FILE
from plugin_common.masked_lm_families import FAMILIES
from plugin_common.text_lines import CONTROL_CHARACTERS, shown_name

if TYPE_CHECKING:
    from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer
    from nat_plugin.pmlm.tokenize_files import PieceCounts, TokenizeJob

SUMMARY = "Segment text into the pieces of a PMLM folder, ready for fairseq-preprocess."
EXAMPLE = (
    "nat tokenize --pmlm pmlm --source-lang en --target-lang de --trainpref raw/train --validpref raw/valid "
    "--testpref raw/test --destdir tokenized\n  nat tokenize --pmlm pmlm < text.en > text.tok.en"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nat tokenize``."""
    parser.add_argument("--pmlm", required=True, metavar="FOLDER", help="PMLM folder, made by nat prepare-pmlm")
    parser.add_argument(
        "--workers",
        type=_positive,
        default=_cores(),
        metavar="N",
        help="processes to use (default: all cores, %(default)s)",
    )
    parser.add_argument(
        "--control-characters",
        choices=CONTROL_CHARACTERS,
        default="error",
        help="what to do with NUL and other control characters: stop (error), or put a space for each, counted "
        "(default: %(default)s)",
    )
    files = parser.add_argument_group("single files (standard input to standard output by default)")
    files.add_argument(
        "--input", nargs="+", metavar="FILE", help="UTF-8 text, one sentence a line; also .gz; - is stdin"
    )
    files.add_argument("--output", nargs="+", metavar="FILE", help="one for each --input; - is stdout")
    corpus = parser.add_argument_group("a parallel corpus, as in fairseq-preprocess (PREFIX.LANG or PREFIX.LANG.gz)")
    corpus.add_argument("--source-lang", metavar="LANG")
    corpus.add_argument("--target-lang", metavar="LANG")
    corpus.add_argument("--trainpref", metavar="PREFIX")
    corpus.add_argument("--validpref", metavar="PREFIX[,PREFIX…]")
    corpus.add_argument("--testpref", metavar="PREFIX[,PREFIX…]")
    corpus.add_argument(
        "--destdir", metavar="FOLDER", help="gets train.LANG, valid.LANG, test.LANG (valid1.LANG, … for more)"
    )
    parser.set_defaults(wrong_use=parser.error)


def run(args: argparse.Namespace) -> None:
    """Tokenise all files and report on standard error what they hold."""
    plan = _plan(args)
    folder = _open_folder(args.pmlm)
    from nat_plugin.pmlm.tokenize_files import Settings, tokenize_files

    if args.destdir:
        _make_folder(args.destdir)
    try:
        with clean_up_when_terminated():
            reports = tokenize_files(
                folder.tokenizer,
                plan.jobs,
                parallel=plan.parallel,
                settings=Settings(args.control_characters, folder.piece_limit),
                workers=args.workers,
            )
    except BrokenPipeError:  # whoever read our output has had enough, as in `nat tokenize … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    for job, counts in zip(plan.jobs, reports, strict=True):
        for line in report_lines(shown_name(job.source), counts, folder.piece_limit):
            print(line, file=sys.stderr)
    if plan.next_command:
        print(f"next:\n  {plan.next_command}", file=sys.stderr)


def report_lines(name: str, counts: "PieceCounts", piece_limit: int | None) -> list[str]:
    """What to tell about one tokenised text: the figures, then everything that was changed or may surprise."""
    per_word = counts.pieces / counts.words if counts.words else 0.0
    unknown_percent = 100 * counts.unknown / counts.pieces if counts.pieces else 0.0
    lines = [
        f"{name}: {counts.lines:,} lines in = {counts.lines:,} lines out; {counts.pieces:,} pieces, "
        f"{per_word:.2f} a word; {counts.unknown:,} unknown ({unknown_percent:.3g} %); longest line: "
        f"{counts.longest:,} pieces (line {counts.longest_line})"
    ]
    lines += [f"{name}: {change}" for change in counts.text.changes()]
    if counts.emptied:
        lines.append(f"{name}: {counts.emptied:,} lines hold text but no piece of the vocabulary: empty in the output")
    if counts.too_long:
        listed = ", ".join(map(str, counts.too_long_lines)) + (
            ", …" if counts.too_long > len(counts.too_long_lines) else ""
        )
        lines.append(
            f"{name}: {counts.too_long:,} lines over the {piece_limit} pieces that the model can take: line {listed}"
        )
    return lines


@dataclass(frozen=True)
class _Plan:
    """What to tokenise, which sources are translations of each other, and what the user runs afterwards."""

    jobs: "list[TokenizeJob]"
    parallel: list[tuple[str, str]]
    next_command: str


def _plan(args: argparse.Namespace) -> _Plan:
    """What the command line asks for; ends with status 2 where it is not one of the two forms."""
    corpus_options = ("source_lang", "target_lang", "trainpref", "validpref", "testpref", "destdir")
    given = [f"--{name.replace('_', '-')}" for name in corpus_options if getattr(args, name)]
    if given and (args.input or args.output):
        args.wrong_use(f"give either --input and --output, or {' '.join(given)}, not both")
    if not given:
        return _plan_files(args)
    missing = [
        f"--{name.replace('_', '-')}" for name in ("source_lang", "target_lang", "destdir") if not getattr(args, name)
    ]
    if not (args.trainpref or args.validpref or args.testpref):
        missing.append("--trainpref, --validpref or --testpref")
    if missing:
        args.wrong_use(f"for a parallel corpus also give {', '.join(missing)}")
    return _plan_corpus(args)


def _plan_files(args: argparse.Namespace) -> _Plan:
    from nat_plugin.pmlm.tokenize_files import TokenizeJob

    sources, destinations = args.input or ["-"], args.output or ["-"]
    if len(sources) != len(destinations):
        args.wrong_use(f"--input names {len(sources)} files, --output {len(destinations)}: give as many of each")
    jobs = [TokenizeJob(*pair) for pair in zip(sources, destinations, strict=True)]
    _refuse_overwriting(jobs)
    next_command = ""
    if destinations != ["-"]:
        next_command = f"fairseq-preprocess … {_dictionary_options(args.pmlm)} --workers {args.workers}"
    return _Plan(jobs, [], next_command)


def _plan_corpus(args: argparse.Namespace) -> _Plan:
    from nat_plugin.pmlm.tokenize_files import TokenizeJob

    languages = (args.source_lang, args.target_lang)
    jobs, parallel, problems = [], [], []
    command = ["fairseq-preprocess", "--source-lang", languages[0], "--target-lang", languages[1]]
    for split in ("train", "valid", "test"):
        option = f"--{split}pref"
        prefixes = (getattr(args, f"{split}pref") or "").split(",") if getattr(args, f"{split}pref") else []
        made = []
        for k, prefix in enumerate(prefixes):
            name = f"{split}{k}" if k else split
            found = [_text_file(f"{prefix}.{language}") for language in languages]
            problems += [f"{option} {prefix}: no file {path} (or .gz)" for path in found if not Path(path).exists()]
            jobs += [
                TokenizeJob(path, f"{args.destdir}/{name}.{language}")
                for path, language in zip(found, languages, strict=True)
            ]
            parallel.append((found[0], found[1]))
            made.append(f"{args.destdir}/{name}")
        if made:
            command += [option, ",".join(made)]
    raise_all(problems)
    _refuse_overwriting(jobs)
    end = (
        f"{_dictionary_options(args.pmlm)} --destdir {shlex.quote(args.destdir + '/data-bin')} --workers {args.workers}"
    )
    return _Plan(jobs, parallel, f"{shlex.join(command)} {end}")


def _text_file(path: str) -> str:
    """``path``, or its gzip form where only that is there."""
    return f"{path}.gz" if not Path(path).exists() and Path(f"{path}.gz").exists() else path


def _refuse_overwriting(jobs: "Sequence[TokenizeJob]") -> None:
    sources = {Path(job.source).resolve() for job in jobs if job.source != "-"}
    destinations = [Path(job.destination).resolve() for job in jobs if job.destination != "-"]
    problems = [f"{path}: is both input and output; give another output" for path in destinations if path in sources]
    regular = [path for path in destinations if path.is_file() or not path.exists()]
    problems += [
        f"{path}: is the output of several inputs" for path in dict.fromkeys(regular) if regular.count(path) > 1
    ]
    raise_all(problems)


def _dictionary_options(folder: str) -> str:
    dictionary = shlex.quote(str(Path(folder) / DICTIONARY_FILE))
    return f"--srcdict {dictionary} --tgtdict {dictionary}"


@dataclass(frozen=True)
class _Folder:
    tokenizer: "PieceTokenizer"
    piece_limit: int | None


def _open_folder(folder: str) -> _Folder:
    """The PMLM folder's tokenizer, checked against its dictionary, and the longest line that its model can take."""
    from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer

    files = [Path(folder) / name for name in (CONFIG_FILE, TOKENIZER_FILE, DICTIONARY_FILE)]
    raise_all(f"{file}: no such file, expected in a PMLM folder; {MAKE_IT}" for file in files if not file.is_file())
    config_file, tokenizer_file, dictionary_file = files
    tokenizer = PieceTokenizer.from_folder(folder)
    dictionary = {*FAIRSEQ_SYMBOLS, *(symbol for symbol, _ in read_dictionary(dictionary_file))}
    if missing := sorted(tokenizer.words - dictionary):
        raise UserError(
            f"{dictionary_file}: lacks {len(missing)} pieces of {tokenizer_file.name} (such as {missing[0]!r}); both "
            "files must come from one run of `nat prepare-pmlm`"
        )
    return _Folder(tokenizer, piece_limit(config_file))


def piece_limit(config_file: Path) -> int | None:
    """The most pieces of one line that the model has positions for, beside ``<s>``; None if it sets no limit.

    Models whose positions start after the padding row have that many fewer.
    """
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        positions = config.get("max_position_embeddings")
        if positions is None:
            return None
        family = FAMILIES.get(config.get("model_type"))
        if family is not None and family.positions_after_padding is not None:
            positions -= config["pad_token_id"] + 1
        return int(positions) - 1
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{config_file}: not a model configuration ({error!r}); {MAKE_IT}") from error


def _make_folder(folder: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--destdir {folder}: cannot be made ({error.strerror}); give a folder you may write to"
        ) from error


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected at least 1")
    return value

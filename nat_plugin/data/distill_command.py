"""``nat distill``: targets decoded by an autoregressive teacher, the training data of one-pass models."""

import argparse
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nat_plugin.data.distillation import (
    Line,
    Search,
    Shard,
    claim_settings,
    has_settings,
    open_shard,
    read_settings,
    refuse_missing_sentences,
    refuse_other_settings,
    scan,
)
from nat_plugin.data.distillation_merge import REPORT_FILE, lines_in_order, summary, write_corpus, write_report
from plugin_common.atomic_file import clean_up_when_terminated
from plugin_common.errors import UserError
from plugin_common.progress import progress_bar
from plugin_common.quiet_logging import warnings_only

if TYPE_CHECKING:
    from nat_plugin.data.binary_corpus import BinaryCorpus
    from nat_plugin.data.distillation import ShardWriter
    from nat_plugin.data.teacher import Teacher

SUMMARY = "Decode the training source with a trained autoregressive model: distilled targets, one for each sentence."
EXAMPLE = (
    "nat distill data-bin --path teacher.pt --source-lang en --target-lang de --output distilled\n"
    "  nat distill data-bin --path teacher.pt --output distilled --shards 2 --shard 0    # and --shard 1 elsewhere\n"
    "  nat distill data-bin --output distilled --merge"
)
SHARDS_FOLDER = "shards"
_MANY = 1_000_000
_RAW_BLOCK = 1000  # sentences kept raw that are written at a time


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nat distill``."""
    parser.add_argument("data", metavar="DATA_BIN", help="folder that fairseq-preprocess --destdir wrote")
    parser.add_argument("--path", metavar="FILE[:FILE…]", help="the teacher's checkpoint; several vote (ensemble)")
    parser.add_argument("--output", required=True, metavar="DIR", help="gets SUBSET.SRC, SUBSET.TGT, distill.json")
    parser.add_argument("--source-lang", "-s", metavar="LANG", help="default: from the names of the files in DATA_BIN")
    parser.add_argument("--target-lang", "-t", metavar="LANG", help="default: from the names of the files in DATA_BIN")
    parser.add_argument("--subset", default="train", metavar="NAME", help="what to decode (default: %(default)s)")
    parser.add_argument("--user-dir", metavar="FOLDER", help="fairseq plugin that the teacher needs")
    search = parser.add_argument_group("beam search, as in fairseq-generate")
    # Without defaults: --merge compares what is given.
    search.add_argument("--beam", type=_positive, metavar="N", help=f"beam size (default: {Search.beam})")
    penalty = f"length penalty, >1 favours longer (default: {Search.lenpen})"
    search.add_argument("--lenpen", type=_number(float, -10, 10), metavar="X", help=penalty)
    search.add_argument(
        "--max-len-a",
        type=_number(float, 0, _MANY),
        metavar="A",
        help="at most A·x + B tokens for x in a batch's longest source",
    )
    search.add_argument(
        "--max-len-b",
        type=_number(int, 0, _MANY),
        metavar="B",
        help=f"(defaults: A = {Search.max_len_a:g}, B = {Search.max_len_b})",
    )
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--max-tokens",
        type=_positive,
        default=12000,
        metavar="N",
        help="source tokens in a batch (default: %(default)s)",
    )
    speed.add_argument(
        "--batch-size", type=_positive, default=512, metavar="N", help="sentences in a batch (default: %(default)s)"
    )
    speed.add_argument("--cpu", action="store_true", help="do not use the GPU")
    precision = speed.add_mutually_exclusive_group()
    precision.add_argument("--fp16", dest="precision", action="store_const", const="fp16", help="16-bit floats")
    precision.add_argument("--bf16", dest="precision", action="store_const", const="bf16", help="bfloat16")
    shards = parser.add_argument_group("shards (sentence i, from 0, belongs to shard i modulo N)")
    shards.add_argument("--shards", type=_positive, metavar="N", help="number of shards, each a run of its own")
    shards.add_argument("--shard", type=int, metavar="K", help="the shard to decode, 0 to N-1")
    shards.add_argument("--merge", action="store_true", help="put the decoded shards together; needs no model")
    parser.add_argument("--mix", action="store_true", help="write all raw pairs, then the distilled ones")
    parser.set_defaults(wrong_use=parser.error)


def run(args: argparse.Namespace) -> None:
    """Decode a shard, merge all shards, or without ``--shards`` both."""
    _refuse_wrong_use(args)
    with clean_up_when_terminated(), warnings_only("fairseq"):
        if not args.merge:
            _set_defaults(args)
            _decode(args)
        if args.merge or args.shards is None:
            _merge(args)


def _refuse_wrong_use(args: argparse.Namespace) -> None:
    if (args.source_lang is None) != (args.target_lang is None):
        args.wrong_use("give both of --source-lang and --target-lang, or none")
    if args.merge:
        if args.shard is not None:
            args.wrong_use("--merge puts all shards together: leave --shard out")
        return
    if args.path is None:
        args.wrong_use("--path is missing: the teacher's checkpoint")
    if args.shard is not None and args.shards is None:
        args.wrong_use(f"--shard {args.shard} needs --shards, the number of shards")
    if args.shards is not None:
        if args.shard is None:
            args.wrong_use(f"--shards {args.shards}: also give --shard 0 … {args.shards - 1}, or --merge")
        if not 0 <= args.shard < args.shards:
            args.wrong_use(f"--shard {args.shard}: expected 0 to {args.shards - 1}")
        if args.mix:
            args.wrong_use("--mix goes with --merge (or with no --shards)")
    if not Search(**_given_search(args)).always_allows_a_token:
        args.wrong_use(
            "--max-len-a, --max-len-b: leave no token for the shortest source: expected 2·A + B of at least 1"
        )


def _given_search(args: argparse.Namespace) -> dict[str, Any]:
    """The options of the beam search that stand on the command line."""
    values = {field.name: getattr(args, field.name) for field in fields(Search)}
    return {name: value for name, value in values.items() if value is not None}


def _set_defaults(args: argparse.Namespace) -> None:
    vars(args).update(asdict(Search(**_given_search(args))))
    args.precision = args.precision or "fp32"


# ---- decoding --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """What is to be decoded, and where it goes."""

    corpus: "BinaryCorpus"
    shard: Shard
    folder: Path


def _decode(args: argparse.Namespace) -> None:
    from nat_plugin.data import teacher as teachers
    from nat_plugin.data.binary_corpus import open_corpus, sha256

    teachers.register(args.user_dir)
    paths = args.path.split(":")
    files = teachers.checkpoint_names(paths)
    languages = _languages(args)
    corpus = open_corpus(args.data, args.subset, *languages)
    plan = _Plan(corpus, Shard(args.shard or 0, args.shards or 1, len(corpus)), _shards_folder(args.output))
    search = Search(**_given_search(args))
    settings = {
        **_corpus_settings(corpus),
        "checkpoints_sha256": [sha256(file) for file in files],
        **asdict(search),
        "precision": args.precision,
        "shards": plan.shard.of,
    }
    name = f"shard {plan.shard.number} of {plan.shard.of}"
    if has_settings(plan.folder):
        refuse_other_settings(plan.folder, settings)
        if not len(scan(plan.shard.file(plan.folder), plan.shard).missing(plan.shard)):
            print(f"{name}: all {len(plan.shard):,} sentences are decoded already")
            return
    teacher = teachers.Teacher(
        paths, args.data, languages, search, named=_named_languages(args), precision=args.precision, cpu=args.cpu
    )
    # Only now, so that a checkpoint that is no teacher leaves no trace.
    claim_settings(plan.folder, settings, {"command": _command_words(args), "checkpoints": paths})
    with open_shard(plan.shard.file(plan.folder), plan.shard) as writer:
        _decode_shard(plan, writer, teacher, max_tokens=args.max_tokens, batch_size=args.batch_size)
    print(f"{name}: {len(plan.shard):,} sentences in {plan.shard.file(plan.folder)}")


def _decode_shard(plan: _Plan, writer: "ShardWriter", teacher: "Teacher", *, max_tokens: int, batch_size: int) -> None:
    """Decode what the shard's file lacks, longest sources first; sources that cannot be decoded keep their target."""
    import numpy as np

    from nat_plugin.data.teacher import batches, longest_first, outstanding

    sizes, target = plan.corpus.source.sizes, plan.corpus.target
    dataset = teacher.load_subset(plan.corpus.subset)
    if len(dataset) != len(plan.corpus) or not np.array_equal(np.asarray(dataset.src_sizes), sizes):
        raise UserError(
            f"--path: the teacher's task reads {plan.corpus.subset} otherwise than it is in {plan.corpus.folder}"
        )
    indices = plan.shard.indices()
    missing = np.zeros(len(plan.corpus), dtype=np.bool_)
    missing[writer.state.missing(plan.shard)] = True
    empty, long = sizes <= 1, sizes > teacher.longest_source
    cut = batches(
        longest_first(indices[~(empty | long)[indices]], sizes), sizes, max_tokens=max_tokens, batch_size=batch_size
    )
    description = f"shard {plan.shard.number} of {plan.shard.of}"
    with progress_bar(total=len(indices), unit=" sentences", description=description) as bar:
        bar.update(int(len(indices) - missing.sum()))
        kept = np.flatnonzero(missing & (empty | long)).tolist()
        for start in range(0, len(kept), _RAW_BLOCK):
            block = kept[start : start + _RAW_BLOCK]
            writer.append([Line(i, "s" if empty[i] else "l", target.text(i)) for i in block], 0.0)
            bar.update(len(block))
        for batch in outstanding(cut, missing):
            started = time.perf_counter()
            texts = teacher.decode(dataset, batch)
            seconds = time.perf_counter() - started
            lines = [
                Line(i, "h", text) if text else Line(i, "n", target.text(i))
                for i, text in zip(batch, texts, strict=True)
            ]
            writer.append(lines, seconds)
            bar.update(len(batch))


# ---- merging ---------------------------------------------------------------------------------------------------------


def _merge(args: argparse.Namespace) -> None:
    from nat_plugin.data.binary_corpus import open_corpus, sha256

    if args.merge:
        import nat_plugin

        nat_plugin.register()
    output, folder = Path(args.output), Path(args.output) / SHARDS_FOLDER
    known = read_settings(folder)
    settings = known["settings"]
    corpus = open_corpus(args.data, args.subset, *_languages(args, settings))
    given: dict[str, Any] = {**_corpus_settings(corpus), **_given_search(args)}
    given |= {name: getattr(args, name) for name in ("precision", "shards") if getattr(args, name) is not None}
    if args.path is not None and args.merge:
        from nat_plugin.data.teacher import checkpoint_names

        given["checkpoints_sha256"] = [sha256(file) for file in checkpoint_names(args.path.split(":"))]
    refuse_other_settings(folder, given)
    shards = [Shard(number, settings["shards"], len(corpus)) for number in range(settings["shards"])]
    states = [scan(shard.file(folder), shard) for shard in shards]
    commands = [_command(known["where"]["command"], shard) for shard in shards]
    refuse_missing_sentences(states, shards, commands)

    report = output / REPORT_FILE
    report.unlink(missing_ok=True)  # written last: it tells that the other files are complete
    files = tuple(output / f"{corpus.subset}.{side.language}" for side in (corpus.source, corpus.target))
    with progress_bar(total=len(corpus) * (2 if args.mix else 1), unit=" lines", description="merge") as bar:
        counts = write_corpus(
            (files[0], files[1]), (corpus.source.text, corpus.target.text), lines_in_order(folder, shards, states),
            sentences=len(corpus), mix=args.mix, on_line=bar.update,
        )  # fmt: skip
    seconds = sum(state.seconds for state in states)
    content = {
        "settings": settings, "checkpoints": known["where"]["checkpoints"], "sentences": len(corpus),
        "lines": len(corpus) * (2 if args.mix else 1), "mix": args.mix, "counts": counts.as_dict(),
        "decoding_seconds": round(seconds, 3),
        "shard_seconds": [round(state.seconds, 3) for state in states],
    }  # fmt: skip
    write_report(report, content)
    for line in summary(counts, seconds, len(corpus)):
        print(line)
    mixed = f": {len(corpus):,} raw pairs, then {len(corpus):,} distilled" if args.mix else ""
    print(f"{files[0]}, {files[1]}: {content['lines']:,} lines each{mixed}")


def _corpus_settings(corpus: "BinaryCorpus") -> dict[str, Any]:
    return {
        "source_lang": corpus.source.language,
        "target_lang": corpus.target.language,
        "subset": corpus.subset,
        "sentences": len(corpus),
        "data_sha256": corpus.digest(),
    }


def _languages(args: argparse.Namespace, settings: dict[str, Any] | None = None) -> tuple[str, str]:
    """As given; without, as the continued run had them or as the files in DATA_BIN are named."""
    if args.source_lang is not None:
        return args.source_lang, args.target_lang
    if settings is not None:
        return settings["source_lang"], settings["target_lang"]
    from nat_plugin.data.binary_corpus import languages_of

    return languages_of(args.data, args.subset)


def _named_languages(args: argparse.Namespace) -> tuple[str, str] | None:
    """The pair in the names of the files in DATA_BIN; None if there are several."""
    from nat_plugin.data.binary_corpus import languages_of

    try:
        return languages_of(args.data, args.subset)
    except UserError:
        return None


def _shards_folder(output: str) -> Path:
    folder = Path(output) / SHARDS_FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--output {output}: cannot be made ({error.strerror}); give a folder you may write to"
        ) from error
    return folder


def _command_words(args: argparse.Namespace) -> list[str]:
    """The command line of this run without the shard, so that messages can show what is to be run."""
    words = ["nat", "distill", args.data, "--path", args.path, "--output", args.output, "--subset", args.subset]
    if args.source_lang is not None:
        words += ["--source-lang", args.source_lang, "--target-lang", args.target_lang]
    for name in ("beam", "lenpen", "max_len_a", "max_len_b", "max_tokens", "batch_size"):
        words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    words += ["--user-dir", args.user_dir] if args.user_dir else []
    words += [f"--{args.precision}"] if args.precision != "fp32" else []
    return words + (["--cpu"] if args.cpu else [])


def _command(words: list[str], shard: Shard) -> str:
    return shlex.join([*words, *(["--shards", str(shard.of), "--shard", str(shard.number)] if shard.of > 1 else [])])


def _number(kind: type[int] | type[float], least: int, most: int) -> Callable[[str], float]:
    """What argparse is to make of a word that must be a number within these limits."""

    def parse(text: str) -> float:
        try:
            value: float = kind(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            name = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text}: expected {name} from {least:,} to {most:,}")
        return value

    return parse


_positive = _number(int, 1, 2**31 - 1)

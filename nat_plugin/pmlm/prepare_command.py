"""``nat prepare-pmlm``: from a Hugging Face masked LM, or from a corpus alone, to a PMLM folder."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugin_common.errors import UserError, raise_all
from plugin_common.text_lines import CONTROL_CHARACTERS

if TYPE_CHECKING:
    from nat_plugin.pmlm.corpus_pieces import Corpus
    from nat_plugin.pmlm.prune import PMLM
    from nat_plugin.pmlm.source_model import SourceModel

SUMMARY = "Make a PMLM folder: a masked LM cut down to a corpus, with its rows in fairseq's order and a dict.txt."
EXAMPLE = (
    "nat prepare-pmlm --pmlm FacebookAI/xlm-roberta-base --corpus train.de train.en --output xlmr-de-en\n"
    "  nat prepare-pmlm --from-scratch --vocab-size 8000 --corpus train.de train.en --output small-de-en"
)
LOGIT_TOLERANCE = 1e-5
SHOWN_PIECES = 5
PRUNING_OPTIONS = {"no_prune": False, "min_count": 1, "keep_pieces": None, "init_missing_head": False}
SCRATCH_OPTIONS = {"vocab_size": 8000, "layers": 4, "width": 192, "heads": 4, "ffn": 768, "max_positions": 512}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument(
        "--pmlm",
        metavar="FOLDER-OR-NAME",
        help="masked LM to start from: XLM-R, RoBERTa (BiBERT), BERT (mBERT) or DistilBERT; a local folder (no "
        "network) or a model name of the hub",
    )
    kind.add_argument(
        "--from-scratch",
        action="store_true",
        help="learn a joint Unigram vocabulary from the corpus; the model is XLM-R-shaped, small and random",
    )
    parser.add_argument(
        "--corpus",
        metavar="FILE",
        nargs="+",
        action="extend",
        type=Path,
        help="UTF-8 text of both languages, one sentence a line, also .gz; not needed with --no-prune",
    )
    parser.add_argument(
        "--control-characters",
        choices=CONTROL_CHARACTERS,
        default="error",
        help="what to do with NUL and other control characters: stop (error), or read each as a space, counted "
        "(default: %(default)s)",
    )
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="PMLM folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace --output if it is a PMLM folder")
    parser.add_argument("--seed", type=int, default=1, help="seed of random weights (default: %(default)s)")
    pruning = parser.add_argument_group("with --pmlm")
    pruning.add_argument("--no-prune", action="store_true", help="keep every piece; rows are reordered only")
    pruning.add_argument(
        "--min-count",
        type=int,
        default=None,
        metavar="N",
        help="keep pieces that occur N times or more; single characters always stay (default: 1)",
    )
    pruning.add_argument(
        "--keep-pieces",
        type=Path,
        metavar="FILE",
        help="pieces to keep in any case, one a line, as the tokenizer spells them",
    )
    pruning.add_argument(
        "--init-missing-head",
        action="store_true",
        help="accept an encoder without masked-LM head; its head begins random, tied to the embedding",
    )
    scratch = parser.add_argument_group("with --from-scratch")
    for option, unit in (
        ("vocab_size", "embedding rows, control symbols included"),
        ("layers", "Transformer layers"),
        ("width", "hidden units of a layer"),
        ("heads", "attention heads of a layer"),
        ("ffn", "units of the feed-forward part"),
        ("max_positions", "longest up-sampled input in tokens"),
    ):
        name = "--" + option.replace("_", "-")
        default = SCRATCH_OPTIONS[option]
        scratch.add_argument(name, type=int, default=None, metavar="N", help=f"{unit} (default: {default})")
    parser.set_defaults(wrong_use=parser.error)


def run(args: argparse.Namespace) -> None:
    """Write the folder and say what is in it."""
    _settle_options(args)
    started = time.monotonic()
    from nat_plugin.pmlm.corpus_pieces import Corpus
    from plugin_common.hf_folder import check_output_folder, save_pmlm

    corpus = Corpus(args.corpus, args.control_characters) if args.corpus else None
    if corpus is not None:
        corpus.check()
    check_output_folder(args.output, overwrite=args.overwrite)
    if args.from_scratch:
        assert corpus is not None, "checked with the options"
        pmlm, provenance, report = _from_scratch(args, corpus)
    else:
        pmlm, provenance, report = _prune(args, corpus)
    for file in pmlm.files:
        report += [f"{file.path}: {change}" for change in file.changes]
    provenance["corpus"] = [vars(file) for file in pmlm.files]
    save_pmlm(pmlm.model, pmlm.tokenizer, pmlm.entries, args.output, provenance=provenance, overwrite=args.overwrite)
    for line in report:
        print(line)
    print(f"{args.output}: written in {time.monotonic() - started:.1f} s; next: nat tokenize --pmlm {args.output} …")


def _settle_options(args: argparse.Namespace) -> None:
    """Refuse options of the other mode, fill in the defaults of this one."""
    foreign, own = (PRUNING_OPTIONS, SCRATCH_OPTIONS) if args.from_scratch else (SCRATCH_OPTIONS, PRUNING_OPTIONS)
    given = ["--" + name.replace("_", "-") for name in foreign if _is_given(getattr(args, name))]
    if given:
        args.wrong_use(f"{', '.join(given)}: only with {'--pmlm' if args.from_scratch else '--from-scratch'}")
    for name, default in own.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    if not args.corpus and not args.no_prune:
        args.wrong_use("--corpus is missing: give text files" + ("" if args.from_scratch else ", or --no-prune"))
    if args.no_prune and (args.min_count != 1 or args.keep_pieces):
        args.wrong_use("--no-prune keeps every piece; leave out --min-count and --keep-pieces")
    if not args.from_scratch and args.min_count < 1:
        args.wrong_use(f"--min-count {args.min_count}: must be at least 1")


def _is_given(value: Any) -> bool:
    return value is not None and value is not False


def _from_scratch(args: argparse.Namespace, corpus: "Corpus") -> tuple["PMLM", dict[str, Any], list[str]]:
    from nat_plugin.pmlm.from_scratch import Shape, make_pmlm

    shape = Shape(args.layers, args.width, args.heads, args.ffn, args.max_positions)
    raise_all(shape.problems())
    pmlm = make_pmlm(corpus, args.vocab_size, shape, seed=args.seed)
    rows = len(pmlm.order.symbols)
    report = [f"vocabulary: {rows:,} rows learned from {_lines(pmlm):,} lines; {_parameters(pmlm)}"]
    if rows < args.vocab_size:
        report.append(f"note: the corpus is too small for --vocab-size {args.vocab_size}; it gave {rows} rows")
    return pmlm, {"source": "from scratch", "rows": rows, "shape": vars(shape), "seed": args.seed}, report


def _prune(args: argparse.Namespace, corpus: "Corpus | None") -> tuple["PMLM", dict[str, Any], list[str]]:
    from nat_plugin.pmlm.prune import largest_logit_difference, prune
    from nat_plugin.pmlm.source_model import open_source

    source = open_source(args.pmlm, init_missing_head=args.init_missing_head, seed=args.seed)
    keep = _pieces_to_keep(args.keep_pieces, source.ids.__contains__) if args.keep_pieces else []
    pmlm = prune(source, corpus, min_count=args.min_count, keep=keep, keep_all=args.no_prune)
    difference = largest_logit_difference(source.model, pmlm.model, pmlm.order.old_ids)
    if not difference <= LOGIT_TOLERANCE:
        raise UserError(
            f"{args.pmlm}: after pruning its logits differ by {difference:.1e} of the largest (expected at most "
            f"{LOGIT_TOLERANCE:.0e}); nothing was written; are there NaN or infinite weights in it?"
        )
    rows = len(pmlm.order.symbols)
    report = [
        f"rows: {rows:,} kept of {source.rows:,}; {_parameters(pmlm)}",
        f"logits on kept pieces: largest difference {difference:.1e} of the largest logit",
        *_left_out(source, pmlm),
    ]
    provenance = {"source": args.pmlm, "rows_of_source": source.rows, "rows": rows, "pruned": not args.no_prune}
    if not args.no_prune:
        provenance["min_count"] = args.min_count
    return pmlm, provenance, report


def _left_out(source: "SourceModel", pmlm: "PMLM") -> list[str]:
    """What could not be taken over, counted."""
    report = []
    nameless = source.rows - len(set(source.ids.values()))
    if nameless:
        report.append(f"left out: {nameless:,} rows that the tokenizer has no piece for")
    for pieces, why in (
        (pmlm.unusable.with_white_space, "that contain white space, at which fairseq splits token text"),
        (pmlm.unusable.named_like_control_symbols, "that are spelled like fairseq's control symbols"),
    ):
        if pieces:
            shown = ", ".join(map(repr, pieces[:SHOWN_PIECES])) + (", …" if len(pieces) > SHOWN_PIECES else "")
            report.append(f"left out: {len(pieces):,} pieces {why}: {shown}")
    if pmlm.files:
        kept = sum(count for _, count in pmlm.entries)
        report.append(
            f"corpus: {_lines(pmlm):,} lines, {pmlm.pieces:,} pieces as the source splits it: {kept:,} kept, "
            f"{pmlm.pieces - kept - pmlm.unknown:,} to be split further, {pmlm.unknown:,} unknown"
        )
    return report


def _lines(pmlm: "PMLM") -> int:
    return sum(file.lines for file in pmlm.files)


def _parameters(pmlm: "PMLM") -> str:
    return f"{pmlm.model.num_parameters() / 1e6:.1f} million parameters"


def _pieces_to_keep(path: Path, known: Callable[[str], bool]) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--keep-pieces {path}: cannot be read as UTF-8 text ({error})") from error
    pieces = [(number, line) for number, line in enumerate(lines, start=1) if line]
    raise_all(
        f"{path}, line {number}: {piece!r} is no piece of the source's tokenizer"
        for number, piece in pieces
        if not known(piece)
    )
    return [piece for _, piece in pieces]

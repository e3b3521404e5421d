"""``nat ngram-lm``: an n-gram language model over pieces, for CTC beam search."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from plugin_common.atomic_file import atomic_output, clean_up_when_terminated
from plugin_common.dictionary_file import FAIRSEQ_SYMBOLS, read_dictionary
from plugin_common.errors import raise_all
from plugin_common.progress import progress_bar

if TYPE_CHECKING:
    from nat_plugin.decoding.ngram_estimation import Estimate
    from nat_plugin.decoding.ngram_tables import NgramTables

SUMMARY = "Estimate an n-gram language model over pieces, or convert one, for beam search."
EXAMPLE = (
    "nat ngram-lm --corpus tokenized/train.de --dict tokenized/dict.txt --output lm.npz\n"
    "  nat ngram-lm --corpus pieces.de more.de.gz --order 5 --prune 0 0 1 --output lm.arpa.gz\n"
    "  nat ngram-lm --from lm.arpa.gz --dict dict.txt --output lm.npz"
)
FORMATS = (".arpa", ".arpa.gz", ".npz")
DEFAULT_ORDER = 4


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nat ngram-lm``."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--corpus", nargs="+", metavar="FILE", help="token text as nat tokenize writes it; also .gz; - is stdin"
    )
    source.add_argument("--from", dest="model", metavar="FILE", help="ARPA file (or .gz) to convert")
    parser.add_argument("--output", required=True, metavar="FILE", help="its name ends in " + ", ".join(FORMATS))
    parser.add_argument(
        "--dict", metavar="FILE", help="fairseq's dict.txt of the language, for .npz: the model gets its numbering"
    )
    parser.add_argument("--order", type=order, metavar="N", help=f"longest n-grams (default: {DEFAULT_ORDER})")
    parser.add_argument(
        "--prune",
        type=count,
        nargs="+",
        metavar="COUNT",
        help="for each order: leave out n-grams that occur no more than this; starts with 0, does not fall; the last "
        "holds for longer ones, too (default: 0, nothing is left out)",
    )
    parser.set_defaults(wrong_use=parser.error)


def run(args: argparse.Namespace) -> None:
    """Estimate or read, write, and tell what the model holds."""
    _refuse_wrong_use(args)
    _check_places(args)
    symbols = _symbols(args.dict) if args.dict else []
    with clean_up_when_terminated():
        model = _converted(args.model) if args.model else _estimated(args)
        _write(model, args.output, symbols, source=args.model or " ".join(args.corpus))
    sizes = " + ".join(f"{len(table):,}" for table in model.orders)
    print(f"{args.output}: order {model.order}, {sizes} n-grams, {Path(args.output).stat().st_size / 1e6:.1f} MB")


def _refuse_wrong_use(args: argparse.Namespace) -> None:
    if not args.output.endswith(FORMATS):
        args.wrong_use(f"--output {args.output}: the name has to end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if args.output.endswith(".npz") != bool(args.dict):
        args.wrong_use("--dict goes with an --output that ends in .npz, and such an output needs --dict")
    if args.model and (args.order is not None or args.prune is not None):
        args.wrong_use("--order and --prune go with --corpus; a model that is converted keeps its n-grams")
    if args.model and args.model.endswith(".npz"):
        args.wrong_use(f"--from {args.model}: expected an ARPA file; estimate again or convert from that")
    if args.corpus and args.corpus.count("-") > 1:
        args.wrong_use("--corpus: - (standard input) is there more than once")


def _check_places(args: argparse.Namespace) -> None:
    inputs = [path for path in (args.corpus or [args.model]) if path != "-"]
    problems = [f"{path}: no such file; check the path" for path in inputs if not Path(path).exists()]
    problems += [
        f"--output {args.output}: is also read; give another name"
        for path in inputs
        if Path(path).resolve() == Path(args.output).resolve()
    ]
    if not Path(args.output).resolve().parent.is_dir():
        problems.append(f"--output {args.output}: there is no folder {Path(args.output).parent}; make it first")
    raise_all(problems)


def _symbols(dictionary: str) -> list[str]:
    return [*FAIRSEQ_SYMBOLS, *(symbol for symbol, _ in read_dictionary(Path(dictionary)))]


def _converted(path: str) -> "NgramTables":
    from nat_plugin.decoding.arpa import read_arpa

    return read_arpa(path)


def _estimated(args: argparse.Namespace) -> "NgramTables":
    from nat_plugin.decoding.ngram_counts import count_ngrams
    from nat_plugin.decoding.ngram_estimation import check_thresholds, estimate

    longest = args.order or DEFAULT_ORDER
    thresholds = check_thresholds(args.prune or [0], longest)
    with progress_bar(total=None, unit=" lines", description="count") as bar:
        counts = count_ngrams(args.corpus, longest, on_lines=bar.update)
    found = estimate(counts, thresholds)
    print(
        f"{counts.sentences:,} lines, {counts.words:,} pieces, {len(counts.vocabulary) - 3:,} different ones",
        file=sys.stderr,
    )
    _report(found)
    return found.model


def _report(found: "Estimate") -> None:
    for n, (counted, discounts) in enumerate(zip(found.counted, found.discounts, strict=True), start=1):
        pruned = counted - len(found.model.orders[n - 1])
        print(
            f"order {n}: {counted:,} n-grams{f', {pruned:,} pruned' if pruned else ''}; discounts "
            + " ".join(f"{discount:.3f}" for discount in discounts[1:]),
            file=sys.stderr,
        )


def _write(model: "NgramTables", output: str, symbols: list[str], *, source: str) -> None:
    if output.endswith(".npz"):
        from nat_plugin.decoding.ngram_lm import NgramLm
        from nat_plugin.decoding.ngram_lm_file import write_arrays

        lm = NgramLm.from_tables(model, symbols, source=source)
        with atomic_output(output) as stream:
            write_arrays(stream, lm)
        unknown = int((lm.words != range(len(symbols))).sum())
        print(f"{unknown:,} of the dictionary's {len(symbols):,} symbols score as <unk>", file=sys.stderr)
        return
    from nat_plugin.decoding.arpa import write_arpa

    with atomic_output(output) as stream:
        write_arpa(stream, model, compress=output.endswith(".gz"))


def order(text: str) -> int:
    """Of n-grams, an argparse type: its name is part of argparse's message about what is no number."""
    value = int(text)
    if not 1 <= value <= 9:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 to 9")
    return value


def count(text: str) -> int:
    """Of occurrences, an argparse type like :func:`order`."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: expected 0 or more")
    return value

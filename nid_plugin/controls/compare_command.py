"""``nid compare``: two teachers on the same prompts."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nid_plugin.controls.comparison import Comparison

SUMMARY = "Compare two teachers on the prompts that both have, and write their pairs in the same order."
EXAMPLE = "nid compare gpt-4-turbo.jsonl gpt-3.5-turbo.jsonl --halves ledger/halves.jsonl --out comparison"
OUTPUTS = ("a.jsonl", "b.jsonl", "report.md")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nid compare``."""
    parser.add_argument("a", metavar="A", help="pairs of one teacher")
    parser.add_argument("b", metavar="B", help="pairs of the other teacher")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder to make: a.jsonl, b.jsonl, report.md, report.json"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier run in --out")
    parser.add_argument("--halves", metavar="FILE", help="documents with both halves, to compare with the second one")
    parser.add_argument("--prices", metavar="FILE", help="prices by model (default: those that come with nid)")
    parser.add_argument(
        "--examples", type=int, default=5, metavar="N", help="prompts shown with both completions (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="decides these (default %(default)s)")
    parser.set_defaults(wrong_use=parser.error)


def run(args: argparse.Namespace) -> None:
    """Write the common pairs and the report."""
    if args.examples < 0:
        args.wrong_use(f"--examples {args.examples}: expected 0 or more")
    import json

    from nid_plugin.completion.prices import SHIPPED, read_prices
    from nid_plugin.controls.comparison import Comparison
    from nid_plugin.controls.comparison_report import as_json, as_markdown
    from nid_plugin.controls.files import REPORT, report_folder

    prices = read_prices(Path(args.prices) if args.prices else SHIPPED)
    inputs = [args.a, args.b, *filter(None, [args.halves])]
    folder = report_folder(args.out, OUTPUTS, inputs, overwrite=args.overwrite)
    counts, names = Comparison(), {"a": args.a, "b": args.b}
    with folder as made:
        _compare(args, counts, made)
        (made / "report.md").write_text(as_markdown(counts, names, prices), encoding="utf-8", errors="replace")
        report = json.dumps(as_json(counts, names, prices), indent=1) + "\n"
        (made / REPORT).write_text(report, encoding="utf-8")
    print(f"{counts.a.pairs:,} prompts in common; only in {args.a}: {counts.a.only_here:,}, only in {args.b}: "
          f"{counts.b.only_here:,}")  # fmt: skip
    print(f"report: {Path(args.out) / 'report.md'}")


def _compare(args: argparse.Namespace, counts: "Comparison", made: Path) -> None:
    """Fill ``counts``, ``a.jsonl`` and ``b.jsonl``."""
    import contextlib

    from nid_plugin.controls.by_prompt import by_prompt
    from nid_plugin.controls.comparison import common_pairs, compare
    from nid_plugin.controls.files import at_least_one, ids_once
    from nid_plugin.controls.findings import findings_of
    from nid_plugin.halving import Half, read_halves
    from nid_plugin.pairs import Pair, pair_line, read_pairs
    from plugin_common.errors import UserError
    from plugin_common.progress import progress_bar

    a, b = (at_least_one(ids_once(read_pairs(path), path), f"{path}: holds no pair") for path in (args.a, args.b))
    with contextlib.ExitStack() as stack:
        others = stack.enter_context(by_prompt(b, Pair, made))
        halves = stack.enter_context(by_prompt(read_halves(args.halves), Half, made)) if args.halves else None
        streams = [stack.enter_context((made / name).open("wb")) for name in ("a.jsonl", "b.jsonl")]
        bar = stack.enter_context(progress_bar(total=None, unit=" prompts", description="comparing"))
        common = common_pairs(a, others, counts)
        for both in compare(common, halves, counts, findings_of, examples=args.examples, seed=args.seed):
            for stream, pair in zip(streams, both, strict=True):
                stream.write(pair_line(pair))
            bar.update(1)
    if not counts.a.pairs:
        raise UserError(
            f"{args.a} and {args.b} have no prompt in common: compare completions of the same documents, halved alike "
            "(the same --halves, or the same options of nid halve)"
        )

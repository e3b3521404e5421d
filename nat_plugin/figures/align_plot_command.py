"""``nat align-plot``: what a one-pass model does with one sentence pair, as a figure."""

import argparse
import json
import sys
from pathlib import Path

from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError
from plugin_common.quiet_logging import warnings_only

SUMMARY = "Draw how a one-pass model aligns a sentence pair: probabilities, best path, distillation's positions."
EXAMPLE = (
    "nat align-plot checkpoint_best.pt --data data-bin --subset test --line 3 --output figure.png\n"
    "  nat align-plot checkpoint_best.pt --data data-bin --pmlm pmlm --source 'The file is open.' "
    "--target 'Die Datei ist offen.' --alignment viterbi --output figure.svg"
)
METHODS = ("argmax", "viterbi", "assignment")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nat align-plot``."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="of fairseq-train --task ctc_nat")
    parser.add_argument("--data", required=True, metavar="DATA_BIN", help="folder that fairseq-preprocess wrote")
    parser.add_argument("--output", required=True, metavar="FIGURE", help="PNG, SVG or PDF file to write")
    parser.add_argument("--json", metavar="FILE", help="write the numbers, too")
    texts = parser.add_argument_group("a pair of texts")
    texts.add_argument("--source", metavar="TEXT", help="plain text in the source language")
    texts.add_argument("--target", metavar="TEXT", help="its translation")
    texts.add_argument("--pmlm", metavar="FOLDER", help="PMLM folder whose tokenizer segments the texts")
    line = parser.add_argument_group("or a pair of DATA_BIN")
    line.add_argument("--line", type=int, metavar="N", help="the N-th pair, counted from 1")
    line.add_argument("--subset", default="test", metavar="NAME", help="of this subset (default: %(default)s)")
    line.add_argument("--source-lang", "-s", metavar="LANG", help="default: from the names of the files in DATA_BIN")
    line.add_argument("--target-lang", "-t", metavar="LANG", help="default: from the names of the files in DATA_BIN")
    parser.add_argument(
        "--alignment",
        choices=METHODS,
        default="argmax",
        help="how distillation aligns tokens to positions (default: %(default)s)",
    )
    parser.add_argument(
        "--teacher", metavar="FOLDER", help="PMLM folder; shows the cosine of model's and teacher's states"
    )
    parser.add_argument("--user-dir", metavar="FOLDER", help="fairseq plugin that the checkpoint needs")
    parser.set_defaults(wrong_use=parser.error)


def run(args: argparse.Namespace) -> None:
    """Compute, draw, write."""
    _refuse_wrong_use(args)
    from nat_plugin.figures.canvas import figure_format, require_matplotlib, save

    figure_format(args.output)
    if args.json and not Path(args.json).parent.is_dir():
        raise UserError(f"--json {args.json}: there is no folder {Path(args.json).parent}; make it first")
    with warnings_only("fairseq", "matplotlib", "PIL"):
        require_matplotlib()
        from nat_plugin.data.teacher import register

        register(args.user_dir)
        from nat_plugin.figures.alignment import draw_alignment
        from nat_plugin.figures.alignment_of_model import OnePassModel

        model = OnePassModel(args.checkpoint, args.data)
        if args.line is None:
            pair = model.pair_of_texts(args.pmlm, args.source, args.target)
        else:
            pair = model.pair_of_tokens(*_tokens_of_line(args))
        alignment = model.align(pair, args.alignment, args.teacher)
        translation = " ".join(model.translation(alignment))
        tokens = len(alignment.target)
        title = f"−log p(target) = {alignment.nats:.2f} nats ({alignment.nats / tokens:.2f} a token)"
        save(draw_alignment(alignment, title), args.output)
    if args.json:
        content = {**alignment.as_dict(), "translation": translation, "checkpoint": args.checkpoint}
        with atomic_output(args.json) as stream:
            stream.write((json.dumps(content, ensure_ascii=False) + "\n").encode("utf-8"))
    unknown = sum(token == "<unk>" for token in [*alignment.source, *alignment.target])
    if unknown:
        print(f"warning: {unknown} tokens of the up-sampled source and the target are <unk>", file=sys.stderr)
    print(f"{args.output}: {len(alignment.source)} positions, {tokens} target tokens; output: {translation}")


def _refuse_wrong_use(args: argparse.Namespace) -> None:
    texts = [name for name in ("source", "target", "pmlm") if getattr(args, name) is not None]
    if args.line is not None and texts:
        args.wrong_use(f"give either --line or --{', --'.join(texts)}, not both")
    if args.line is None and len(texts) < 3:
        args.wrong_use("give --source, --target and --pmlm, or --line of a --subset")
    if (args.source_lang is None) != (args.target_lang is None):
        args.wrong_use("give both of --source-lang and --target-lang, or none")


def _tokens_of_line(args: argparse.Namespace) -> tuple[str, str]:
    from nat_plugin.data.binary_corpus import languages_of, open_corpus

    languages = (
        languages_of(args.data, args.subset) if args.source_lang is None else (args.source_lang, args.target_lang)
    )
    corpus = open_corpus(args.data, args.subset, *languages)
    if not 1 <= args.line <= len(corpus):
        raise UserError(f"--line {args.line}: {args.subset} has the lines 1 to {len(corpus):,}")
    return corpus.source.text(args.line - 1), corpus.target.text(args.line - 1)

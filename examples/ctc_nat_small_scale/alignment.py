"""Draw how a model lays out a sentence of the test set, one that a model of that direction translates well.

python alignment.py --work runs/ctc-nat --run rows/de-en/duplication/seed1 --like rows/de-en/pmlm/seed1 --output fig.png
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
from collections.abc import Sequence

from examples.ctc_nat_small_scale.commands import PAIRS, PLUGIN
from nat_plugin import cli
from plugin_common.errors import UserError
from plugin_common.text_lines import read_lines

MOST_PIECES = 9  # more do not fit into a figure


def telling_line(
    sources: Sequence[str], targets: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]
) -> int:
    """The number (from 1) of the line with more pieces than its source that is translated best.

    Args:
        sources, targets: in pieces.
        hypotheses, references: plain text.

    Returns:
        The line with the highest chrF2; of equals that with the longest translation, then the first. Without any such
        line, 1.
    """
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF()
    grown = [
        (metric.sentence_score(hypothesis, [reference]).score, len(target.split()), -number)
        for number, (source, target, hypothesis, reference) in enumerate(
            zip(sources, targets, hypotheses, references, strict=True), 1
        )
        if len(source.split()) < len(target.split()) <= MOST_PIECES
    ]
    return -max(grown)[2] if grown else 1


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 on bad input, 2 for wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="the reproduction's folder")
    parser.add_argument("--run", required=True, metavar="DIR", help="the model's folder in it")
    parser.add_argument("--like", required=True, metavar="DIR", help="folder of the model that decides the sentence")
    parser.add_argument("--output", required=True, metavar="FILE")
    args = parser.parse_args(argv)
    work, direction = args.work, Path(args.run).parts[1]
    source, target = direction.split("-")
    pieces, plain = (work / "data" / form / PAIRS[direction] / "test" for form in ("pieces", "corpora"))
    hypotheses = work / args.like / "greedy" / f"hypotheses.{target}"
    try:
        paths = (f"{pieces}.{source}", f"{pieces}.{target}", hypotheses, f"{plain}.{target}")
        line = telling_line(*([*read_lines(str(path), "space")] for path in paths))
    except UserError as error:
        print(f"alignment.py: error: {error}", file=sys.stderr)
        return 1
    print(f"line {line} of the test set")
    return cli.main(
        ["align-plot", str(work / args.run / "model.pt"), "--data", str(work / "data/bin" / PAIRS[direction]),
         "--source-lang", source, "--target-lang", target, "--user-dir", str(PLUGIN), "--subset", "test",
         "--line", str(line), "--output", args.output]
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

"""What a model card should tell of a model of this reproduction, as Markdown.

python about.py --work runs/ctc-nat --run rows/de-en/distill/seed1 --output about.md
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import json
from collections.abc import Sequence
from typing import Any

from examples.ctc_nat_small_scale.commands import PAIRS
from examples.ctc_nat_small_scale.grid import ROWS
from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError

SOURCES = {
    "debian": "the message catalogues of Debian packages, human translations of program texts under the packages' free "
    "licences (their copyright files are kept beside the corpus)",
    "sample": "the message catalogues of Python packages in this project's `examples/quickstart/data`",
}
PROSE = {"debian": " and on prose from Debian's manuals in English, German and Romanian", "sample": ""}


def about(corpora: dict[str, Any], scores: dict[str, Any]) -> str:
    """A few lines on data, method and scores.

    Args:
        corpora: ``report.json`` of the corpora.
        scores: ``scores.json`` of the model on the test set.
    """
    pair = PAIRS[scores["direction"]]
    train, test = corpora["pairs"][pair]["train"], corpora["pairs"][pair]["test"]
    limit = f", none longer than {corpora['most_words']} words" if corpora["most_words"] else ""
    told = [f"{score['value']:.1f} {score['name']} (`{score['signature']}`)" for score in scores["scores"]]
    return "\n".join(
        [
            f"Trained on {train['kept']:,} {pair} pairs{limit}, from {SOURCES[corpora['source']]}. The masked LM that "
            f"it started from was trained on the training side of all texts{PROSE[corpora['source']]}. It knows the "
            "language of programs and their manuals and little else.",
            "",
            f"Method: {ROWS[scores['row']].title}; {scores['updates']:,} updates, "
            f"{scores['training_seconds'] / 60:.0f} minutes of training, seed {scores['seed']}. The commands: "
            "`examples/ctc_nat_small_scale`.",
            "",
            f"On the {test['kept']:,} test sentences of the same kind, by fairseq in float32: {', '.join(told)}.",
            "",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 on bad input, 2 for wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="the reproduction's folder")
    parser.add_argument("--run", required=True, metavar="DIR", help="the model's folder in it")
    parser.add_argument("--output", required=True, metavar="FILE")
    args = parser.parse_args(argv)
    paths = (args.work / "data/corpora/report.json", args.work / args.run / "greedy/scores.json")
    try:
        corpora, scores = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
        with atomic_output(args.output) as stream:
            stream.write(about(corpora, scores).encode())
    except (OSError, ValueError, KeyError, UserError) as error:
        print(f"about.py: error: {error!r}; expected {paths[0]} and {paths[1]} of a finished run", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

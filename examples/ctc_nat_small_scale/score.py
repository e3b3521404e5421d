"""Score one evaluation of a trained model and tell where it came from: scores.json.

python score.py --run rows/de-en/pmlm/seed1 --evaluation greedy --work runs/ctc-nat --references test.en
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import json
import re
from collections.abc import Sequence
from typing import Any

from nat_plugin.scoring import plain_scores
from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError
from plugin_common.text_lines import read_lines

_EPOCH = re.compile(r"\| train \| epoch (\d+) \|.*?\bnum_updates (\d+).*?\btrain_wall (\d+)")


def training_cost(log: Path) -> dict[str, int]:
    """Updates and seconds (of training steps, without validation and start) of a training log.

    fairseq counts the seconds of each epoch, over its resumptions, and tells them at its end.

    Raises:
        UserError: the log cannot be read or tells neither.
    """
    try:
        found = _EPOCH.findall(log.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise UserError(f"{log}: cannot be read ({error.strerror}); expected the log of fairseq-train") from error
    if not found:
        raise UserError(f"{log}: tells no number of updates; expected the log of fairseq-train --log-format simple")
    seconds = {epoch: int(wall) for epoch, _, wall in found}
    return {"updates": max(int(updates) for _, updates, _ in found), "training_seconds": sum(seconds.values())}


def result(args: argparse.Namespace) -> dict[str, Any]:
    """All that ``scores.json`` holds."""
    run: Path = args.work / args.run
    direction, row, seed = identity_of(Path(args.run))
    language = direction.partition("-")[2]
    hypotheses = list(read_lines(str(run / args.evaluation / f"hypotheses.{language}"), "space"))
    references = list(read_lines(str(args.references), "space"))
    return {
        "direction": direction,
        "row": row,
        "seed": int(seed.removeprefix("seed")),
        "evaluation": args.evaluation,
        "lines": len(references),
        "empty_hypotheses": sum(not line.strip() for line in hypotheses),
        "scores": [vars(score) for score in plain_scores(hypotheses, references)],
        **training_cost(run / "logs" / "train.log"),
        "log": f"{args.run}/logs/train.log",
    }


def identity_of(run: Path) -> tuple[str, str, str]:
    """Direction, row and ``seedN`` of ``rows/DIRECTION/ROW/seedN`` or ``at/DIRECTION/seedN``."""
    kind, direction, *row, seed = run.parts
    return direction, row[0] if row else kind, seed


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 on bad input, 2 for wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="the reproduction's folder")
    parser.add_argument("--run", required=True, metavar="DIR", help="the model's folder in it")
    parser.add_argument("--evaluation", required=True, metavar="NAME", help="folder of its translations")
    parser.add_argument("--references", type=Path, required=True, metavar="FILE")
    args = parser.parse_args(argv)
    try:
        content = result(args)
        with atomic_output(str(args.work / args.run / args.evaluation / "scores.json")) as stream:
            stream.write((json.dumps(content, indent=1) + "\n").encode())
    except UserError as error:
        print(f"score.py: error: {error}", file=sys.stderr)
        return 1
    told = ", ".join(f"{score['name']} {score['value']:.2f}" for score in content["scores"])
    print(f"{args.run} {args.evaluation}: {told}; {content['empty_hypotheses']} of {content['lines']} empty")
    return 0


if __name__ == "__main__":
    sys.exit(main())

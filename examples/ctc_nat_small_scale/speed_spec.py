"""Name trained models for the decoding benchmark (``scripts/benchmarks/decoding.py --trained``).

python speed_spec.py --work runs/ctc-nat --ours rows/de-en/distill/seed1 --theirs at/de-en/seed1 --output models.json
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
from plugin_common.atomic_file import atomic_output


def spec(work: Path, ours: str, theirs: str) -> dict[str, Any]:
    """The benchmark's description of two models of the same direction.

    Args:
        ours: folder of the one-pass model in ``work``: ``rows/DIRECTION/ROW/seedN``.
        theirs: that of the baseline: ``at/DIRECTION/seedN``.
    """
    direction = Path(ours).parts[1]
    source, target = direction.split("-")
    data = work / "data"
    return {
        "data": str(data / "bin" / PAIRS[direction]),
        "source_lang": source,
        "target_lang": target,
        "subset": "test",
        "pmlm": str(data / "shape"),
        "reference": str(data / "corpora" / PAIRS[direction] / f"test.{target}"),
        "one_pass": {"one pass": str(work / ours / "model.pt")},
        "left_to_right": {"Transformer": str(work / theirs / "model.pt")},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 2 for wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="the reproduction's folder")
    parser.add_argument("--ours", required=True, metavar="DIR", help="folder of a one-pass model in it")
    parser.add_argument("--theirs", required=True, metavar="DIR", help="folder of its baseline in it")
    parser.add_argument("--output", required=True, metavar="FILE")
    args = parser.parse_args(argv)
    with atomic_output(args.output) as stream:
        stream.write((json.dumps(spec(args.work.resolve(), args.ours, args.theirs), indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())

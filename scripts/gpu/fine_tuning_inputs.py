"""A random model of SmolLM2-135M's shape and pairs from this repository's text, for fine_tuning.sh."""

import argparse
from pathlib import Path

from scripts.benchmarks.sft_inputs import make_model, make_pairs


def main() -> None:
    """Write ``model/`` and ``pairs.jsonl``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=30, help="of the model (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=2000, help="how many (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    make_model(args.out / "model", args.layers)
    make_pairs(args.out / "pairs.jsonl", args.pairs)


if __name__ == "__main__":
    main()

"""Keep some documents from training: pairs → train.jsonl and valid.jsonl, lines as they were.

python scripts/nid/split_pairs.py pairs.jsonl --valid 500 --seed 1 --out split
python scripts/nid/split_pairs.py control.jsonl --like pairs.jsonl --valid 500 --seed 1 --out split-control
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import hashlib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nid_plugin.pairs import read_pairs, read_pairs_and_lines
from plugin_common.errors import UserError, raise_all
from plugin_common.whole_folder import whole_folder

TRAIN, VALID = "train.jsonl", "valid.jsonl"


@dataclass(frozen=True)
class Counts:
    """Pairs written."""

    train: int
    valid: int


def prompt_key(prompt: str, seed: int) -> bytes:
    """16 bytes that decide about a prompt; the same in each file, wherever it stands."""
    return hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16, key=str(seed).encode()).digest()


def held_out(prompts: Iterable[str], count: int, seed: int) -> set[bytes]:
    """Keys of the ``count`` prompts that are kept from training: those with the smallest ones."""
    return set(heapq.nsmallest(count, {prompt_key(prompt, seed) for prompt in prompts}))


def split(pairs: Path, like: Path, out: Path, *, valid: int, seed: int) -> Counts:
    """Write the two files into the new folder ``out``.

    Which prompts are held out is decided by those of ``like``: files of other completions of the same prompts, or of
    some of them, are split alike.

    Raises:
        UserError: a file is no file of pairs, there are too few prompts, a part would be empty, or ``out`` holds files.
    """
    kept_back = held_out((pair.prompt for pair in read_pairs(str(like))), valid, seed)
    if len(kept_back) < valid:
        raise UserError(f"--valid {valid}: {like} has {len(kept_back)} different prompts; give less")
    counts = {TRAIN: 0, VALID: 0}
    with whole_folder(out, marker=TRAIN) as folder:
        with (folder / TRAIN).open("wb") as train, (folder / VALID).open("wb") as aside:
            streams = {TRAIN: train, VALID: aside}
            for pair, line in read_pairs_and_lines(str(pairs)):
                name = VALID if prompt_key(pair.prompt, seed) in kept_back else TRAIN
                counts[name] += 1
                streams[name].write(line + b"\n")
        raise_all(
            f"{pairs}: no pair is left for {name}, of {sum(counts.values())} in all; give more pairs or another --valid"
            for name, count in counts.items()
            if not count
        )
    return Counts(counts[TRAIN], counts[VALID])


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, metavar="PAIRS")
    parser.add_argument("--like", type=Path, metavar="FILE", help="its prompts decide (default: PAIRS)")
    parser.add_argument("--valid", type=int, required=True, metavar="N", help="documents kept from training")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="decides which (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=f"new folder: {TRAIN}, {VALID}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 on bad input, 2 for wrong use."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.valid < 1:
        parser.error(f"--valid {args.valid}: expected at least 1")
    try:
        counts = split(args.pairs, args.like or args.pairs, args.out, valid=args.valid, seed=args.seed)
    except UserError as error:
        print(f"split_pairs.py: error: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {counts.train:,} pairs to train on, {counts.valid:,} held out")
    return 0


if __name__ == "__main__":
    sys.exit(main())

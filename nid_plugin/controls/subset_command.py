"""``nid subset``: nested, seeded subsets of pairs."""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

SUMMARY = "Draw subsets of growing size from pairs, each holding the smaller ones."
EXAMPLE = "nid subset pairs.jsonl --sizes 1000 5000 20000 --seed 1 --out subsets"


@dataclass(frozen=True)
class Size:
    """A number of pairs, or a share of all in percent."""

    text: str
    number: int | None = None
    percent: float | None = None

    def of(self, pairs: int) -> int:
        """How many of so many pairs, a share rounded to the nearest number of pairs, at least one."""
        return self.number if self.number is not None else max(1, round(pairs * (self.percent or 0) / 100))


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nid subset``."""
    parser.add_argument("pairs", metavar="PAIRS", help="pairs to draw from")
    parser.add_argument(
        "--sizes", nargs="+", required=True, type=_size, metavar="N", help="pairs a subset; 10%% is a share of all"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="decides the draw (default %(default)s)")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder to make: a file pairs-N.jsonl for each size"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the subsets of an earlier run in --out")


def run(args: argparse.Namespace) -> None:
    """Write the subsets; tells how large they are."""
    import contextlib
    import json

    from nid_plugin.controls.files import REPORT, read_only_once, report_folder
    from nid_plugin.controls.subsets import Keys, membership, repeated
    from nid_plugin.pairs import pair_line, read_pairs
    from plugin_common.errors import UserError

    if once := read_only_once(args.pairs):
        raise UserError(f"{once}, and the pairs are read twice; give a file")
    folder = report_folder(args.out, ["pairs-*.jsonl"], [args.pairs], overwrite=args.overwrite)
    keys = Keys(args.seed)
    keys.add_all(read_pairs(args.pairs))
    sizes = _numbers(args.sizes, len(keys.values), args.pairs)
    chosen = membership(keys, sizes)
    with folder as made, contextlib.ExitStack() as files:
        streams = {size: files.enter_context((made / name_of(size)).open("wb")) for size in sizes}
        for pair in read_pairs(args.pairs):
            for size in chosen.sizes_of(pair):
                streams[size].write(pair_line(pair))
        report = {"pairs": len(keys.values), "repeated_prompts": repeated(keys), "seed": args.seed, "sizes": sizes}
        (made / REPORT).write_text(json.dumps(report, indent=1) + "\n")
    for size in sizes:
        print(f"{Path(args.out) / name_of(size)}: {size:,} of {len(keys.values):,} pairs")
    if again := repeated(keys):
        print(f"  {again:,} pairs have the prompt of an earlier one: of these the first in the file comes first")


def name_of(size: int) -> str:
    """The file of the subset with so many pairs."""
    return f"pairs-{size}.jsonl"


def _numbers(sizes: "list[Size]", pairs: int, path: str) -> list[int]:
    """The sizes as ascending numbers of pairs, each once."""
    from plugin_common.errors import UserError, raise_all

    if not pairs:
        raise UserError(f"{path}: holds no pair")
    raise_all(
        f"--sizes {size.text}: there are only {pairs:,} pairs in {path}" for size in sizes if size.of(pairs) > pairs
    )
    return sorted({size.of(pairs) for size in sizes})


def _size(text: str) -> Size:
    if re.fullmatch(r"[1-9]\d*", text):
        return Size(text, number=int(text))
    if re.fullmatch(r"\d+(\.\d+)?%", text) and 0 < float(text[:-1]) <= 100:
        return Size(text, percent=float(text[:-1]))
    raise argparse.ArgumentTypeError(f"{text}: expected a number of pairs from 1, or a share such as 10%")

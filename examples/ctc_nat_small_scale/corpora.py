"""The parallel text of a reproduction: English–German and English–Romanian, each in train, valid and test.

python corpora.py --source sample --output runs/ctc-nat/data/corpora
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import json
from collections.abc import Sequence

from plugin_common.errors import UserError
from plugin_common.text_lines import read_lines
from plugin_common.whole_folder import whole_folder
from scripts.data import debian_l10n

HERE = Path(__file__).resolve().parent
SAMPLE = HERE.parent / "quickstart" / "data"
PAIRS = {"en-de": ("en", "de"), "en-ro": ("en", "ro")}
SPLITS = ("train", "valid", "test")
SOURCES = ("debian", "sample")


def fetch(args: argparse.Namespace, folder: Path) -> tuple[str, Path]:
    """Name and folder of the whole corpus: Debian's, made in ``folder``, or the repository's sample.

    Raises:
        UserError: Debian's was asked for and could not be made.
    """
    if args.source == "sample":
        return "sample", SAMPLE
    packages = ["--packages", *args.packages] if args.packages else []
    cache = ["--cache", str(args.cache), *(["--no-download"] if args.no_download else [])]
    sizes = [f"--{side}-size={args.held_out}" for side in ("valid", "test")]
    status = debian_l10n.main([*packages, "--out", str(folder), "--overwrite", *cache, *sizes])
    if status == 0:
        return "debian", folder
    if status == 130:
        raise KeyboardInterrupt
    raise UserError(
        "the corpus could not be made from Debian's packages (see above); --no-download takes packages that lie in "
        "--cache, --source sample the small corpus in the repository"
    )


def select(corpus: Path, output: Path, pair: str, args: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Write the pairs that are short enough, by split; the largest splits cut to what is asked for.

    Returns:
        For each split how many pairs were read, left out as too long or as more than wanted, and kept.
    """
    output.mkdir()
    counts = {}
    for split in SPLITS:
        texts = [list(read_lines(str(corpus / f"{split}.{side}"), "space")) for side in PAIRS[pair]]
        read = list(zip(*texts, strict=True))
        most = args.most_words or sys.maxsize
        short = [lines for lines in read if max(len(line.split()) for line in lines) <= most]
        kept = short[: args.train_pairs if split == "train" else args.held_out]
        for side, text in zip(PAIRS[pair], zip(*kept, strict=True), strict=True):
            (output / f"{split}.{side}").write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
        counts[split] = {
            "read": len(read),
            "too_long": len(read) - len(short),
            "not_needed": len(short) - len(kept),
            "kept": len(kept),
        }
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 on bad input, 2 for wrong use, 130 when interrupted."""
    args = _parser().parse_args(argv)
    output: Path = args.output
    try:
        source, corpus = fetch(args, output.parent / "debian")
        with whole_folder(output, marker="report.json") as folder:
            counts = {pair: select(corpus / pair, folder / pair, pair, args) for pair in PAIRS}
            report = {"source": source, "most_words": args.most_words, "pairs": counts}
            (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    except UserError as error:
        print(f"corpora.py: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    for pair, splits in counts.items():
        for split, count in splits.items():
            print(
                f"{pair} {split}: {count['kept']:,} of {count['read']:,} pairs; left out: {count['too_long']:,} longer "
                f"than {args.most_words or 'any'} words, {count['not_needed']:,} more than wanted"
            )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=SOURCES, default="debian", help="the mirror, or the repository's sample")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="gets en-de/, en-ro/ and report.json")
    parser.add_argument("--packages", nargs="*", metavar="NAME", help="of Debian (default: debian_l10n.py's list)")
    parser.add_argument("--cache", type=Path, default=HERE.parents[1] / "runs" / "debian-packages", metavar="DIR")
    parser.add_argument("--no-download", action="store_true", help="take the packages in --cache as they are")
    parser.add_argument("--held-out", type=int, default=2000, metavar="N", help="pairs of valid and of test")
    parser.add_argument("--train-pairs", type=int, metavar="N", help="at most so many")
    parser.add_argument("--most-words", type=int, metavar="N", help="leave out pairs with a longer side")
    return parser


if __name__ == "__main__":
    sys.exit(main())

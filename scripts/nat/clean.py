"""Clean a downloaded benchmark as the literature does, all of it or its first training pairs.

python scripts/nat/clean.py wmt16 --source-lang en --target-lang ro --raw raw --output clean
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
from collections.abc import Sequence

from nat_plugin.data.literature import CleaningReport, clean_corpus
from plugin_common.atomic_file import clean_up_when_terminated
from plugin_common.errors import UserError


def clean(args: argparse.Namespace) -> CleaningReport:
    """Clean ``args.raw`` into ``args.output``."""
    return clean_corpus(
        args.dataset, args.source_lang, args.target_lang, args.raw, args.output,
        workers=args.workers, remove_diacritics=args.remove_diacritics, deduplicate=args.deduplicate,
        train_pairs=args.train_pairs,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 on bad input, 2 for wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--source-lang", required=True, metavar="LANG")
    parser.add_argument("--target-lang", required=True, metavar="LANG")
    parser.add_argument("--raw", required=True, type=Path, metavar="DIR", help="what nat download wrote")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--train-pairs", type=int, metavar="N", help="read the first N training pairs only")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--remove-diacritics", action="store_true", help="of Romanian source text")
    parser.add_argument("--deduplicate", action="store_true", help="drop repeated training pairs")
    args = parser.parse_args(argv)
    if args.train_pairs is not None and args.train_pairs < 1:
        parser.error(f"--train-pairs {args.train_pairs}: expected at least 1")
    try:
        with clean_up_when_terminated():
            report = clean(args)
    except UserError as error:
        print(f"clean.py: error: {error}", file=sys.stderr)
        return 1
    print("\n".join(report.as_lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

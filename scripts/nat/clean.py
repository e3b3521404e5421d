"""Clean a downloaded benchmark as the literature does, all of it or its first training pairs.

python scripts/nat/clean.py wmt16 --source-lang en --target-lang ro --raw raw --output clean
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import itertools
import tempfile
from collections.abc import Sequence

from nat_plugin.data.literature import CleaningReport, clean_corpus
from nat_plugin.data.literature_corpora import SPLITS
from plugin_common.atomic_file import clean_up_when_terminated
from plugin_common.errors import UserError


def clean(args: argparse.Namespace) -> CleaningReport:
    """Clean ``args.raw`` into ``args.output``."""
    options = {"workers": args.workers, "remove_diacritics": args.remove_diacritics, "deduplicate": args.deduplicate}
    languages = (args.source_lang, args.target_lang)
    if args.train_pairs is None:
        return clean_corpus(args.dataset, *languages, args.raw, args.output, **options)
    with tempfile.TemporaryDirectory() as folder:
        for split, language in itertools.product(SPLITS, languages):
            path = args.raw / f"{split}.{language}"
            if path.is_file():  # if not, clean_corpus says what to do
                copy_lines(path, Path(folder) / path.name, args.train_pairs if split == "train" else None)
        return clean_corpus(args.dataset, *languages, Path(folder), args.output, **options)


def copy_lines(source: Path, target: Path, count: int | None) -> None:
    """Copy the first ``count`` lines, or all."""
    with source.open("rb") as reading, target.open("wb") as writing:
        writing.writelines(itertools.islice(reading, count))


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

"""Drop pairs of token text of which a side is longer than a model can take; the files are replaced.

python scripts/nat/drop_long.py --prefix pieces/train --source-lang en --target-lang ro --most 500
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from plugin_common.atomic_file import atomic_output, clean_up_when_terminated
from plugin_common.errors import UserError


@dataclass(frozen=True)
class Counts:
    """Pairs read and dropped."""

    read: int
    dropped: int


def drop_long(source: Path, target: Path, most: int) -> Counts:
    """Keep the pairs of which neither side has more than ``most`` tokens, in their order.

    Raises:
        UserError: the files do not have the same number of lines, cannot be read or written, or no pair would be left;
            the files are as they were then.
    """
    read = dropped = 0
    try:
        with (
            source.open("rb") as sources,
            target.open("rb") as targets,
            atomic_output(str(source)) as kept_sources,
            atomic_output(str(target)) as kept_targets,
        ):
            for a, b in zip_longest(sources, targets):
                if a is None or b is None:
                    raise UserError(f"{source}, {target}: not the same number of lines; make both anew by nat tokenize")
                read += 1
                if max(len(a.split()), len(b.split())) > most:
                    dropped += 1
                else:
                    kept_sources.write(a)
                    kept_targets.write(b)
            if read == dropped > 0:
                raise UserError(
                    f"{source}, {target}: each of the {read:,} pairs has a side of more than {most} tokens, none would "
                    "be left; give a larger --most"
                )
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); nat tokenize makes it") from error
    return Counts(read, dropped)


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 on bad input, 2 for wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefix", required=True, metavar="PREFIX", help="the files are PREFIX.LANG")
    parser.add_argument("--source-lang", required=True, metavar="LANG")
    parser.add_argument("--target-lang", required=True, metavar="LANG")
    parser.add_argument("--most", required=True, type=int, metavar="N", help="tokens that a side may have")
    args = parser.parse_args(argv)
    if args.most < 1:
        parser.error(f"--most {args.most}: expected at least 1")
    source, target = (Path(f"{args.prefix}.{language}") for language in (args.source_lang, args.target_lang))
    try:
        with clean_up_when_terminated():
            counts = drop_long(source, target, args.most)
    except UserError as error:
        print(f"drop_long.py: error: {error}", file=sys.stderr)
        return 1
    print(f"{args.prefix}: {counts.dropped:,} of {counts.read:,} pairs dropped: a side of more than {args.most} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())

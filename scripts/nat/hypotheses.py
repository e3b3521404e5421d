"""What fairseq-generate printed: the translations in the order of the test set, and its own figure for the speed.

python scripts/nat/hypotheses.py --log test.log --like raw/test.de --output test.de
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import re
from collections.abc import Iterable, Sequence

from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError, raise_all

_TRANSLATION = re.compile(r"^D-(\d+)\t[^\t]*\t(.*)$")
_SPEED = re.compile(r"Translated ([\d,]+) sentences .*\(([\d.]+) sentences/s")


def translations(lines: Iterable[str], expected: int, name: str) -> list[str]:
    """The text of the ``D-`` lines in the order of the test set.

    Args:
        lines: of fairseq-generate's output.
        expected: how many sentences there must be.
        name: of the output, for messages.

    Raises:
        UserError: sentences are missing, there twice, or more than expected; says which.
    """
    found: dict[int, str] = {}
    twice = []
    for line in lines:
        if (match := _TRANSLATION.match(line.removesuffix("\n"))) is not None:
            number = int(match[1])
            if number in found:
                twice.append(number)
            found[number] = match[2]
    missing = sorted(set(range(expected)) - found.keys())
    surplus = sorted(found.keys() - set(range(expected)))
    problems = {"missing": missing, "there more than once": twice, f"beyond the {expected:,} of the test set": surplus}
    raise_all(
        f"{name}: {len(numbers):,} sentences are {what} (numbers {', '.join(map(str, numbers[:5]))}"
        f"{', …' if len(numbers) > 5 else ''}, from 0); expected the whole output of one fairseq-generate: run it again"
        for what, numbers in problems.items()
        if numbers
    )
    return [found[number] for number in range(expected)]


def sentences_per_second(*outputs: Path) -> float:
    """What fairseq-generate says at its end: the time in the generator, without loading and printing.

    Args:
        outputs: its standard output and error; on which of them it says it depends on what else is installed.

    Raises:
        UserError: none of them says it.
    """
    speed = [match[2] for path in outputs for line in _lines(path) if (match := _SPEED.search(line)) is not None]
    if not speed:
        names = ", ".join(map(str, outputs))
        raise UserError(f"{names}: no number of sentences a second; expected the whole output of fairseq-generate")
    return float(speed[-1])


def _lines(path: Path) -> list[str]:
    """Split at newlines alone: a translation may hold a carriage return or one of Unicode's line separators."""
    try:
        return path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); expected UTF-8 text") from error


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 on bad input, 2 for wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", required=True, type=Path, metavar="FILE", help="fairseq-generate's output")
    parser.add_argument("--like", required=True, type=Path, metavar="FILE", help="a text of as many lines")
    parser.add_argument("--output", required=True, metavar="FILE")
    args = parser.parse_args(argv)
    try:
        text = translations(_lines(args.log), len(_lines(args.like)), str(args.log))
        with atomic_output(args.output) as stream:
            stream.write("".join(f"{line}\n" for line in text).encode())
    except UserError as error:
        print(f"hypotheses.py: error: {error}", file=sys.stderr)
        return 1
    print(f"{args.output}: {len(text):,} lines, {sum(not line for line in text):,} of them empty")
    return 0


if __name__ == "__main__":
    sys.exit(main())

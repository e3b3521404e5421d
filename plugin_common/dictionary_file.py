"""``dict.txt``: fairseq's list of symbols and counts, without the four symbols that fairseq adds by itself."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from plugin_common.errors import UserError, raise_all

BOS, PAD, EOS, UNK, MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"
FAIRSEQ_SYMBOLS = (BOS, PAD, EOS, UNK)
"""Symbols 0 to 3 of every ``fairseq.data.Dictionary``; ``dict.txt`` starts with symbol 4."""

SHOWN_PROBLEMS = 5


def is_usable_symbol(symbol: str) -> bool:
    """Whether a symbol survives in token text, which fairseq splits at whatever Python counts as white space."""
    return bool(symbol) and not any(character.isspace() for character in symbol)


def write_dictionary(path: Path, entries: Iterable[tuple[str, int]]) -> None:
    """Write ``symbol count`` lines, the first of them for symbol 4."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(f"{symbol} {count}\n" for symbol, count in entries)


def read_dictionary(path: Path) -> list[tuple[str, int]]:
    """The ``(symbol, count)`` pairs of a ``dict.txt``: entry i is symbol i + 4.

    Raises:
        UserError: the file is missing, is no UTF-8, or has malformed or repeated entries (line numbers are named).
    """
    try:
        text = path.read_text(encoding="utf-8", errors="strict")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; expected fairseq's `symbol count` lines") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8; write the file again with `nat prepare-pmlm`") from error
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    entries, problems = _parse_lines(lines)
    shown = [f"{path}, {problem}" for problem in problems[:SHOWN_PROBLEMS]]
    if len(problems) > SHOWN_PROBLEMS:
        shown.append(f"{path}: {len(problems) - SHOWN_PROBLEMS} more lines like these")
    raise_all(shown)
    return entries


def _parse_lines(lines: Sequence[str]) -> tuple[list[tuple[str, int]], list[str]]:
    entries: list[tuple[str, int]] = []
    problems: list[str] = []
    line_of = dict.fromkeys(FAIRSEQ_SYMBOLS, 0)
    for number, line in enumerate(lines, start=1):
        symbol, _, count = line.rpartition(" ")
        if not is_usable_symbol(symbol) or not (count.isascii() and count.isdigit()):
            problems.append(f"line {number}: expected `symbol count`, found {line!r}")
        elif symbol in FAIRSEQ_SYMBOLS:
            problems.append(f"line {number}: {symbol} is added by fairseq itself and must not be listed")
        elif symbol in line_of:
            problems.append(f"line {number}: {symbol!r} stands in line {line_of[symbol]} already")
        else:
            line_of[symbol] = number
            entries.append((symbol, int(count)))
    return entries, problems

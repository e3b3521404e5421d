"""Markdown of reports, in which nothing of a text that is shown works as Markdown or HTML."""

import re
from collections.abc import Iterable, Mapping, Sequence

_TICKS = re.compile("`+")
_BAR, _ESCAPED_BAR = re.compile(r"(?<!\\)((?:\\\\)*)\|"), r"\1\\|"
_SPECIAL = re.compile(r"([\\`*_\[\]<>&|#])")


def table(head: Sequence[object], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """A table; columns after the first ``left`` are set to the right. Cells are Markdown; ``|`` in them is escaped."""
    lines = [_row(head), "|" + "---|" * left + "---:|" * (len(head) - left), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(_BAR.sub(_ESCAPED_BAR, str(cell)) for cell in cells)} |"


def code_span(text: str) -> str:
    """A text on one line, as it stands but for its white space and NUL characters."""
    shown = " ".join(text.replace("\0", " ").split())
    longest = max(map(len, _TICKS.findall(shown)), default=0)
    ticks = "`" * (longest + 1)
    edge = " " if longest or not shown else ""
    return f"{ticks}{edge}{shown}{edge}{ticks}"


def code_block(text: str) -> list[str]:
    """The lines of a fenced block that shows the text as it is."""
    fence = "`" * max(3, 1 + max(map(len, _TICKS.findall(text)), default=0))
    return [f"{fence}text", *text.split("\n"), fence]


def plain(text: str) -> str:
    """A name (of a model, say) in running text or in a table."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def listed(counts: Mapping[str, int]) -> str:
    """``stop 12, length 3``."""
    return ", ".join(f"{plain(name)} {count:,}" for name, count in counts.items())

"""Read what a judge said: a rating, a winner or an Arena-Hard label. What cannot be read is never guessed."""

import re
from collections.abc import Sequence
from typing import Literal

Winner = Literal["A", "B", "tie", "error"]

UNRATED = -1.0
"""FastChat's mark of a judgment without a rating."""

HIGHEST_RATING = 10.0
STRONG = 3
"""How often a strong verdict (``>>``) counts in Arena-Hard."""

LABELS: dict[str, tuple[float, int]] = {
    "A>>B": (1.0, STRONG),
    "A>B": (1.0, 1),
    "A=B": (0.5, 1),
    "B=A": (0.5, 1),
    "B>A": (0.0, 1),
    "B>>A": (0.0, STRONG),
    "A<<B": (0.0, STRONG),
    "A<B": (0.0, 1),
    "B<A": (1.0, 1),
    "B<<A": (1.0, STRONG),
}
"""Arena-Hard's label → (what assistant A gets of the point, weight)."""

_RATING = re.compile(r"\[\[(\d+(?:\.\d*)?)\]\]")
_LOOSE_RATING = re.compile(r"\[(\d+(?:\.\d*)?)\]")
_WINNERS: dict[str, Winner] = {"[[A]]": "A", "[[B]]": "B", "[[C]]": "tie"}


def rating(judgment: str) -> float:
    """The first ``[[7]]`` in a judgment, or without one the first ``[7]`` (as FastChat reads it), 0 to 10; else -1."""
    found = _RATING.search(judgment) or _LOOSE_RATING.search(judgment)
    if found is None or not float(found[1]) <= HIGHEST_RATING:
        return UNRATED
    return float(found[1])


def winner(judgment: str) -> Winner:
    """``[[A]]``, ``[[B]]``, or ``[[C]]`` for a tie; ``error`` for none of them or several different ones."""
    said = [meant for label, meant in _WINNERS.items() if label in judgment]
    return said[0] if len(said) == 1 else "error"


def label(judgment: str, patterns: Sequence[re.Pattern[str]]) -> str | None:
    """Arena-Hard's label in a judgment: the last match of the first pattern that matches; None if it is no label.

    Args:
        judgment: read in capitals, as arena-hard-auto does.
        patterns: each with one group, the label.
    """
    text = judgment.upper()
    for pattern in patterns:
        found = [match for match in pattern.findall(text) if match]
        if found:
            last = found[-1].strip()
            return last if last in LABELS else None
    return None

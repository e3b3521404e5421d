"""How much of a text stands in another one already, and how much a text repeats itself; counted in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from nid_plugin.controls.text_measures import copied_share, distinct_share

COPY_WORDS = 8
"""Runs of so many words in common are taken for copied: fewer recur by chance in texts on one matter."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What of a text stands in a source.

    Attributes:
        share: of the text's 8-grams, those that the source has; None where the text has fewer than 8 words.
        longest: words of the longest run in common; 0 where it is shorter than 8.
    """

    share: float | None
    longest: int


def copied(words: Sequence[str], source: Sequence[str]) -> Copied:
    """What of a text stands in ``source``; both as ``normalised_words`` gives them."""
    share = copied_share(words, source, COPY_WORDS)
    return Copied(share, longest_common_run(words, source) if share else 0)


def longest_common_run(words: Sequence[str], source: Sequence[str]) -> int:
    """Words of the longest run that both have; 0 for none.

    Each start is tried only with runs longer than the best so far; the search itself is that of strings.
    """
    text = f" {' '.join(source)} "
    best = 0
    for start in range(len(words)):
        while start + best < len(words) and f" {' '.join(words[start : start + best + 1])} " in text:
            best += 1
    return best


def repeated_share(words: Sequence[str]) -> float | None:
    """The share of a text's 8-grams that it had before; None where it has fewer than 8 words."""
    distinct = distinct_share(words, COPY_WORDS)
    return None if distinct is None else 1 - distinct

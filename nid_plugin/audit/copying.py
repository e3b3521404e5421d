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
    """Words of the longest run that both have; 0 for none. In time and memory proportional to both.

    By a suffix automaton of the source (Blumer et al., 1985): its states stand for sets of runs that end at the same
    places; the words are read through it, and where one does not fit, the run is shortened from its start.
    """
    follow, length, shorter = _suffix_automaton(source)
    best = run = state = 0
    for word in words:
        while state and word not in follow[state]:
            state = shorter[state]
            run = length[state]
        if word in follow[state]:
            state, run = follow[state][word], run + 1
            best = max(best, run)
    return best


def _suffix_automaton(words: Sequence[str]) -> tuple[list[dict[str, int]], list[int], list[int]]:
    """For each state: the next one by word, the length of its longest run, the state of the longest run that is an end
    of all of its runs and stands at more places. State 0 is the empty run.
    """
    follow: list[dict[str, int]] = [{}]
    length, shorter, last = [0], [-1], 0
    for word in words:
        new, state = len(follow), last
        follow.append({})
        length.append(length[last] + 1)
        shorter.append(0)
        while state >= 0 and word not in follow[state]:
            follow[state][word] = new
            state = shorter[state]
        if state >= 0:
            shorter[new] = _split(follow, length, shorter, state, word)
        last = new
    return follow, length, shorter


def _split(follow: list[dict[str, int]], length: list[int], shorter: list[int], state: int, word: str) -> int:
    """The state of the state's longest run and the word after it, taken apart from longer runs that ended alike."""
    there = follow[state][word]
    if length[there] == length[state] + 1:
        return there
    copy = len(follow)
    follow.append(dict(follow[there]))
    length.append(length[state] + 1)
    shorter.append(shorter[there])
    shorter[there] = copy
    while state >= 0 and follow[state].get(word) == there:
        follow[state][word] = copy
        state = shorter[state]
    return copy


def repeated_share(words: Sequence[str]) -> float | None:
    """The share of a text's 8-grams that it had before; None where it has fewer than 8 words."""
    distinct = distinct_share(words, COPY_WORDS)
    return None if distinct is None else 1 - distinct

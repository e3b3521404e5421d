"""Find strings that say nearly the same, exactly and fast: all pairs whose sets of words overlap enough."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

#: Jaccard similarity (words in common ÷ words in either) from which two strings count as near-duplicates. At 0.6 that
#: is one word replaced in strings of four words or more, two in eight or more; one word added to two or more.
NEAR = 0.6


def near_pairs(word_lists: Sequence[Sequence[str]], threshold: float = NEAR) -> Iterator[tuple[int, int]]:
    """Every pair of indices (i < j) whose word sets have a Jaccard similarity of ``threshold`` or more; each pair once.

    Exact, by prefix filtering: with the words of each set in one global order, rarest first, two sets of similarity t
    or more share a word within their first ``n - ceil(t n) + 1`` words (n = the set's size). Only strings that share
    such a word are compared: far fewer than all pairs. Empty sets are near nothing.
    """
    frequency = Counter(word for words in word_lists for word in set(words))
    by_rarity = [sorted(set(words), key=lambda word: (frequency[word], word)) for words in word_lists]
    word_sets = [frozenset(words) for words in by_rarity]
    # By size, so that candidates too small to be near are skipped at the front of each posting list.
    order = sorted(range(len(word_lists)), key=lambda index: len(word_sets[index]))
    postings: dict[str, list[int]] = {}
    first_fit: dict[str, int] = {}
    for index in order:
        size = len(word_sets[index])
        if not size:
            continue
        smallest = _at_least(threshold * size)
        candidates: set[int] = set()
        for word in by_rarity[index][: size - smallest + 1]:
            listed = postings.setdefault(word, [])
            start = first_fit.get(word, 0)
            while start < len(listed) and len(word_sets[listed[start]]) < smallest:
                start += 1
            first_fit[word] = start
            candidates.update(listed[start:])
            listed.append(index)
        for other in candidates:
            common = len(word_sets[index] & word_sets[other])
            if common >= threshold * (size + len(word_sets[other]) - common) - 1e-9:
                yield (other, index) if other < index else (index, other)


def _at_least(value: float) -> int:
    """The smallest whole number not under ``value``, proof against rounding (0.6 · 5 is 3, not 3.0000000000000004)."""
    return math.ceil(value - 1e-9)


class Groups:
    """Disjoint sets of the numbers 0 … count-1 that can be merged (union-find)."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, item: int) -> int:
        """The smallest member of the item's set."""
        root = item
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[item] != root:
            self._parent[item], item = root, self._parent[item]
        return root

    def merge(self, one: int, other: int) -> None:
        """Make one set of the two sets that hold these members."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low

    def members(self) -> list[list[int]]:
        """The sets, each in ascending order, ordered by their smallest members."""
        sets: dict[int, list[int]] = {}
        for item in range(len(self._parent)):
            sets.setdefault(self.find(item), []).append(item)
        return list(sets.values())

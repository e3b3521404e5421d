"""Train, valid and test without a leak: texts that are nearly the same stay on one side.

Two pairs belong together if their sources or their targets, in lower case without digits, punctuation and placeholders,
are equal or differ in one word. Groups (connected pairs) are dealt to the splits as wholes, by a hash, so that the result
depends on the pairs and the seed alone.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence

from nat_plugin.data.catalogues import Pair

Splits = dict[str, list[Pair]]
_NOT_WORD = re.compile(r"[\W\d_]+")
_SHORT = 3  # texts of fewer words are compared as wholes: one word of two is no likeness


def key(text: str) -> str:
    """What two texts must share to count as the same: lower-case words."""
    return _NOT_WORD.sub(" ", text.lower()).strip()


def near_keys(text: str) -> list[str]:
    """Keys of which near-duplicates share one: the whole, and the words with one left out at its place."""
    words = key(text).split()
    whole = " ".join(words)
    if len(words) <= _SHORT:
        return [whole] if whole else []
    holes = [" ".join([*words[:i], "\0", *words[i + 1 :]]) for i in range(len(words))]
    shorter = [" ".join(words[:i] + words[i + 1 :]) for i in (0, len(words) - 1)]
    return [whole, *holes, *shorter]


def split(pairs: Sequence[Pair], sizes: dict[str, int], rest: str, seed: int) -> Splits:
    """Deal the pairs.

    Args:
        pairs: distinct pairs.
        sizes: least number of pairs per held-out split, such as ``{"test": 500, "valid": 500}``; a group is never cut, so
            a split may get a few more. Only groups of at most four pairs are held out: large families of look-alikes say
            little about translation.
        rest: name of the split that gets everything else.
        seed: another seed, another choice.

    Returns:
        the splits by name, each in the order of ``pairs``.
    """
    groups = group(pairs)
    order = sorted(groups, key=lambda members: _hash(pairs[members[0]].source, seed))
    chosen: dict[str, list[int]] = {name: [] for name in (*sizes, rest)}
    for members in order:
        name = next((n for n, size in sizes.items() if len(chosen[n]) < size and len(members) <= 4), rest)
        chosen[name] += members
    return {name: [pairs[i] for i in sorted(indices)] for name, indices in chosen.items()}


def group(pairs: Sequence[Pair]) -> list[list[int]]:
    """Connected near-duplicates as lists of indices, each sorted; singles are groups of one."""
    parent = list(range(len(pairs)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for side in (0, 1):
        first_with: dict[str, int] = {}
        for i, pair in enumerate(pairs):
            for near in near_keys(pair[side]):
                j = first_with.setdefault(near, i)
                a, b = root(i), root(j)
                parent[max(a, b)] = min(a, b)
    groups: dict[int, list[int]] = {}
    for i in range(len(pairs)):
        groups.setdefault(root(i), []).append(i)
    return list(groups.values())


def leaks(splits: Splits) -> list[tuple[str, str, str]]:
    """``(text, split, other split)`` for every source or target whose key stands in two splits; empty if all is well."""
    found = []
    for side in (0, 1):
        seen: dict[str, str] = {}
        for name, pairs in splits.items():
            for text in _texts(pairs, side):
                other = seen.setdefault(key(text), name)
                if other != name:
                    found.append((text, other, name))
    return found


def _texts(pairs: Iterable[Pair], side: int) -> list[str]:
    return [pair[side] for pair in pairs if key(pair[side])]


def _hash(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\n{text}".encode()).hexdigest()

"""Nested subsets of pairs: each holds the smaller ones, and a seed decides them."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from nid_plugin.controls.by_prompt import prompt_key
from nid_plugin.pairs import Pair


@dataclass
class Keys:
    """A number for each pair, drawn by the seed from its prompt: the smallest ones make the subsets."""

    seed: int
    values: array = field(default_factory=lambda: array("Q"))

    def add_all(self, pairs: Iterable[Pair]) -> None:
        """Take a number for each pair: 8 bytes of memory."""
        self.values.extend(prompt_key(pair.prompt, self.seed) for pair in pairs)


@dataclass
class Membership:
    """Tells of each pair, in the order of the file, to which subsets it belongs.

    A subset of ``size`` pairs has those with a key below ``limits[size]``, and of those that have just this key (the
    same prompt) the first ``left[size]``.
    """

    seed: int
    limits: dict[int, int]
    left: dict[int, int]

    def sizes_of(self, pair: Pair) -> list[int]:
        """The sizes of the subsets that the next pair of the file belongs to."""
        key = prompt_key(pair.prompt, self.seed)
        chosen = []
        for size, limit in self.limits.items():
            if key == limit and self.left[size]:
                self.left[size] -= 1
                chosen.append(size)
            elif key < limit:
                chosen.append(size)
        return chosen


def membership(keys: Keys, sizes: Sequence[int]) -> Membership:
    """Which pairs the subsets of these sizes have.

    Whether a pair is in a subset depends on its prompt, the seed and the other prompts, not on the order of the file:
    pairs of another teacher, or the control, with the same prompts give subsets of the same prompts. (Of pairs with the
    same prompt the first in the file come first.)

    Args:
        keys: of all pairs.
        sizes: each from 1 to the number of pairs.
    """
    ordered = sorted(keys.values)
    limits = {size: ordered[size - 1] for size in sizes}
    return Membership(keys.seed, limits, {size: size - bisect_left(ordered, limits[size]) for size in sizes})


def repeated(keys: Keys) -> int:
    """How many pairs have the prompt of another one before them."""
    return len(keys.values) - len(set(keys.values))

"""Split a corpus into train, valid and test so that nothing held out was seen in training, not even nearly."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nat_plugin.data.cleaning import Pair, normal_key
from nat_plugin.data.near_duplicates import NEAR, Groups, near_pairs
from plugin_common.errors import UserError

SIDES = ("train", "valid", "test")


@dataclass(frozen=True)
class Leaks:
    """What two sides of a split share; all zero for a split made here."""

    same_source: int
    same_target: int
    near_duplicate: int

    @property
    def total(self) -> int:
        return self.same_source + self.same_target + self.near_duplicate


def group_pairs(pairs: Sequence[Pair], *, near: float = NEAR) -> list[list[int]]:
    """Indices of the pairs in groups that must stay on one side.

    Two pairs belong together if their sources are equal, or their targets are, but for case, punctuation, digits,
    placeholders and spaces, or if their sources' words overlap by ``near`` or more (Jaccard); and so do pairs that are
    linked by such a chain.
    """
    groups = Groups(len(pairs))
    source_keys = [normal_key(source) for source, _ in pairs]
    target_keys = [normal_key(target) for _, target in pairs]
    for keys in (source_keys, target_keys):
        first: dict[str, int] = {}
        for index, key in enumerate(keys):
            groups.merge(first.setdefault(key, index), index)
    distinct_keys = {key: index for index, key in reversed(list(enumerate(source_keys)))}
    indices = list(distinct_keys.values())
    for one, other in near_pairs([key.split() for key in distinct_keys], near):
        groups.merge(indices[one], indices[other])
    return groups.members()


def split_pairs(
    pairs: Sequence[Pair], *, valid_size: int, test_size: int, seed: int = 1, near: float = NEAR
) -> dict[str, list[Pair]]:
    """``{"train": …, "valid": …, "test": …}``: whole groups of ``group_pairs``, in an order that ``seed`` decides.

    Groups fill test, then valid, up to the sizes asked for (exactly: a group that does not fit is passed over); groups
    larger than a hundredth of a held-out side go to train, so that no theme fills it. The order depends on a hash
    of the seed and the group's strings alone: not on Python's own hashing, nor on the order of the input.

    Raises:
        UserError: there are too few small groups to fill the held-out sides.
    """
    if min(valid_size, test_size) < 0 or valid_size + test_size >= max(len(pairs), 1):
        raise UserError(
            f"cannot hold out {valid_size} + {test_size} of {len(pairs)} pairs: give smaller sizes for valid and test"
        )
    ranked = sorted((_rank(seed, [pairs[index] for index in group]), group) for group in group_pairs(pairs, near=near))
    sides: dict[str, list[Pair]] = {side: [] for side in SIDES}
    room = {"test": test_size, "valid": valid_size}
    for _, group in ranked:
        fits = (side for side, size in room.items() if _fits(len(group), len(sides[side]), size))
        sides[next(fits, "train")] += [pairs[index] for index in group]
    for side, size in room.items():
        if len(sides[side]) < size:
            raise UserError(
                f"{side}: only {len(sides[side])} of {size} pairs could be held out with no near-duplicate in train; "
                "give smaller sizes for valid and test, or more text"
            )
    return sides


def find_leaks(sides: Mapping[str, Sequence[Pair]], *, near: float = NEAR) -> Leaks:
    """Count what a split's sides share: strings (sources, targets) found on two sides, and near-duplicate sources.

    Strings are compared by ``normal_key``. A near-duplicate counts once for each pair of sources on different sides.
    """
    by_source: dict[str, set[str]] = {}
    by_target: dict[str, set[str]] = {}
    for side, pairs in sides.items():
        for source, target in pairs:
            by_source.setdefault(normal_key(source), set()).add(side)
            by_target.setdefault(normal_key(target), set()).add(side)
    keys = list(by_source)
    near_count = sum(
        1
        for one, other in near_pairs([key.split() for key in keys], near)
        if len(by_source[keys[one]] | by_source[keys[other]]) > 1
    )
    same_source = sum(1 for found in by_source.values() if len(found) > 1)
    return Leaks(same_source, sum(1 for found in by_target.values() if len(found) > 1), near_count)


def _fits(group_size: int, filled: int, size: int) -> bool:
    return filled + group_size <= size and group_size <= max(2, size // 100)


def _rank(seed: int, members: Sequence[Pair]) -> bytes:
    """A group's place in the draw; the same whatever order its members came in."""
    text = "\n".join(sorted(f"{source}\t{target}" for source, target in members))
    return hashlib.blake2b(f"{seed}\n{text}".encode(), digest_size=16).digest()

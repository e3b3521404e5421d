from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_plugin.data.near_duplicates import Groups, near_pairs

word_lists = st.lists(st.lists(st.sampled_from("abcdefg"), max_size=9), max_size=14)


@given(word_lists, st.sampled_from([0.25, 0.5, 0.6, 2 / 3, 0.8, 1.0]))
def test_finds_exactly_what_comparing_all_pairs_finds(lists: list[list[str]], threshold: float) -> None:
    limit = Fraction(threshold).limit_denominator(100)
    expected = set()
    for (i, one), (j, other) in combinations(enumerate(map(set, lists)), 2):
        if one and other and Fraction(len(one & other), len(one | other)) >= limit:
            expected.add((i, j))
    found = list(near_pairs(lists, threshold))
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("open the new file", "open the old file", True),  # one of four replaced: 3/5
        ("open a file", "close a file", False),  # one of three: 2/4
        ("add page", "add new page", True),  # one added to two: 2/3
        ("page", "new page", False),
    ],
)
def test_the_default_is_one_word_in_four(one: str, other: str, near: bool) -> None:
    assert bool(list(near_pairs([one.split(), other.split()]))) is near


def test_groups() -> None:
    groups = Groups(6)
    groups.merge(4, 2)
    groups.merge(5, 4)
    groups.merge(0, 1)
    assert groups.members() == [[0, 1], [2, 4, 5], [3]]
    assert groups.find(5) == 2

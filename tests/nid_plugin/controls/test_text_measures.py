"""Overlap, variety and copying, counted by hand."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nid_plugin.controls.text_measures import copied_share, distinct_share, normalised_words, overlap_f1


def split(text: str) -> list[str]:
    return text.split()


WORDS = st.lists(st.sampled_from("abc"), max_size=8)


def test_words() -> None:
    assert normalised_words("The user's  file_name — «Straße», 3.5!") == [
        "the", "user's", "file", "name", "strasse", "3", "5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other"),
    [("Don't stop", "don’t, STOP!"), ("caf\u00e9 Ma\u00dfe", "cafe\u0301 MASSE"), ("３ x", "３\u3000x")],
)
def test_words_that_are_written_in_two_ways(one: str, other: str) -> None:
    assert normalised_words(one) == normalised_words(other) != []


def test_words_of_other_scripts() -> None:
    assert normalised_words("今天，天气") == list("今天天气")
    assert normalised_words("हिन्दी में") == ["हिन्दी", "में"]


@given(st.text(st.characters(codec="ascii")))
def test_words_of_ascii_are_those_of_the_general_rule(text: str) -> None:
    assert [*normalised_words(text), "é"] == normalised_words(f"{text} é")


def test_overlap_by_hand() -> None:
    one, other = split("the cat sat on the mat"), split("the the dog sat")
    assert overlap_f1(one, other, 1) == pytest.approx(2 * 3 / (6 + 4))  # the, the, sat
    assert overlap_f1(one, other, 2) == 0
    assert overlap_f1(split("a b c"), split("x a b"), 2) == pytest.approx(2 * 1 / (2 + 2))
    assert overlap_f1(["a"], ["a"], 2) is None


@given(WORDS, WORDS, st.integers(1, 3))
def test_overlap_is_the_harmonic_mean_of_precision_and_recall(one: list[str], other: list[str], n: int) -> None:
    grams = [[tuple(words[i : i + n]) for i in range(len(words) - n + 1)] for words in (one, other)]
    if not all(grams):
        assert overlap_f1(one, other, n) is None
        return
    left = list(grams[1])
    common = 0
    for gram in grams[0]:
        if gram in left:
            left.remove(gram)
            common += 1
    precision, recall = Fraction(common, len(grams[0])), Fraction(common, len(grams[1]))
    expected = 2 * precision * recall / (precision + recall) if common else 0
    assert overlap_f1(one, other, n) == pytest.approx(float(expected))
    assert overlap_f1(one, one, n) == 1


def test_distinct_and_copied_by_hand() -> None:
    assert distinct_share(split("a b a b"), 1) == 0.5
    assert distinct_share(split("a b a b"), 2) == pytest.approx(2 / 3)
    assert distinct_share(["a"], 2) is None
    assert copied_share(split("x b c d"), split("a b c d e"), 2) == pytest.approx(2 / 3)
    assert copied_share(split("b c b c"), split("a b c"), 2) == pytest.approx(2 / 3)
    assert copied_share(["b"], ["b"], 2) is None

"""How judgments are read."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nid_plugin.evaluation.verdicts import LABELS, UNRATED, label, rating, winner

PATTERNS = [re.compile(r"\[\[([AB<>=]+)\]\]"), re.compile(r"\[([AB<>=]+)\]")]


@pytest.mark.parametrize(
    ("judgment", "score"),
    [
        ("Rating: [[7]]", 7),
        ("[[7.5]] and later [[2]]", 7.5),
        ("It is [3] but [[10]]", 10),
        ("Rating: [6]", 6),
        ("Rating: [[11]]", UNRATED),
        ("Rating: [[-3]]", UNRATED),
        ("Rating: 7", UNRATED),
        ("[[rating]]", UNRATED),
        ("", UNRATED),
    ],
)
def test_ratings(judgment: str, score: float) -> None:
    assert rating(judgment) == score


@pytest.mark.parametrize(
    ("judgment", "said"),
    [
        ("so [[A]]", "A"),
        ("[[B]]\n", "B"),
        ("[[C]]", "tie"),
        ("[[A]] [[A]]", "A"),
        ("[[A]] or [[B]]", "error"),
        ("[A]", "error"),
        ("", "error"),
    ],
)
def test_winners(judgment: str, said: str) -> None:
    assert winner(judgment) == said


@pytest.mark.parametrize(
    ("judgment", "said"),
    [
        ("My final verdict is: [[A>>B]]", "A>>B"),
        ("first [[A>B]], no: [[B>A]]", "B>A"),
        ("[[a=b]]", "A=B"),
        ("only [B>>A]", "B>>A"),
        ("[[A=B]] then [B>A]", "A=B"),  # the first pattern that matches decides
        ("[[A>>>B]]", None),
        ("[[AB]]", None),
        ("none", None),
    ],
)
def test_labels(judgment: str, said: str | None) -> None:
    assert label(judgment, PATTERNS) == said


def test_a_label_and_its_mirror_share_the_point() -> None:
    swap = str.maketrans("AB", "BA")
    for name, (points, weight) in LABELS.items():
        mirrored = LABELS[name.translate(swap)]
        assert mirrored == (1 - points, weight)


@given(st.text(alphabet="[]AB<>=1.", max_size=60))
def test_any_text_is_read(text: str) -> None:
    assert -1 <= rating(text) <= 10
    assert winner(text) in ("A", "B", "tie", "error")
    assert label(text, PATTERNS) in {None, *LABELS}

"""What is kept of pairs that are too long."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nid_plugin.truncation import Truncation, truncated
from plugin_common.errors import UserError


def _one_by_one(prompt: int, completion: int, head: int, limit: int) -> tuple[int, int]:
    """The rule, a token at a time."""
    kept, answer = prompt, completion
    while kept + answer > limit and kept > min(prompt, max(limit // 4, head + 1)):
        kept -= 1
    while kept + answer > limit:
        answer -= 1
    return kept - head, answer


@given(data=st.data(), limit=st.integers(2, 60), head=st.integers(0, 10))
def test_tokens_go_one_by_one(data: st.DataObject, limit: int, head: int) -> None:
    head = min(head, limit - 2)
    count = data.draw(st.integers(1, 5))
    prompts = data.draw(st.lists(st.integers(head + 1, 80), min_size=count, max_size=count))
    completions = data.draw(st.lists(st.integers(1, 80), min_size=count, max_size=count))
    expected = [_one_by_one(p, c, head, limit) for p, c in zip(prompts, completions, strict=True)]
    after_head, kept = truncated(np.array(prompts), np.array(completions), np.full(count, head), limit)
    assert list(zip(after_head.tolist(), kept.tolist(), strict=True)) == expected
    assert (kept >= 1).all()
    assert (after_head >= 1).all()
    assert (after_head + head + kept <= limit).all()


def test_single_numbers() -> None:
    assert tuple(map(int, truncated(90, 20, 1, 100))) == (79, 20)  # the prompt's beginning
    assert tuple(map(int, truncated(90, 200, 1, 100))) == (24, 75)  # a quarter stays prompt
    assert tuple(map(int, truncated(10, 200, 1, 100))) == (9, 90)  # all of a short one
    assert tuple(map(int, truncated(90, 10, 1, 100))) == (89, 10)


def test_a_limit_without_room() -> None:
    with pytest.raises(UserError, match=r"`--tokens-per-pair 6` leaves no room: .* takes 5 tokens.*give at least 7"):
        truncated(np.array([9, 9]), np.array([3, 3]), np.array([1, 5]), 6)


def test_what_is_lost_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lengths = np.array([10, 90, 90]), np.array([5, 20, 200]), np.array([1, 1, 1])
    prompts, completions = Truncation(100).kept(*lengths, "train")
    assert (prompts.tolist(), completions.tolist()) == ([10, 80, 25], [5, 20, 75])
    assert (
        "train: 2 of 3 pairs exceed 100 tokens: 2 prompts lose their beginning (75 tokens), 1 completions their end "
        "(125 tokens)"
    ) in caplog.text
    Truncation(300).kept(*lengths, "valid")
    assert "valid: none of 3 pairs exceeds 300 tokens" in caplog.text


def test_no_limit() -> None:
    prompts, completions = Truncation(None).kept(np.array([7]), np.array([9]), np.array([1]), "train")
    assert (prompts.tolist(), completions.tolist()) == ([7], [9])

"""The control: the document's own second half."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nid_plugin.controls.by_prompt import by_prompt
from nid_plugin.controls.second_half import ControlCounts, control_pair, controls_like, first_words
from nid_plugin.documents.words import words
from nid_plugin.halving import Half
from nid_plugin.pairs import Pair
from plugin_common.errors import UserError

TEXT = st.text(st.sampled_from("ab .\n\t\u00a0é\u2003字"), min_size=1, max_size=30)


def half(prompt: str, second_half: str, name: str = "0") -> Half:
    return Half(name * 32, prompt, second_half, f"file:{name}")


def teacher(prompt: str, completion: str = "x") -> Pair:
    return Pair("id of " + prompt, prompt, completion, "elsewhere", "gpt", "stop")


def like(pairs: list[Pair], halves: list[Half], *, match_length: bool = False) -> tuple[list[Pair], ControlCounts]:
    counts = ControlCounts()
    with by_prompt(halves, Half, Path("/tmp")) as found:
        return list(controls_like(pairs, found, counts, match_length=match_length)), counts


@given(TEXT, TEXT)
def test_prompt_and_completion_are_the_document(prompt: str, second_half: str) -> None:
    pair = control_pair(half(prompt, second_half))
    assert pair.prompt + pair.completion == prompt + second_half
    assert (pair.teacher, pair.finish_reason, pair.usage) == ("document", "document", {})
    assert (pair.id, pair.source) == ("0" * 32, "file:0")


@given(TEXT, st.integers(1, 12))
def test_first_words(text: str, count: int) -> None:
    cut = first_words(text, count)
    assert text.startswith(cut)
    assert words(text)[:count] == words(cut)
    assert (cut == text) == (len(words(text)) <= count)
    if cut != text:
        assert cut == cut.rstrip()


def test_first_words_keeps_white_space() -> None:
    assert first_words(" one\n\n two  three", 2) == " one\n\n two"
    assert first_words("one two\n", 2) == "one two\n"
    assert first_words("今天 天气", 3) == "今天 天"
    with pytest.raises(ValueError, match="at least one word"):
        first_words("one", 0)


def test_the_documents_of_the_teacher_in_its_order() -> None:
    pairs, counts = like(
        [teacher("C"), teacher("gone"), teacher("A")], [half("A", "a", "1"), half("B", "b", "2"), half("C", "c", "3")]
    )
    assert [(pair.prompt, pair.completion) for pair in pairs] == [("C", "c"), ("A", "a")]
    assert (counts.pairs, counts.without_document) == (2, 1)


def test_documents_with_the_same_first_half_keep_apart() -> None:
    pairs, _ = like([teacher("A"), teacher("A")], [half("A", "first", "1"), half("A", "second", "2")])
    assert [(pair.id[0], pair.completion) for pair in pairs] == [("1", "first"), ("2", "second")]


def test_as_many_words_as_the_teacher() -> None:
    halves = [half("A", " one two three\n", "1"), half("B", "one", "2"), half("C", "one two ", "3")]
    pairs, counts = like([teacher("A", "a b"), teacher("B", "a b c"), teacher("C", "a b")], halves, match_length=True)
    assert [pair.completion for pair in pairs] == [" one two", "one", "one two "]
    assert (counts.cut, counts.shorter) == (1, 1)
    assert (counts.words, counts.teacher_words) == (5, 7)
    assert [pair.finish_reason for pair in pairs] == ["document"] * 3


def test_no_document_in_common() -> None:
    with pytest.raises(UserError, match=r"none of its 2 prompts .* \(halves.jsonl in the ledger's folder\)"):
        like([teacher("A"), teacher("B")], [half("C", "c")])

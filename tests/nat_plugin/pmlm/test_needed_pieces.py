"""Which pieces stay: characters in all their forms, parents of merges, compositions."""

from typing import Any

import pytest

from nat_plugin.pmlm.needed_pieces import (
    characters_of,
    check_model_type,
    compositions,
    is_byte_level,
    needed_pieces,
    with_merge_parents,
)
from plugin_common.errors import UserError


def needed(tokenizer: dict[str, Any], vocabulary: list[str], occurring: list[str], characters: str = "") -> set[str]:
    return needed_pieces(tokenizer, vocabulary, occurring, occurring, characters)


WORDPIECE = {"model": {"type": "WordPiece", "continuing_subword_prefix": "##"}}
UNIGRAM = {"model": {"type": "Unigram"}}


def test_wordpiece_keeps_a_character_at_the_beginning_and_inside_of_words() -> None:
    vocabulary = ["a", "##a", "b", "##b", "ab", "##ab", "c", "##c"]
    assert needed(WORDPIECE, vocabulary, ["##ab"]) == {"##ab", "a", "##a", "b", "##b"}


def test_wordpiece_form_that_the_source_lacks_is_not_invented() -> None:
    assert needed(WORDPIECE, ["ab", "a", "##b"], ["ab"]) == {"ab", "a", "##b"}


def test_prefix_itself_as_text_is_read_as_characters() -> None:
    assert characters_of("##", "##", "") == "##"
    assert characters_of("###", "##", "") == "#"
    assert characters_of("ab</w>", "", "</w>") == "ab"


def test_unigram_keeps_the_word_boundary_and_what_spells_control_symbols() -> None:
    vocabulary = ["▁", "▁ab", "a", "b", "c", "<", ">", "s", "/", "p", "d", "u", "n", "k", "m", "x"]
    assert needed(UNIGRAM, vocabulary, ["▁ab"]) == set(vocabulary) - {"c", "x"}


def test_byte_fallback_pieces_stay() -> None:
    tokenizer = {"model": {"type": "Unigram", "byte_fallback": True}}
    assert {"<0x00>", "<0xFF>"} <= needed(tokenizer, ["a", "<0x00>", "<0xFF>"], ["a"])


def test_characters_beside_those_of_pieces_stay() -> None:
    assert needed(WORDPIECE, ["a", "##a", "é", "##é", "x"], ["a"], "é ") == {"a", "##a", "é", "##é"}


def test_rare_pieces_go_but_their_characters_stay() -> None:
    assert needed_pieces(WORDPIECE, ["a", "b", "ab"], ["ab"], [], "") == {"a", "b"}


@pytest.mark.parametrize(
    ("parts", "whole"), [("e\u0301", "é"), ("\u1112\u1161", "하"), ("하\u11ab", "한"), ("\u1112\u1161\u11ab", "하한")]
)
def test_compositions_of_kept_characters(parts: str, whole: str) -> None:
    """NFKC may put them together although the corpus holds them apart."""
    assert compositions(set(parts), ["é", "è", "하", "한", "가", "e"]) >= set(whole)
    assert not compositions(set(parts), ["é", "è", "하", "한", "가", "e"]) & {"è", "가"}


def test_compositions_are_among_the_needed_pieces() -> None:
    assert needed(UNIGRAM, ["▁", "e", "\u0301", "é", "è"], ["▁", "e", "\u0301"]) == {"▁", "e", "\u0301", "é"}


def test_parents_of_merges_stay_and_other_pieces_do_not() -> None:
    model = {"type": "BPE", "merges": [["a", "b"], ["c", "d"], ["ab", "c"], ["abc", "d"]]}
    assert with_merge_parents(model, ["abc"]) == {"abc", "ab", "a", "b", "c"}


def test_all_ways_to_one_piece_stay() -> None:
    model = {"type": "BPE", "merges": [["a", "b"], ["b", "c"], ["ab", "c"], ["a", "bc"]]}
    assert with_merge_parents(model, ["abc"]) == {"abc", "ab", "bc", "a", "b", "c"}


def test_merges_of_marked_continuations() -> None:
    model = {"type": "BPE", "continuing_subword_prefix": "##", "merges": [["a", "##b"], ["ab", "##c"]]}
    assert with_merge_parents(model, ["abc"]) == {"abc", "ab", "a", "##b", "##c"}


@pytest.mark.parametrize(
    ("pre_tokenizer", "expected"),
    [
        (None, False),
        ({"type": "ByteLevel"}, True),
        ({"type": "Sequence", "pretokenizers": [{"type": "Split"}, {"type": "ByteLevel"}]}, True),
        ({"type": "Sequence", "pretokenizers": [{"type": "Split"}]}, False),
    ],
)
def test_byte_level_models_are_recognised(pre_tokenizer: dict | None, expected: bool) -> None:
    assert is_byte_level({"model": {"type": "BPE"}, "pre_tokenizer": pre_tokenizer}) is expected


def test_unknown_subword_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"somewhere: .* 'WordLevel'; supported are Unigram, WordPiece, BPE"):
        check_model_type({"model": {"type": "WordLevel"}}, "somewhere")

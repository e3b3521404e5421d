"""Texts in one line, and what stands for fairseq's dictionary."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from nid_plugin.tasks.token_vocabulary import TokenVocabulary, escaped, unescaped


@given(st.text(alphabet=st.sampled_from("ab\\nr\n\r é")))
def test_escaped_text_is_one_line_and_comes_back(text: str) -> None:
    line = escaped(text)
    assert "\n" not in line
    assert "\r" not in line
    assert unescaped(line) == text


def test_a_lone_backslash_stays() -> None:
    assert unescaped(r"C:\temp") == r"C:\temp"
    assert unescaped(r"one\ntwo") == "one\ntwo"


def test_padding_and_ends_are_left_out_of_strings() -> None:
    vocabulary = TokenVocabulary()
    vocabulary.bind(10, 2, text_of=lambda ids: " ".join(map(str, ids)), ids_of=lambda text: [len(text)])
    assert len(vocabulary) == 11
    assert vocabulary.pad() == 10
    assert vocabulary.string(torch.tensor([3, 4, 2, 10]), extra_symbols_to_ignore={2}) == "3 4"
    assert vocabulary.encode_line(r"a\nb").tolist() == [3]

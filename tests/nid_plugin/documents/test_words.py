import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from nid_plugin.documents.words import has_words, load_tokenizer, token_count, words
from plugin_common.errors import UserError

TEXTS = st.text(st.sampled_from("ab  \n\t\u3000漢字かなไทยé\u0301,.")) | st.text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One two,  three.\n", ["One", "two,", "three."]),
        ("我们去 Berlin。", ["我", "们", "去", "Berlin。"]),
        ("カタ ab漢cd", ["カ", "タ", "ab", "漢", "cd"]),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


@settings(deadline=None)
@given(TEXTS)
def test_words_lose_nothing_but_white_space(text):
    assert "".join(words(text)) == "".join(text.split())


@settings(deadline=None)
@given(TEXTS | st.integers(0, 60).map(lambda count: "word " * count), st.integers(0, 60))
def test_has_words_counts_as_words_does(text, count):
    assert has_words(text, count) == (len(words(text)) >= count)


@pytest.fixture
def tokenizer_folder(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_tokens_of_a_folder_and_of_a_file(tokenizer_folder):
    for name in (tokenizer_folder, tokenizer_folder / "tokenizer.json"):
        assert token_count(load_tokenizer(str(name)), "a b a z") == 4


def test_a_folder_without_tokenizer(tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer\.json there.*save_pretrained"):
        load_tokenizer(str(tmp_path))


def test_a_broken_tokenizer(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json: no tokenizer of the library"):
        load_tokenizer(str(tmp_path))


def test_a_name_that_the_hub_does_not_give(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="neither a folder with a tokenizer"):
        load_tokenizer("nobody/nothing")

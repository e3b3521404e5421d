import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_plugin.data.moses_text import (
    caseless_moses_tokens,
    close_up_punctuation,
    fold_space,
    moses_token_bounds,
    moses_tokens,
    normalise_punctuation,
    normalise_romanian,
    remove_non_printing,
    remove_romanian_diacritics,
    split_compounds,
    straighten_apostrophes,
)

WORDS = "Dr. Das ist gut. Mr. Smith U.S.A. usw. 3.5 etc. — Gut! nein, ja: (so) No. 5 \"Ende.\" I'm it's 'n"
SENTENCES = st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join)


def test_moses_tokens_by_language():
    assert moses_tokens('I don\'t say "3,5 %".', "en") == ["I", "don", "'t", "say", '"', "3,5", "%", '"', "."]
    assert " ".join(moses_tokens("wir haben's, z.B. Dr. Hahn.", "de")) == "wir haben ' s , z.B. Dr. Hahn ."


def test_final_stop_is_a_token_of_its_own_whatever_stands_before():
    assert moses_tokens("in the U.S.A.", "en") == ["in", "the", "U.S.A", "."]
    assert moses_tokens("dieser Art. ", "de") == ["dieser", "Art", "."]
    assert moses_tokens("and so on...", "en")[-1] == "..."
    assert moses_tokens("", "en") == []


def test_hyphens_are_split_on_demand():
    assert moses_tokens("a well-known one", "en", split_hyphens=True) == ["a", "well", "@-@", "known", "one"]


@pytest.mark.parametrize("language", ["en", "de", "ro"])
@given(text=SENTENCES)
def test_caseless_tokens_do_not_depend_on_case(language, text):
    tokens = caseless_moses_tokens(text, language)
    assert tokens == caseless_moses_tokens(text.lower(), language)
    assert "".join(tokens) == "".join(text.lower().split())


def test_caseless_tokens_find_the_ends_of_sentences_and_abbreviations():
    """Expected: what Moses makes of the same text with its capitals, in lower case."""
    for text, language in (
        ("It is that beautiful. It is yours to protect.", "en"),
        ("Ask Mr. Smith. He knows. No. 5 is next.", "en"),
        ("Das sagt Dr. Hahn. Wer sonst? In den U.S.A. Niemand.", "de"),
    ):
        assert caseless_moses_tokens(text.lower(), language) == " ".join(moses_tokens(text, language)).lower().split()


@pytest.mark.parametrize("split_hyphens", [False, True])
@pytest.mark.parametrize("language", ["en", "de", "ro"])
@given(text=SENTENCES | st.text(max_size=40) | st.text("aZ9ßș.,'’-&|<\" %–", max_size=40))
def test_bounds_hold(language, split_hyphens, text):
    text = fold_space(remove_non_printing(text))
    low, high = moses_token_bounds(text)
    assert low <= len(moses_tokens(text, language, split_hyphens=split_hyphens)) <= high


def test_compounds_as_the_script_of_the_literature_splits_them():
    assert split_compounds("rich-text format") == "rich ##AT##-##AT## text format"
    assert split_compounds("a-b-c") == "a ##AT##-##AT## b-c"
    assert split_compounds("und - oder -- -x") == "und - oder -- -x"


def test_punctuation_is_made_uniform():
    assert normalise_punctuation("„Ja“ – sagte er…", "de") == '"Ja" - sagte er...'
    assert normalise_punctuation("It’s « fine » !", "en") == 'It\'s " fine " !'


def test_non_printing_characters_become_spaces():
    assert remove_non_printing("a\u200bb\u00adc\td\ue000e") == "a b c d e"
    assert remove_non_printing("ä\u00a0ș–„") == "ä\u00a0ș–„"


def test_romanian_letters():
    assert normalise_romanian("Ştiinţă şi Țară") == "Știință și Țară"
    assert remove_romanian_diacritics("Ştiință în ţara Âșa: ĂÎ") == "Stiinta in tara Asa: AI"


def test_spaced_punctuation_is_closed_up():
    assert close_up_punctuation("Ja , gut . Und : was ?") == "Ja, gut. Und: was?"
    assert close_up_punctuation("um 5 .30 und , ,x") == "um 5 .30 und, ,x"


def test_apostrophes_and_space():
    assert straighten_apostrophes("it’s") == "it's"
    assert fold_space(" a\u00a0 b\u2028c ") == "a b c"

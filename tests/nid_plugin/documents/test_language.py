import pytest

from nid_plugin.documents.language import other_language_test
from plugin_common.errors import UserError

ENGLISH = "The weather was fine, and so we went down to the river to see whether the boats had come in. "
GERMAN = "Das Wetter war schön, und so gingen wir zum Fluss hinunter, um nach den Booten zu sehen. "


def test_only_what_is_surely_in_another_language():
    is_other = other_language_test("en", 0.95)
    assert not is_other(ENGLISH * 5)
    assert is_other(GERMAN * 5)
    assert not is_other("OK 123")  # too little to be sure
    assert not is_other("1 2 3")


def test_the_middle_of_long_texts_decides():
    assert not other_language_test("en", 0.95)(GERMAN + ENGLISH * 50)


def test_an_unknown_language():
    with pytest.raises(UserError, match=r"--language english: unknown; expected one of .*\ben\b"):
        other_language_test("english", 0.95)

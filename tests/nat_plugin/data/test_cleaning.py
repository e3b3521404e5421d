from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_plugin.data.cleaning import CleaningRules, Drop, clean_pair, clean_pairs, lacks_diacritics, normal_key


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("_Open file %s…", "Datei %s ö_ffnen …", ("Open file {}...", "Datei {} öffnen ...")),
        ("Delete <b>%(name)s</b>?", "<b>%(name)s</b>\nlöschen?", ("Delete {}?", "{} löschen?")),
        ("The “{x}” page", "Die Seite „{x}“", ('The "{}" page', 'Die Seite "{}"')),
        ("Server", "Server", ("Server", "Server")),
        ("%d minute", "%d Minute", ("{} minute", "{} Minute")),
        ("%d minute", "%d minute", ("{} minute", "{} minute")),
    ],
)
def test_kept(source: str, target: str, expected: tuple[str, str]) -> None:
    assert clean_pair(source, target, language="de") == expected


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("translator-credits", "Max Muster", Drop.CREDITS),
        ("Your emails", "max@example.org", Drop.CREDITS),
        ("Open the file", "Datei Ã¶ffnen", Drop.ENCODING),
        ("Open the file", "f?r die Datei", Drop.ENCODING),
        ("Open the file", "Открыть файл", Drop.ENCODING),
        ("Copy <source> now", "Jetzt <source> kopieren", Drop.MARKUP),
        ("Date in %B is wrong", "Datum in %B ist falsch", Drop.FORMAT_CODE),
        ("%d of %d files", "%d Dateien", Drop.PLACEHOLDERS_DIFFER),
        ("drag&drop", "Ziehen und Ablegen", Drop.ACCELERATOR),
        ("%s: %d", "%s: %d", Drop.NO_LETTERS),
        ("A", "B", Drop.NO_LETTERS),
        ("call foo() now", "foo() aufrufen", Drop.CODE),
        ("use --verbose here", "hier --verbose benutzen", Drop.CODE),
        ("Not translated at all", "Not translated at all", Drop.UNTRANSLATED),
        ("word " * 90, "Wort " * 90, Drop.TOO_LONG),
        ("Moderated", "Teilnahmebestätigung durch den Veranstalter erforderlich", Drop.LENGTHS_DIFFER),
    ],
)
def test_dropped_with_its_reason(source: str, target: str, reason: Drop) -> None:
    assert clean_pair(source, target, language="de") is reason


def test_your_emails_within_a_sentence_are_not_credits() -> None:
    assert not isinstance(clean_pair("Your emails were sent.", "Ihre E-Mails wurden gesendet.", language="de"), Drop)


def test_romanian_gets_its_comma_below_and_german_is_left_alone() -> None:
    assert clean_pair("Delete the file", "Şterge fişierul", language="ro") == ("Delete the file", "Șterge fișierul")
    assert clean_pair("Turkish letters", "die Buchstaben ş", language="de") == ("Turkish letters", "die Buchstaben ş")


def test_rules_are_limits() -> None:
    rules = CleaningRules(max_characters=10, identical_words=0)
    assert clean_pair("Server", "Server", language="de", rules=rules) is Drop.UNTRANSLATED
    assert clean_pair("eleven char", "elf Zeichen", language="de", rules=rules) is Drop.TOO_LONG


def test_clean_pairs_counts_what_it_drops() -> None:
    counts: Counter[str] = Counter()
    pairs = [("_Yes", "_Ja"), ("%s", "%s"), ("No", "Nein"), ("1", "1")]
    assert list(clean_pairs(pairs, counts, language="de")) == [("Yes", "Ja"), ("No", "Nein")]
    assert counts == {Drop.NO_LETTERS: 2}


def test_lacks_diacritics() -> None:
    bare = [("x", "Creaza o pagina noua acum")] * 20
    proper = [("x", "Creează o pagină nouă acum")] * 20
    assert lacks_diacritics(bare, language="ro")
    assert not lacks_diacritics(bare[:19], language="ro")
    assert not lacks_diacritics(bare + proper, language="ro")
    assert not lacks_diacritics(bare, language="de")


def test_normal_key() -> None:
    assert normal_key("Delete {} files?") == normal_key("delete 3 FILES") == "delete files"
    assert normal_key("Straße") == normal_key("STRASSE")


@given(st.text(), st.text(), st.sampled_from(["de", "ro"]))
def test_any_text_is_cleaned_once_and_for_all(source: str, target: str, language: str) -> None:
    cleaned = clean_pair(source, target, language=language)
    if not isinstance(cleaned, Drop):
        for side in cleaned:
            assert side == " ".join(side.split())
            assert len(side.splitlines()) == 1
        assert cleaned[0].count("{}") == cleaned[1].count("{}")

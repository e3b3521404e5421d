import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_plugin.data import text_rules


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("_File", "_Datei", ("File", "Datei")),
        ("E_xit", "B_eenden", ("Exit", "Beenden")),
        ("&File", "&Datei", ("File", "Datei")),
        ("Save &As...", "Speichern &unter...", ("Save As...", "Speichern unter...")),
        ("~File", "~Datei", ("File", "Datei")),
        ("Fo~rmat", "Fo~rmat", ("Format", "Format")),
        ("Open (_O)", "Öffnen(&O)", ("Open", "Öffnen")),
        ("Search && Replace", "Suchen && Ersetzen", ("Search & Replace", "Suchen & Ersetzen")),
        ("snake_case", "snake_case", ("snake_case", "snake_case")),
        ("Set max_size here", "max_size setzen", ("Set max_size here", "max_size setzen")),
        ("AT&T", "AT&T", ("AT&T", "AT&T")),
        ("Q&A", "F&A", ("Q&A", "F&A")),
        ("R & D", "F & E", ("R & D", "F & E")),
        ("~5 MB left", "noch ~5 MB", ("~5 MB left", "noch ~5 MB")),
        ("in ~/.config", "in ~/.config", ("in ~/.config", "in ~/.config")),
        ("drag&drop", "Ziehen und Ablegen", None),
        ("drag&drop", "drag&drop", None),
    ],
)
def test_strip_accelerators(source: str, target: str, expected: tuple[str, str] | None) -> None:
    assert text_rules.strip_accelerators(source, target) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Deleted %s of %d", "Deleted {} of {}"),
        ("%(name)s, %(size).2f", "{}, {}"),
        ("%1$s and %2$s", "{} and {}"),
        ("%1 of %2 (%L3)", "{} of {} ({})"),
        ("{name} {0} {} {x:.2f}", "{} {} {} {}"),
        ("{{count}} and ${path} and $HOME", "{} and {} and {}"),
        ("%{user} in %PRODUCTNAME", "{} in {}"),
        ("$(ARG1)", "{}"),
        ("%lu bytes, %5.1f%%", "{} bytes, {}%"),
        ("100% sure", "100% sure"),
        ("a 5% discount", "a 5% discount"),
        ("see https://example.org/a?b=1.", "see {}."),
        ("write to info@example.org!", "write to {}!"),
    ],
)
def test_unify_placeholders(text: str, expected: str) -> None:
    assert text_rules.unify_placeholders(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<b>Bold</b> text", "Bold text"),
        ('<a href="%(url)s">here</a>', "here"),
        ("one<br/>two<p>three</p>", "one two three "),
        ("AT&amp;T &lt; &quot;x&quot;", 'AT&T < "x"'),
        ("&copy that", "&copy that"),
        ("cp <source> <target>", "cp <source> <target>"),
        ("<0>click</0> [1:[2:here]]", "click here"),
        ("3 < 4 > 2", "3 < 4 > 2"),
    ],
)
def test_remove_markup(text: str, expected: str) -> None:
    assert text_rules.remove_markup(text) == expected


def test_fold_space() -> None:
    assert text_rules.fold_space(" a\u00a0b\n\n c\\n \u200bd e\u0301 ✅ ") == "a b c d é"


def test_unify_punctuation() -> None:
    assert text_rules.unify_punctuation("„a“ »b« ‚c‘ `d' it’s…") == "\"a\" \"b\" 'c' 'd' it's..."


def test_comma_below() -> None:
    assert text_rules.comma_below("şţŞŢ șț") == "șțȘȚ șț"


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("Stock label|Add", "Hinzufügen", "Add"),
        ("a|b", "a|c", "a|b"),
        ("_: a comment\nAdd", "Hinzufügen", "Add"),
    ],
)
def test_strip_context_prefix(source: str, target: str, expected: str) -> None:
    assert text_rules.strip_context_prefix(source, target) == expected


@given(st.text())
def test_fold_space_gives_one_line_and_is_done_once(text: str) -> None:
    folded = text_rules.fold_space(text)
    assert text_rules.fold_space(folded) == folded
    assert folded == " ".join(folded.split())


@given(st.text(alphabet="ab &_~", max_size=12), st.text(alphabet="ab &_~", max_size=12))
def test_strip_accelerators_takes_out_marks_and_nothing_else(source: str, target: str) -> None:
    stripped = text_rules.strip_accelerators(source, target)
    if stripped is not None:
        for before, after in zip((source, target), stripped, strict=True):
            assert re.sub("[&_~]", "", after) == re.sub("[&_~]", "", before)

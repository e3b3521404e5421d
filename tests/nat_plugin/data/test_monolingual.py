"""Which lines of running text are kept."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_plugin.data.monolingual import Dropped, TextCollector, cut_at_sentences, looks_like_another, read_corpora


@pytest.mark.parametrize(
    ("language", "line", "reason"),
    [
        ("de", "Zwei Wörter", Dropped.SHORT),
        ("de", "/var/cache/dnf/ sd_bus_open(3)", Dropped.SHORT),
        ("de", "Die alteSeite löschen", Dropped.HELD_OUT),
        ("de", "Mehr dazu in \ufffc und dort", Dropped.INCOMPLETE),
        ("de", "wort" * 200 + " und noch mehr", Dropped.LONG),
        ("de", "a b c 12345 67890 12345 67890", Dropped.LETTERS),
        ("de", "Das ist ein MenÃ¼ mit Fehlern", Dropped.ENCODING),
        ("ro", "Descrie în amãnunt acþiunile sale", Dropped.ENCODING),
        ("de", "This is the text of the page", Dropped.LANGUAGE),
        ("en", "Das ist der Text und nicht mehr", Dropped.LANGUAGE),
        ("de", "Die ALTE   Seite, 27 löschen", Dropped.HELD_OUT),
        ("de", "Zuerst das hier. Die alte Seite löschen!", Dropped.HELD_OUT),
    ],
)
def test_reasons(language: str, line: str, reason: Dropped) -> None:
    collector = TextCollector(language, ["Die alte Seite 3 löschen.", "42", ""])
    collector.add("source", [line])
    assert collector.dropped == {"source": {reason: 1}}
    assert collector.lines() == []


def test_lines_are_uniform_and_unique() -> None:
    collector = TextCollector("ro")
    collector.add(
        "a", ["Aceşti „paşi” sunt  gata…", "Acești „pași” sunt gata...", "Vezi https://example.org/x pentru asta"]
    )
    assert collector.lines() == ['Acești "pași" sunt gata...', "Vezi {} pentru asta"]
    assert collector.dropped == {"a": {Dropped.DUPLICATE: 1}}


def test_lines_of_a_corpus_stay_as_they_are_but_for_what_is_held_out() -> None:
    collector = TextCollector("de", ["Alte Seite löschen"])
    collector.add_lines("corpus", ["OK", "alte seite löschen", "OK", "Save the page"])
    assert collector.lines() == ["OK", "Save the page"]


def test_what_translators_left_in_english_is_dropped_except_in_corpora() -> None:
    english, german = TextCollector("en"), TextCollector("de")
    english.add("app", ["Screen Brightness Applet", "Two words"])
    german.add_lines("corpus", ["Screen Brightness Applet"])
    german.add("app", ["Screen Brightness Applet", "Helles Fenster öffnen"])
    german.add("other", ["Noch ein Fenster"])
    german.drop_lines_of(english)
    # The line stands in the corpus first, so that it is a duplicate in the package.
    assert german.lines() == ["Screen Brightness Applet", "Helles Fenster öffnen", "Noch ein Fenster"]
    alone = TextCollector("de")
    alone.add("app", ["Screen Brightness Applet", "Helles Fenster öffnen"])
    alone.drop_lines_of(english)
    assert alone.lines() == ["Helles Fenster öffnen"]
    assert alone.dropped == {"app": {Dropped.UNTRANSLATED: 1}}


def test_a_sample_is_counted_and_decided_by_the_seed() -> None:
    def collector() -> TextCollector:
        made = TextCollector("en")
        made.add_lines("a", [f"line {number} of a" for number in range(50)])
        made.add_lines("b", [f"line {number} of b" for number in range(50)])
        return made

    first = collector()
    lines = first.lines(20, seed=1)
    assert len(lines) == 20 and lines == collector().lines(20, seed=1) != collector().lines(20, seed=2)
    assert lines == sorted(lines, key=collector().lines().index)
    assert {name: 50 - len(first.kept[name]) for name in "ab"} == {
        name: first.dropped[name][Dropped.SAMPLED] for name in "ab"
    }


@given(st.text(alphabet=st.sampled_from(list("aB.?! Ä")), max_size=120), st.integers(5, 60))
def test_cutting_keeps_every_sentence_whole(paragraph: str, longest: int) -> None:
    lines = cut_at_sentences(paragraph, longest)
    assert "".join("".join(lines).split()) == "".join(paragraph.split())
    for one, other in pairwise(lines):
        assert len(one) + 1 + len(other) > longest


@given(st.lists(st.text(max_size=60), max_size=20))
def test_every_paragraph_is_kept_or_counted(paragraphs: list[str]) -> None:
    collector = TextCollector("de")
    collector.add("a", paragraphs)
    assert len(collector.lines()) + sum(collector.dropped.get("a", {}).values()) == len(paragraphs)
    assert all("\n" not in line and line for line in collector.lines())


def test_languages_are_told_apart() -> None:
    assert looks_like_another("the page is not here", "ro")
    assert not looks_like_another("pagina nu este aici", "ro")
    assert not looks_like_another("OpenSSH 9.2 Server", "de")


def test_corpora_are_read_by_side(tmp_path: Path) -> None:
    folder = tmp_path / "en-de"
    folder.mkdir()
    for side in ("train", "valid", "test"):
        for language in ("en", "de"):
            (folder / f"{side}.{language}").write_text(f"{side} {language}\nzwei\u2028eins\n", encoding="utf-8")
    train, held_out = read_corpora([folder], "de")
    assert train == [("corpus en-de", ["train de", "zwei\u2028eins"])]
    assert set(held_out) == {"valid de", "test de", "zwei\u2028eins", ""}

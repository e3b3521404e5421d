import json
from pathlib import Path

import pytest

from nat_plugin.data.catalogues import Unread
from nat_plugin.data.cleaning import Drop
from nat_plugin.data.corpora import CorpusBuilder, report_markdown, report_of, write_json, write_split
from tests.nat_plugin.data.test_catalogues import mo


def builder(*, all_translations: bool = False) -> CorpusBuilder:
    made = CorpusBuilder("de", all_translations=all_translations)
    made.add("one", "de/a.mo", mo({b"Open": "Öffnen".encode(), b"Close": b"Zu", b"%s": b"%s", b"Quit": b""}))
    made.add("two", "de/b.mo", mo({b"Open": "Öffnen".encode(), b"Close": "Schließen".encode()}))
    made.add("three", "de/c.mo", mo({b"_Close": "S_chließen".encode()}))
    made.add("broken", "de/d.mo", b"nothing")
    return made


def test_the_most_frequent_translation_wins_and_all_is_counted() -> None:
    made = builder()
    assert made.pairs() == [("Close", "Schließen"), ("Open", "Öffnen")]
    kept = {name: tally.kept for name, tally in made.tallies.items()}
    assert kept == {"one": 1, "two": 1, "three": 0, "broken": 0}
    assert made.tallies["one"].dropped == {Drop.NO_LETTERS: 1, Unread.EMPTY: 1, Drop.OTHER_TRANSLATION: 1}
    assert made.tallies["broken"].unreadable == ["de/d.mo"]
    for name, tally in made.tallies.items():
        assert tally.kept + tally.dropped.total() == tally.entries, name


def test_pairs_can_be_asked_twice() -> None:
    made = builder()
    assert made.pairs() == made.pairs()
    assert made.total().kept == 2


def test_all_translations() -> None:
    assert builder(all_translations=True).pairs() == [("Close", "Zu"), ("Close", "Schließen"), ("Open", "Öffnen")]


def test_a_catalogue_without_diacritics_is_left_out() -> None:
    made = CorpusBuilder("ro")
    made.add(
        "bare", "ro/a.mo", mo({f"Make page {n}".encode(): f"Creaza o pagina noua {n}".encode() for n in range(30)})
    )
    assert made.pairs() == []
    assert made.tallies["bare"].dropped == {Drop.NO_DIACRITICS: 30}


def test_reports(tmp_path: Path) -> None:
    made = builder()
    made.pairs()
    write_json(tmp_path / "report.json", report_of(made))
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["total"]["kept"] == 2
    assert report["packages"]["one"]["dropped"]["hardly any letters"] == 1
    text = report_markdown("English – de", made)
    assert "2 pairs from 7 entries of 3 catalogues." in text
    assert "| broken | 0 | 0 |" in text
    assert "de/d.mo" in text


@pytest.mark.parametrize("lone", ["\x85", "\u2028"])
def test_split_files_have_a_line_for_each_pair(tmp_path: Path, lone: str) -> None:
    write_split(tmp_path / "en-de", {"train": [("a b", "c"), (f"d{lone}", "ä")], "test": []}, source="en", target="de")
    assert (tmp_path / "en-de" / "train.de").read_bytes() == "c\nä\n".encode()
    assert (tmp_path / "en-de" / "train.en").read_bytes().count(b"\n") == 2
    assert (tmp_path / "en-de" / "test.en").read_bytes() == b""

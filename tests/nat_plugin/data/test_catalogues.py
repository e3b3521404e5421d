"""Catalogues are written here byte by byte, so that damaged ones can be too."""

import struct
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_plugin.data.catalogues import CatalogueError, Unread, catalogue_paths, plural_rule, read_catalogue

ROMANIAN = "nplurals=3; plural=(n==1?0:(((n%100>19)||((n%100==0)&&(n!=0)))?2:1));"
GERMAN = "nplurals=2; plural=(n != 1);"


def mo(entries: Mapping[bytes, bytes], *, charset: str = "UTF-8", plurals: str = GERMAN, order: str = "<") -> bytes:
    """A ``.mo`` file after the layout in the GNU gettext manual: header, two tables of (length, offset), strings."""
    header = f"Content-Type: text/plain; charset={charset}\nPlural-Forms: {plurals}\n".encode()
    rows = [(b"", header), *sorted(entries.items())]
    start = 28 + 16 * len(rows)
    strings, tables = b"", ([], [])
    for column in (0, 1):
        for row in rows:
            tables[column].append(struct.pack(f"{order}2I", len(row[column]), start + len(strings)))
            strings += row[column] + b"\0"
    head = struct.pack(f"{order}7I", 0x950412DE, 0, len(rows), 28, 28 + 8 * len(rows), 0, 0)
    return head + b"".join(tables[0]) + b"".join(tables[1]) + strings


@pytest.mark.parametrize("order", ["<", ">"])
def test_mo_of_either_byte_order(order: str) -> None:
    catalogue = read_catalogue(mo({b"Open": "Öffnen".encode(), b"File": b"Datei"}, order=order), "x.mo")
    assert catalogue.pairs == [("File", "Datei"), ("Open", "Öffnen")]
    assert catalogue.unread == {}


def test_context_is_stripped_and_both_contexts_give_a_pair() -> None:
    catalogue = read_catalogue(mo({b"menu\x04Open": b"Offen", b"verb\x04Open": "Öffnen".encode()}), "x.mo")
    assert catalogue.pairs == [("Open", "Offen"), ("Open", "Öffnen")]


def test_romanian_plural_takes_the_form_for_one_and_for_two() -> None:
    forms = "%d fișier\0%d fișiere\0%d de fișiere".encode()
    catalogue = read_catalogue(mo({b"%d file\0%d files": forms}, plurals=ROMANIAN), "x.mo")
    assert catalogue.pairs == [("%d file", "%d fișier"), ("%d files", "%d fișiere")]


def test_plural_form_that_is_missing_is_counted() -> None:
    catalogue = read_catalogue(mo({b"%d file\0%d files": b"%d Datei"}), "x.mo")
    assert catalogue.pairs == [("%d file", "%d Datei")]
    assert catalogue.unread == {Unread.PLURAL_RULE: 1}


def test_declared_charset_is_honoured_and_wrong_bytes_are_counted() -> None:
    latin2 = {b"Search": "căutare".encode("iso-8859-2"), b"Yes": b"da"}
    catalogue = read_catalogue(mo(latin2, charset="ISO-8859-2"), "x.mo")
    assert ("Search", "căutare") in catalogue.pairs
    wrong = read_catalogue(mo(latin2, charset="UTF-8"), "x.mo")
    assert wrong.pairs == [("Yes", "da")]
    assert wrong.unread == {Unread.ENCODING: 1}


def test_empty_translation_is_counted() -> None:
    assert read_catalogue(mo({b"Yes": b""}), "x.mo").unread == {Unread.EMPTY: 1}


def test_unknown_charset_names_the_file() -> None:
    with pytest.raises(CatalogueError, match=r"x\.mo: unknown charset 'klingon'"):
        read_catalogue(mo({}, charset="klingon"), "x.mo")


def test_what_is_no_catalogue() -> None:
    with pytest.raises(CatalogueError, match=r"x\.mo: not a \.mo catalogue"):
        read_catalogue(b"PK\x03\x04 something else", "x.mo")


@given(st.data())
def test_truncated_or_flipped_mo_raises_a_catalogue_error_or_gives_pairs(data: st.DataObject) -> None:
    whole = mo({b"Open": "Öffnen".encode(), b"%d file\0%d files": b"%d Datei\0%d Dateien"})
    cut = whole[: data.draw(st.integers(0, len(whole) - 2))]
    with pytest.raises(CatalogueError):
        read_catalogue(cut, "x.mo")
    flipped = bytearray(whole)
    flipped[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        read_catalogue(bytes(flipped), "x.mo")
    except CatalogueError as error:
        assert "x.mo" in str(error)


@pytest.mark.parametrize(
    ("header", "forms"),
    [
        (f"Plural-Forms: {ROMANIAN}\n", {1: 0, 2: 1, 20: 2, 101: 1}),
        (f"plural-forms: {GERMAN}\n", {0: 1, 1: 0, 2: 1}),
        ("Language: de\n", {1: 0, 2: 1}),
    ],
)
def test_plural_rule(header: str, forms: dict[int, int]) -> None:
    rule = plural_rule(header)
    assert rule is not None
    assert {n: rule(n) for n in forms} == forms


@pytest.mark.parametrize("rule", ["nplurals=2; plural=__import__('os');", "nplurals=2;", "plural=n +"])
def test_unreadable_plural_rule(rule: str) -> None:
    assert plural_rule(f"Plural-Forms: {rule}\n") is None


PO = """\
msgid ""
msgstr "Content-Type: text/plain; charset=UTF-8\\nPlural-Forms: nplurals=2; plural=(n != 1);\\n"

msgctxt "verb"
msgid "Open"
msgstr "Öffnen"

#, fuzzy
msgid "Close"
msgstr "Schluss"

msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d Datei"
msgstr[1] "%d Dateien"

msgid "Untranslated"
msgstr ""

#~ msgid "Old"
#~ msgstr "Alt"
"""


def test_po() -> None:
    pytest.importorskip("babel")
    catalogue = read_catalogue(PO.encode(), "x.po")
    assert catalogue.pairs == [("Open", "Öffnen"), ("%d file", "%d Datei"), ("%d files", "%d Dateien")]
    assert catalogue.unread == Counter({Unread.FUZZY: 1, Unread.EMPTY: 1})


def test_po_drops_the_wrongly_encoded_entry_alone() -> None:
    pytest.importorskip("babel")
    catalogue = read_catalogue(PO.encode().replace("Öffnen".encode(), b"\xd6ffnen"), "x.po")
    assert catalogue.pairs == [("%d file", "%d Datei"), ("%d files", "%d Dateien")]
    assert catalogue.unread[Unread.ENCODING] == 1


def test_damaged_po() -> None:
    pytest.importorskip("babel")
    with pytest.raises(CatalogueError, match=r"x\.po: not a readable \.po catalogue"):
        read_catalogue(PO.encode() + b'\nmsgid "Cut\n', "x.po")


def test_catalogue_paths() -> None:
    paths = [
        "usr/share/locale/de/LC_MESSAGES/a.mo",
        "usr/share/locale/de/LC_MESSAGES/a.po",
        "usr/share/locale/de/LC_MESSAGES/b.po",
        "pkg/locale/de_DE/LC_MESSAGES/c.mo",
        "languages/admin-de_DE.mo",
        "po/de.po",
        "usr/share/locale/de_AT/LC_MESSAGES/a.mo",
        "usr/share/locale/nde/LC_MESSAGES/a.mo",
        "usr/share/locale/ro/LC_MESSAGES/a.mo",
        "usr/share/locale/de/LC_MESSAGES/a.json",
    ]
    assert catalogue_paths(paths, "de") == sorted([paths[0], *paths[2:6]])
    assert catalogue_paths(paths, "ro") == [paths[8]]

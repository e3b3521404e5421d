"""Paragraphs of manual pages."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_plugin.data.man_pages import man_paragraphs, unescape

PAGE = r""".\" A comment
.TH LS 1 "Juli 2022" "GNU" "Befehle"
.de XX
definition
..
.SH BEZEICHNUNG
ls \- Verzeichnisinhalte \fBauf\fP\/listen
.SH ÜBERSICHT
.B ls
[\fIOPTION\fR]
.SH BESCHREIBUNG
Die Option
.BR \-\-sort (1)
sortiert \(lqalles\(rq\" bis zum Ende der Zeile
nach dem Alphabet.
.PP
Zweiter \[u201E]Absatz\[u201C] mit 5\ %.
.TP
\fB\-a\fR, \fB\-\-all\fR
zeigt alles an
.nf
code here
.fi
.if n \{\
.ds hidden text
.\}
.SS "Ein Abschnitt"
.I "Der \(dqletzte\(dq Absatz"
steht hier
.TS
l l.
a	b
.TE
"""


def test_running_text_becomes_paragraphs() -> None:
    assert man_paragraphs(PAGE) == [
        "ls - Verzeichnisinhalte auflisten",
        'Die Option --sort(1) sortiert "alles" nach dem Alphabet.',
        "Zweiter „Absatz“ mit 5 %.",
        "zeigt alles an",
        "Ein Abschnitt",
        'Der "letzte" Absatz steht hier',
    ]


def test_a_page_of_mdoc_gives_nothing() -> None:
    assert man_paragraphs(".Dd May 1\n.Dt LS 1\n.Sh NAME\n.Nm ls\n.Nd list\n") == []


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"\fBa\fR\s-1b\s0\(emc", "ab–c"),
        (r"a\ b\~c\|d", "a b cd"),
        (r"\e\-\*(L" '"q', r'\-"q'),
        (r"\h'1n'\[u00E4]", "ä"),
    ],
)
def test_escapes(source: str, text: str) -> None:
    assert unescape(source) == text


@given(st.text(alphabet=st.sampled_from(list(".\\\"'{}[]()*fsu \nabBPTHSde01äț")), max_size=200))
def test_no_page_breaks_the_reader(source: str) -> None:
    for paragraph in man_paragraphs(source):
        assert paragraph == " ".join(paragraph.split()) != ""


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_the_words_are_those_that_a_typesetter_prints() -> None:
    page = r""".TH A 1
.SH TEXT
The \fIfirst\fR words,
.BR bold (1),
and \(aqquoted\(aq ones\ \-\- all
.RI "of " them .
"""
    command = ["groff", "-man", "-Tascii", "-P-cbou", "-rHY=0", "-rLL=300n"]
    printed = subprocess.run(command, input=page, capture_output=True, text=True, check=True).stdout
    body = printed.partition("TEXT\n")[2].partition("\n\n")[0]
    assert [" ".join(body.split())] == man_paragraphs(page)

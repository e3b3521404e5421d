"""Which files are documents, and in which language."""

import gzip

import pytest

from nat_plugin.data.documents import language_of, paragraphs_of


@pytest.mark.parametrize(
    ("path", "package", "language"),
    [
        ("./usr/share/man/man1/ls.1.gz", "manpages", "en"),
        ("./usr/share/man/de/man1/ls.1.gz", "manpages-de", "de"),
        ("./usr/share/man/fr/man1/ls.1.gz", "manpages-fr", None),
        ("./usr/share/help/C/app/index.page", "app", "en"),
        ("./usr/share/help/ro/app/legal.xml", "app", "ro"),
        ("./usr/share/help/pt_BR/app/index.page", "app", None),
        ("./usr/share/doc/HTML/de/kate/index.docbook", "kate5-data", "de"),
        ("./usr/share/doc/installation-guide-amd64/ro/ch01.html", "installation-guide-amd64", "ro"),
        ("./usr/share/doc/installation-guide-amd64/fr/ch01.html", "installation-guide-amd64", None),
        ("./usr/share/doc/debian-handbook/html/de-DE/a.html", "debian-handbook", "de"),
        ("./usr/share/doc/debian-handbook/html/nb-NO/a.html", "debian-handbook", None),
        ("./usr/share/doc/guide/sr@latin/a.html", "guide", None),
        ("./usr/share/debian-reference/ch04.de.html", "debian-reference-de", "de"),
        ("./usr/share/doc/debian-edu-doc-de/manual.html", "debian-edu-doc-de", "de"),
        ("./usr/share/doc/debian-policy/policy.html/ch1.html", "debian-policy", "en"),
        ("./usr/share/libreoffice/help/en-US/text/a.html", "libreoffice-help-en-us", "en"),
        ("./usr/share/gimp/2.0/help/ro/a.html", "gimp-help-ro", "ro"),
        ("./usr/lib/firefox-esr/extensions/langpack-ro@firefox-esr.mozilla.org.xpi", "firefox-esr-l10n-ro", "ro"),
        ("./usr/share/mediawiki/languages/i18n/de.json", "mediawiki", "de"),
        ("./usr/share/doc/app/changelog.html", "app", None),
        ("./usr/share/app/code.py", "app", None),
    ],
)
def test_language_of(path: str, package: str, language: str | None) -> None:
    assert language_of(path, package) == language


def test_each_kind_has_its_reader() -> None:
    page = b".TH A 1\n.SH X\nSome text here\n"
    assert paragraphs_of("./usr/share/man/man1/a.1.gz", gzip.compress(page)) == ["Some text here"]
    assert paragraphs_of("./usr/share/man/man1/a.1", page) == ["Some text here"]
    assert paragraphs_of("./usr/share/help/C/a/a.page", b"<page><p>Some text</p></page>") == ["Some text"]
    assert paragraphs_of("./usr/share/doc/a/a.html", b"<p>Some text") == ["Some text"]
    assert paragraphs_of("./usr/share/a/i18n/de.json", b'{"a": "Some text"}') == ["Some text"]


def test_what_cannot_be_read_gives_nothing() -> None:
    assert paragraphs_of("./usr/share/man/man1/a.1.gz", b"no archive") == []
    assert paragraphs_of("./usr/share/man/de/man1/a.1", b".SH A\n\xfc\n") == []
    assert paragraphs_of("/a/langpack-ro@b.xpi", b"no archive") == []

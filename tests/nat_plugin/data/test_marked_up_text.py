"""Paragraphs of HTML, DocBook and Mallard."""

from hypothesis import given
from hypothesis import strategies as st

from nat_plugin.data.marked_up_text import HOLE, html_paragraphs, xml_paragraphs


def test_html_without_what_is_no_prose() -> None:
    page = """<!DOCTYPE html><html><head><title>No</title><style>p {}</style></head><body>
      <div class="navheader">Next</div><h1>Die  Überschrift</h1>
      <p>Ein <b>Satz</b>, mit&nbsp;<code>Code</code>.<br/>Noch
      einer.</p><pre>int x;</pre><script>var x</script><ul><li>Erstens<li>Zweitens</ul></body></html>"""
    assert html_paragraphs(page.encode()) == [
        "Die Überschrift", "Ein Satz, mit Code.", "Noch einer.", "Erstens", "Zweitens",
    ]  # fmt: skip


def test_html_in_an_encoding_that_the_page_names() -> None:
    page = '<html><head><meta charset="iso-8859-1"></head><body><p>Schöne Grüße</p></body></html>'
    assert html_paragraphs(page.encode("latin-1")) == ["Schöne Grüße"]


def test_a_picture_within_a_sentence_leaves_a_hole_and_one_before_it_none() -> None:
    assert html_paragraphs(b"<p><img src='a'/> One two</p><p>One <img src='a'/> two</p>") == [
        "One two",
        f"One {HOLE} two",
    ]


def test_docbook_with_entities_and_menus() -> None:
    document = """<?xml version="1.0" ?>
    <!DOCTYPE book PUBLIC "a" "b.dtd" [ <!ENTITY app "&kate;"> <!ENTITY % more "INCLUDE"> ]>
    <book><bookinfo><title>Left out</title></bookinfo><chapter><title>&app; kennen</title>
    <para>Wählen Sie <menuchoice><guimenu>Datei</guimenu> <guimenuitem>Öffnen</guimenuitem></menuchoice>, &eg; mit
    <keycombo><keycap>Strg</keycap><keycap>O</keycap></keycombo> &amp; mehr&nbsp;Text.<indexterm><primary>x</primary>
    </indexterm> <screen>rm -r</screen> Danach</para><para>Siehe <xref linkend="a"/>.</para></chapter></book>"""
    assert xml_paragraphs(document.encode()) == [
        "Kate kennen",
        "Wählen Sie Datei > Öffnen, e.g. mit Strg+O & mehr Text.",
        "Danach",
        f"Siehe {HOLE}.",
    ]


def test_mallard() -> None:
    page = """<page xmlns="http://projectmallard.org/1.0/"><info><link xref="i"/><desc>Über <app>X</app></desc>
    <credit><name>A B</name></credit></info><title>Titel</title><p>Text <link xref="p">hier</link>: <guiseq><gui>A</gui>
    <gui>B</gui></guiseq>.</p><code>x</code></page>"""
    assert xml_paragraphs(page.encode()) == ["Über X", "Titel", "Text hier: A > B."]


def test_nothing_outside_the_document_is_read() -> None:
    document = '<!DOCTYPE a [<!ENTITY secret SYSTEM "file:///etc/hostname">]><a><p>x &secret; y</p></a>'
    assert xml_paragraphs(document.encode()) == ["x Secret y"]


def test_names_that_are_no_names_and_deep_nesting() -> None:
    assert html_paragraphs(b"<C;>One two") == ["One two"]
    assert html_paragraphs(b"<div>" * 20000 + b"One two") in ([], ["One two"])
    assert xml_paragraphs(b"<a>" * 20000 + b"One two") in ([], ["One two"])


@given(st.text(alphabet=st.sampled_from(list("<>&;/!-[]\"'= abpDOCTYPENI\n\0é")), max_size=120))
def test_no_document_breaks_the_readers(text: str) -> None:
    for paragraph in [*html_paragraphs(text.encode()), *xml_paragraphs(text.encode())]:
        assert paragraph == " ".join(paragraph.split()) != ""


@given(st.binary(max_size=60))
def test_no_bytes_break_the_readers(content: bytes) -> None:
    for paragraph in [*html_paragraphs(content), *xml_paragraphs(content)]:
        assert "\0" not in paragraph

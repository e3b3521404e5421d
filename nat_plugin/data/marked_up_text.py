"""Read the prose of documents in HTML, DocBook and Mallard: one string a paragraph, heading or list item."""

import html
import re
from collections.abc import Iterator

from lxml import etree  # type: ignore[import-untyped]

# Stands where the document would show a text of its own making ("see Chapter 3"); a paragraph with one is no sentence.
HOLE = "\ufffc"

_BLOCK_NAMES = """
    address article blockquote body br caption center dd div dl dt fieldset figcaption figure h1 h2 h3 h4 h5 h6 hr
    html legend li main ol p section summary table tbody td tfoot th thead tr ul
    para simpara formalpara title subtitle titleabbrev abstract chapter sect1 sect2 sect3 sect4 sect5 preface appendix
    book part refentry refsect1 refsect2 refnamediv refname refpurpose variablelist varlistentry listitem itemizedlist
    orderedlist simplelist member term note tip warning important caution sidebar example informalexample question
    answer qandaset qandadiv qandaentry procedure step substeps table informaltable tgroup row entry glossary glossentry
    glossterm glossdef segmentedlist seg seglistitem textobject mediaobject caption bridgehead epigraph
    page desc list item steps terms tree
"""
_NAMES_LEFT_OUT = """
    script style head nav footer header noscript form select button textarea svg math template pre code-block
    programlisting screen synopsis cmdsynopsis funcsynopsis classsynopsis literallayout indexterm index toc remark
    bookinfo articleinfo refentryinfo chapterinfo sect1info sectioninfo refmeta refsynopsisdiv authorgroup author
    legalnotice revhistory copyright bibliography footnote graphic imagedata
    credit license revision media audience equation informalequation inlineequation videoobject audioobject
    programlistingco screenco
"""
_BLOCKS, _LEFT_OUT = frozenset(_BLOCK_NAMES.split()), frozenset(_NAMES_LEFT_OUT.split())
_NAVIGATION = re.compile(r"\b(nav|navheader|navfooter|sphinxsidebar|related|toc|breadcrumbs?|footer|header|docnav)\b")
_BETWEEN_PARTS = {"menuchoice": " > ", "guiseq": " > ", "keycombo": "+", "keyseq": "+"}
_PICTURES = frozenset({"img", "inlinegraphic", "imageobject"})
# DocBook and Mallard elements that are filled when the document is shown.
_FILLED_LATER = frozenset({"xref", "link", "ulink"})
_PARENTS_OF_CODE_BLOCKS = frozenset({"page", "section", "item", "note", "example", "listing"})
_BLOCKS_LEFT_OUT = frozenset({"pre", "programlisting", "screen", "literallayout", "media"})
_INTERNAL_ENTITY = re.compile(r"<!ENTITY\s+([\w.-]+)\s+(?:\"([^\"]*)\"|'([^']*)')\s*>")
_KNOWN_ENTITIES = {"eg": "e.g.", "ie": "i.e.", "etc": "etc.", "kde": "KDE", "kf5": "KDE Frameworks", "x11": "X11"}
_BUILT_IN = frozenset({"amp", "lt", "gt", "quot", "apos"})


def html_paragraphs(content: bytes) -> list[str]:
    """The paragraphs of an HTML page: no scripts, navigation, forms, preformatted text. Empty if unreadable."""
    encoding = "utf-8" if _is_utf8(content) else None
    root = _root(content, etree.HTMLParser(encoding=encoding, remove_comments=True, no_network=True))
    return [] if root is None else _paragraphs(root)


def xml_paragraphs(content: bytes) -> list[str]:
    """The paragraphs of a DocBook or Mallard document; names of entities stand for what outer files would define.

    Nothing is loaded from outside; code and preformatted text are left out. Empty if the document cannot be read.
    """
    if not _is_utf8(content):
        return []
    text = _with_entities(content.decode("utf-8"))
    parser = etree.XMLParser(
        recover=True, resolve_entities=False, load_dtd=False, no_network=True, remove_comments=True, remove_pis=True
    )
    root = _root(text.encode("utf-8"), parser)
    return [] if root is None else _paragraphs(root)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _root(content: bytes, parser: object) -> etree._Element | None:
    try:
        return etree.fromstring(content, parser)
    except (etree.XMLSyntaxError, ValueError):
        return None


def _with_entities(text: str) -> str:
    """The document without its DOCTYPE, and its entities written out as far as that is possible."""
    start = text.find("<!DOCTYPE")
    if start < 0:
        return _written_out(text, {})
    bracket, close = text.find("[", start), text.find(">", start)
    if 0 <= bracket < close:
        end = re.compile(r"\]\s*>").search(text, bracket)
        close = end.end() - 1 if end else close
    own = {name: double or single for name, double, single in _INTERNAL_ENTITY.findall(text[start:close])}
    declaration = re.match(r"\s*<\?xml[^>]*\?>", text)
    return _written_out((declaration[0] if declaration else "") + text[close + 1 :], own)


def _written_out(text: str, own: dict[str, str], depth: int = 0) -> str:
    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name in _BUILT_IN:
            return found[0]
        if name in own:
            return _written_out(own[name], own, depth + 1) if depth < 5 else ""
        if name.lower() in _KNOWN_ENTITIES:
            return _KNOWN_ENTITIES[name.lower()]
        character = html.unescape(found[0])
        if character != found[0]:
            return character
        # KDE's manuals name each program by an entity: "&kate;" stands for "Kate".
        return name if name != name.lower() else name.capitalize()

    return re.sub(r"&([A-Za-z][\w.-]*);", value, text)


def _paragraphs(root: etree._Element) -> list[str]:
    text = "".join(_pieces(root))
    # A picture or a self-made text before a paragraph is no part of its sentence.
    folded = (" ".join(block.split()).lstrip(f"{HOLE} ") for block in text.split("\0"))
    return [block for block in folded if block]


def _pieces(element: etree._Element, before: str = "") -> Iterator[str]:
    """The text below ``element``, a NUL at each border of a block; ``before`` where no border stands."""
    name = _local_name(element)
    left_out = not name or name in _LEFT_OUT or _is_navigation(element) or _is_code_block(element, name)
    border = "\0" if name in _BLOCKS or (left_out and name in _BLOCKS_LEFT_OUT) else ""
    yield border or before
    if not left_out:
        if name in _PICTURES or _is_filled_later(element, name):
            yield HOLE
        yield (element.text or "").replace("\0", " ")
        between = _BETWEEN_PARTS.get(name, "")
        for position, child in enumerate(element):
            yield from _pieces(child, between if position else "")
            if not between:
                yield (child.tail or "").replace("\0", " ")
    yield border


def _local_name(element: etree._Element) -> str:
    """Name without its namespace; empty for an entity, a comment or an instruction."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _is_code_block(element: etree._Element, name: str) -> bool:
    """Mallard has one name for code in a sentence and for lines of code; the place tells."""
    parent = element.getparent()
    return name == "code" and parent is not None and _local_name(parent) in _PARENTS_OF_CODE_BLOCKS


def _is_navigation(element: etree._Element) -> bool:
    names = f"{element.get('class', '')} {element.get('id', '')}"
    return bool(_NAVIGATION.search(names.casefold())) or element.get("role") == "navigation"


def _is_filled_later(element: etree._Element, name: str) -> bool:
    """Whether the document shows here what another place in it is called."""
    empty = len(element) == 0 and not (element.text or "").strip()
    refers = any(key.rpartition("}")[2] in ("linkend", "xref", "href", "url") for key in element.attrib)
    return name in _FILLED_LATER and empty and refers

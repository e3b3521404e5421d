"""What turns a program's message into a sentence: markup, entities, placeholders, accelerators out or made uniform.

Pure functions on strings; none of them drops anything (``cleaning`` decides that).
"""

import html
import re
import unicodedata

#: What stands for every placeholder, address and link, on both sides of a pair.
PLACEHOLDER = "{}"

# Only names that HTML, Pango, KDE's and DocBook-like message markup use: "<file>" in "cp <file>" is text, not markup.
_INLINE_TAGS = (
    "a|abbr|accesskey|acronym|application|b|bcode|big|bold|br|button|cite|code|command|dd|del|dfn|div|dl|dt|em|"
    "email|emphasis|envar|filename|font|h1|h2|h3|h4|h5|h6|hr|html|i|icode|img|input|ins|interface|item|kbd|"
    "label|li|link|list|markup|message|nl|note|numid|ol|option|p|para|placeholder|pre|q|qt|resource|rich|s|"
    "samp|script|section|shortcut|small|span|strike|strong|sub|subtitle|sup|svg|table|tbody|td|tg|th|time|"
    "title|tr|tt|u|ul|var|warning"
)
_TAG = re.compile(rf"</?(?:{_INLINE_TAGS}|\d{{1,2}})(?:\s[^<>]*)?/?>", re.IGNORECASE)
# Tags that stand between words even where no space does.
_BREAKING_TAG = re.compile(r"</?(?:br|dd|div|dl|dt|h\d|hr|item|li|nl|ol|p|para|pre|table|td|th|title|tr|ul)\b", re.I)
_ENTITY = re.compile(r"&(?:#\d{1,6}|#[xX][0-9a-fA-F]{1,5}|[A-Za-z][A-Za-z0-9]{1,20});")
# Genshi's numbered markers: "[1:Note:] read this" marks the words inside them.
_NUMBERED_MARKER = re.compile(r"\[\d{1,2}:([^\[\]]*)\]")
_LINK = re.compile(
    r"\b(?:https?|ftp|file|mailto):(?://)?[^\s<>\"'()]*[^\s<>\"'().,;:!?]|\bwww\.[\w.-]+\.\w+[\w./?=#-]*"
)
_EMAIL = re.compile(r"(?<![\w.])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_PLACEHOLDER = re.compile(
    r"""
      (?P<percent>%%)
    | %\([^()%]{1,60}\)[-+#0]*\d*(?:\.\d+)?[a-zA-Z]      # %(name)s
    | %\{[^{}]{1,60}\}                                   # %{name}
    | \{\{[^{}]{1,60}\}\}                                # {{ name }}
    | [$#]?\{[^{}]{0,60}\}                               # {name} {0} {} ${name} #{name}
    | \$\([A-Za-z0-9_]{1,40}\)                           # $(ARG1)
    | \$[A-Za-z_][A-Za-z0-9_]{1,40}\b                    # $name
    | %[A-Z_]{3,40}\b%?                                  # %PRODUCTNAME
    | %\d{1,2}\$[-+\#0']*[\d*]*(?:\.[\d*]+)?(?:hh|h|ll|l|L|q|j|z|t|I64)?[diouxXeEfFgGaAcCsSp@]  # %1$s
    | (?<!\d)%[-+\#0']*[\d*]*(?:\.[\d*]+)?(?:hh|h|ll|l|L|q|j|z|t|I64)?[diouxXeEfFgGcCrsSpnm@]   # %s %d %lu %.2f
    | %L?\d{1,2}                                         # %1
    """,
    re.VERBOSE,
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe0e\ufe0f\ufeff]")
_PICTURES = re.compile("[\u231a\u231b\u23e9-\u23fa\u2600-\u27bf\u2b50-\u2b55\U0001f300-\U0001faff]")
_WRITTEN_BREAK = re.compile(r"\\[ntr](?![A-Za-z0-9])|(?<=[.:!?,])\\n")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SPACE = re.compile(r"\s+")
_SUFFIX_ACCELERATOR = re.compile(r"\s?\([_&~]\w\)")
_PUNCTUATION = str.maketrans({**dict.fromkeys("“”„‟«»", '"'), **dict.fromkeys("‘’‚‛‹›", "'"), "…": "..."})
_CEDILLAS = str.maketrans("şţŞŢ", "șțȘȚ")


def fold_space(text: str) -> str:
    """Composed characters (NFC); white space and line breaks as single spaces; invisible characters and emoji gone."""
    text = _PICTURES.sub(" ", _INVISIBLE.sub("", unicodedata.normalize("NFC", text)))
    return _SPACE.sub(" ", _CONTROL.sub(" ", _WRITTEN_BREAK.sub(" ", text))).strip()


def remove_markup(text: str) -> str:
    """Known tags removed (those that break lines become a space), character entities written as characters."""
    text = _TAG.sub(lambda tag: " " if _BREAKING_TAG.match(tag[0]) else "", text)
    while (unmarked := _NUMBERED_MARKER.sub(r"\1", text)) != text:
        text = unmarked
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


def unify_placeholders(text: str) -> str:
    """Placeholders (``%s``, ``%(name)s``, ``{0}``, ``${x}``, ``%1``), links, addresses as ``{}``; ``%%`` as ``%``."""
    text = _EMAIL.sub(PLACEHOLDER, _LINK.sub(PLACEHOLDER, text))
    return _PLACEHOLDER.sub(lambda found: "%" if found["percent"] else PLACEHOLDER, text)


def unify_punctuation(text: str) -> str:
    """All double quotes as ``"``, all single ones as ``'`` (`` `like this' `` too), ``…`` as three dots.

    Translators of one language use five styles of quotes for one in the source: nothing that could be learnt.
    """
    return re.sub(r"`([^`']*)'", r"'\1'", text.translate(_PUNCTUATION).replace("''", '"'))


def comma_below(text: str) -> str:
    """Romanian's ş and ţ (with cedilla, from old keyboards) as the standard ș and ț (with a comma below)."""
    return text.translate(_CEDILLAS)


def strip_context_prefix(source: str, target: str) -> str:
    """The source without a context that older programs wrote into it: ``Stock label|Add``, ``_: a comment\\nAdd``."""
    if source.startswith("_:") and "\n" in source:
        source = source.partition("\n")[2]
    if "|" in source and "|" not in target:
        source = source.rpartition("|")[2]
    return source


def strip_accelerators(source: str, target: str) -> tuple[str, str] | None:
    """Both strings without the mark before a menu's short-cut letter: ``_File``, ``E&xit``, ``~Datei``, ``文件(_F)``.

    A doubled mark stands for itself. ``snake_case``, ``AT&T`` and ``R & D`` stay as they are. None if a mark within a
    word cannot be told from a letter of it (``drag&drop`` against a translation without any mark).
    """
    source, target = _SUFFIX_ACCELERATOR.sub("", source), _SUFFIX_ACCELERATOR.sub("", target)
    for mark in "&_~":
        stripped_source = _strip_mark(source, target, mark)
        stripped_target = _strip_mark(target, source, mark)
        if stripped_source is None or stripped_target is None:
            return None
        source, target = stripped_source, stripped_target
    return source, target


def _marks(text: str, mark: str) -> list[int]:
    """Where ``mark`` stands single before a letter or digit (``~`` before a letter: ``~5 MB`` means "about")."""
    follower = r"[^\W\d_]" if mark == "~" else r"[^\W_]"
    return [found.start() for found in re.finditer(rf"(?<!{mark}){mark}(?={follower})", text)]


def _strip_mark(text: str, other: str, mark: str) -> str | None:
    places = _marks(text, mark)
    if len(places) == 1:
        at = places[0]
        before, after = text[:at], text[at + 1 :]
        within_word = at > 0 and (before[-1].isalnum() or before[-1] in "._/")
        if not within_word or mark == "~":
            text = before + after
        elif not _is_literal(text, at, other):
            if len(_marks(other, mark)) != 1 or _word_at(text, at) in other.split():
                return None
            text = before + after
    return text.replace(mark * 2, mark) if mark != "~" else text


def _is_literal(text: str, at: int, other: str) -> bool:
    """Whether the mark belongs to its word: AT&T by its capitals, snake_case because the other side has it too."""
    if text[at - 1].isupper() and text[at + 1].isupper():
        return True
    return text[at] == "_" and (_word_at(text, at) in other.split() or "{}" in _word_at(text, at))


def _word_at(text: str, at: int) -> str:
    start = text.rfind(" ", 0, at) + 1
    end = text.find(" ", at)
    return text[start : end if end >= 0 else len(text)]

"""Read the prose of manual pages (the ``man`` macros) without a typesetter.

Tables, examples, synopses and everything of low-level formatting are left out; what stays is paragraphs.
"""

import re
import shlex

# Glyph names that occur in prose; any other is left out.
_GLYPHS = {
    "aq": "'", "oq": "'", "cq": "'", "lq": '"', "rq": '"', "dq": '"', "Bq": '"', "bq": ",", "Fo": '"', "Fc": '"',
    "em": "–", "en": "–", "hy": "-", "mi": "-", "pl": "+", "bu": "", "co": "©", "rg": "®", "tm": "™", "ti": "~",
    "ha": "^", "rs": "\\", "sl": "/", "bv": "|", "ga": "`", "aa": "'", "at": "@", "sh": "#", "Do": "$", "sc": "§",
    "de": "°", "ss": "ß", ":a": "ä", ":o": "ö", ":u": "ü", ":A": "Ä", ":O": "Ö", ":U": "Ü", "->": "->", "<-": "<-",
    "+-": "±", "mu": "×", ">=": "≥", "<=": "≤", "!=": "≠", "'e": "é", "`e": "è", "'a": "á", "'o": "ó", "^a": "â",
    "lB": "[", "rB": "]", "lC": "{", "rC": "}", "la": "<", "ra": ">", "or": "|", "ba": "|", "Eu": "€", "12": "½",
}  # fmt: skip
# Strings that converters to man pages define at the top of each page.
_STRINGS = {'L"': '"', 'R"': '"', "lq": '"', "rq": '"', "--": "–", "C+": "C++", "Aq": "'", "PI": "π", "R": "®"}

_ESCAPE = re.compile(
    r"""
      \\(?:
        \[u(?P<code>[0-9A-Fa-f]{4,6})(?:_[0-9A-Fa-f_]+)?\] | \[(?P<long>[^\]\s]*)\] | \((?P<two>..)
      | \*(?:\((?P<string>..)|\[(?P<longstring>[^\]]*)\]|(?P<shortstring>.))
      | [fFmMnV](?:\(..|\[[^\]]*\]|[+-]?.) | s[+-]?(?:\d{1,2}|\(\d\d|\[[^\]]*\])
      | [hvwloDLNXbxZSHRAC](?P<quote>['"]).*?(?P=quote) | (?P<blank>[ ~0t]) | (?P<backslash>[e\\]) | (?P<self>[-.'`"_])
      | [&/,|^%:)!?cdurpzka{}]
      )
    """,
    re.VERBOSE,
)
_MDOC = re.compile(r"^\.Dd\b", re.MULTILINE)
_COMMENT = re.compile(r"(?<!\\)\\[\"#].*$")
_FONTS = frozenset({"B", "I", "SM", "SB", "R", "BR", "RB", "IR", "RI", "BI", "IB", "CW", "MR"})
_BREAK_NAMES = "PP LP P IP HP sp br RS RE TQ ad na in ti ce bp PD"
_BREAKS = frozenset(_BREAK_NAMES.split())
_LEFT_OUT_UNTIL = {"nf": "fi", "EX": "EE", "TS": "TE", "EQ": "EN", "SY": "YS", "de": ".", "de1": ".", "am": ".",
                   "ig": ".", "Vb": "Ve", "PS": "PE"}  # fmt: skip
_SECTIONS_LEFT_OUT = frozenset({"SYNOPSIS", "ÜBERSICHT", "SINOPSIS", "REZUMAT", "SUMAR", "SIEHE AUCH", "SEE ALSO",
                                "CONSULTAȚI ȘI", "VEZI ȘI", "EXAMPLES", "BEISPIELE", "EXEMPLE"})  # fmt: skip


def man_paragraphs(source: str) -> list[str]:
    """The paragraphs of a page's running text and its headings of lower level, in order, one string each.

    Args:
        source: the page as it is stored; pages that use the ``mdoc`` macros give an empty list.
    """
    if _MDOC.search(source):
        return []
    reader = _Reader()
    for line in _joined_lines(source):
        reader.read(line)
    reader.end_paragraph()
    return reader.paragraphs


def unescape(text: str) -> str:
    """Text without font changes and spacing; escapes for characters written as the characters."""
    return _ESCAPE.sub(_character, _COMMENT.sub("", text))


def _joined_lines(source: str) -> list[str]:
    return re.sub(r"(?<!\\)\\\n", "", source.replace("\r\n", "\n")).split("\n")


def _character(found: re.Match[str]) -> str:
    if found["code"]:
        number = int(found["code"], 16)
        return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else ""
    glyph = found["long"] or found["two"]
    if glyph:
        return _GLYPHS.get(glyph, "")
    string = found["string"] or found["longstring"] or found["shortstring"]
    if string:
        return _STRINGS.get(string, "")
    if found["blank"]:
        return " "
    return "\\" if found["backslash"] else found["self"] or ""


def _arguments(text: str) -> list[str]:
    """A macro's arguments: separated by spaces, or held together by double quotes."""
    lexer = shlex.shlex(_COMMENT.sub("", text).replace(r"\ ", r"\~"), posix=True)
    lexer.whitespace, lexer.whitespace_split, lexer.quotes, lexer.escape, lexer.commenters = " \t", True, '"', "", ""
    try:
        return list(lexer)
    except ValueError:  # a quote that is not closed ends with the line
        return text.replace('"', "").split()


class _Reader:
    """Takes a page line by line; ``paragraphs`` grows."""

    def __init__(self) -> None:
        self.paragraphs: list[str] = []
        self._words: list[str] = []
        self._ends_with = ""
        self._conditional_depth = 0
        self._skipped_section = False
        self._heading_follows = False
        self._tag_follows = False

    def end_paragraph(self) -> None:
        text = " ".join(unescape(" ".join(self._words)).split())
        self._words = []
        if text and not self._skipped_section:
            self.paragraphs.append(text)

    def read(self, line: str) -> None:
        if self._ends_with:
            name = line[1:].split()[0] if line[:1] in (".", "'") and line[1:].split() else ""
            if name == self._ends_with:
                self._ends_with = ""
        elif self._conditional_depth:
            self._conditional_depth += line.count(r"\{") - line.count(r"\}")
        elif line[:1] in (".", "'") and (len(line) < 2 or not line[1].isdigit()):
            self._macro(line[1:].strip())
        elif not line.strip():
            self.end_paragraph()
        else:
            self._text(line)

    def _text(self, text: str) -> None:
        if self._heading_follows:
            self._heading_follows = False
            self._section(text)
        elif self._tag_follows:  # what a list of options names: hardly ever prose
            self._tag_follows = False
        else:
            self._words.append(_COMMENT.sub("", text).strip())
            if text.startswith(" "):  # indented lines are not filled
                self.end_paragraph()

    def _section(self, title: str) -> None:
        self._skipped_section = unescape(title).strip().upper() in _SECTIONS_LEFT_OUT

    def _macro(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        if name in _FONTS:
            arguments = _arguments(rest)
            self._text(("" if len(name) == 2 and name not in ("SM", "SB", "CW") else " ").join(arguments))
        elif name in ("SH", "SS"):
            self.end_paragraph()
            title = " ".join(_arguments(rest))
            if name == "SH":
                self._heading_follows = not title
                self._section(title)
            elif title:
                self._words = [title]
                self.end_paragraph()
        elif name == "TP":
            self.end_paragraph()
            self._tag_follows = True
        elif name in _BREAKS:
            self.end_paragraph()
        elif name in _LEFT_OUT_UNTIL:
            self.end_paragraph()
            self._ends_with = _LEFT_OUT_UNTIL[name]
        elif name in ("if", "ie", "el", "while"):
            self._conditional_depth = max(0, line.count(r"\{") - line.count(r"\}"))
        elif name in ("UE", "ME") and rest and self._words:
            self._words[-1] += rest.strip()

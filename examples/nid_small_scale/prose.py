"""Cut long texts into documents of running prose, at the borders of their sections."""

import re
from collections.abc import Iterable, Sequence

HEADING_WORDS = 12
LEAST_PROSE = 0.8
"""Share of a document's words that must stand in running prose."""

_ENDS_SENTENCE = re.compile(r"[.!?:;][\"'”’)\]]*$")
_PLAIN_WORD = re.compile(r"[\"'“‘(\[`*]*[A-Za-z][A-Za-z'’-]*(?:[.,;:!?\"'”’)\]`*]|\.\.\.)*")
_FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
_NO_PARAGRAPH = re.compile(r"^\s*(\||<|!\[|\[!\[)")
_MARKED_HEADING = re.compile(r"^#+\s+")


def is_heading(paragraph: str) -> bool:
    """Whether a paragraph looks like a heading: few words, and no sentence's end."""
    return len(paragraph.split()) <= HEADING_WORDS and not _ENDS_SENTENCE.search(paragraph)


def sections(paragraphs: Sequence[str]) -> list[list[str]]:
    """The paragraphs, cut before each heading that a longer text follows."""
    cut: list[list[str]] = []
    for position, paragraph in enumerate(paragraphs):
        following = paragraphs[position + 1 : position + 2]
        if not cut or (is_heading(paragraph) and following and not is_heading(following[0])):
            cut.append([])
        cut[-1].append(paragraph)
    return cut


def documents_of(paragraphs: Sequence[str], most_words: int) -> list[list[str]]:
    """Runs of whole sections with at most ``most_words`` words.

    A section of more words is cut between paragraphs; a paragraph of more stands alone.
    """
    pieces = [piece for section in sections(paragraphs) for piece in _joined(([p] for p in section), most_words)]
    return _joined(pieces, most_words)


def _joined(pieces: Iterable[Sequence[str]], most_words: int) -> list[list[str]]:
    joined: list[list[str]] = []
    words = most_words
    for piece in pieces:
        more = count_words(piece)
        if words + more > most_words:
            joined.append([])
            words = 0
        joined[-1].extend(piece)
        words += more
    return joined


def count_words(paragraphs: Iterable[str]) -> int:
    """Runs of characters other than white space."""
    return sum(len(paragraph.split()) for paragraph in paragraphs)


def prose_share(paragraphs: Sequence[str]) -> float:
    """The share of the words that stand in running prose; 0 without words.

    A paragraph counts as prose if it ends like a sentence and four of five of its words are plain ones: letters, and
    punctuation around them. Headings count as prose where they are followed by it.
    """
    words = prose = 0
    waiting = 0
    for paragraph in paragraphs:
        own = paragraph.split()
        words += len(own)
        plain = sum(_PLAIN_WORD.fullmatch(word) is not None for word in own) >= 0.8 * len(own)
        if plain and _ENDS_SENTENCE.search(paragraph):
            prose += len(own) + waiting
            waiting = 0
        else:
            waiting = len(own) if plain and is_heading(paragraph) else 0
    return prose / words if words else 0.0


def markdown_paragraphs(text: str) -> list[str]:
    """Headings and paragraphs of a Markdown file, one line each; no code blocks, tables, pictures and HTML."""
    blocks: list[list[str]] = [[]]
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
            blocks.append([])
        elif fence or _NO_PARAGRAPH.match(line) or not line.strip():
            blocks.append([])
        elif _MARKED_HEADING.match(line):
            blocks += [[_MARKED_HEADING.sub("", line)], []]
        else:
            blocks[-1].append(line)
    return [" ".join(" ".join(block).split()) for block in blocks if block]

"""Length and Markdown of an answer: what Arena-Hard's style control is made of.

The definitions are those of arena-hard-auto (``utils/add_markdown_info.py``): headings, list items and bold stretches
are counted on the text without fenced code blocks; tokens are counted on the whole text.
"""

import re
from collections.abc import Callable
from typing import Any

TokenCounter = Callable[[str], int]

COUNTED_BY_WORDS = "words and punctuation marks (no tokenizer was named)"

_CODE_BLOCK = re.compile("```[^`]*```")
_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")
# White space within the line alone, unlike there: it counts the same items, and many blank lines take no longer.
_ORDERED = re.compile(r"^[^\S\n]*\d+\.\s", re.MULTILINE)
_UNORDERED = re.compile(r"^[^\S\n]*[-*+]\s", re.MULTILINE)
_BOLD = {"**": re.compile(r"\*\*[^*\n]+\*\*"), "__": re.compile(r"__[^_\n]+__")}
_HEADINGS = {f"h{level}": re.compile(rf"^#{{{level}}}\s", re.MULTILINE) for level in range(1, 7)}


def count_words(text: str) -> int:
    """Words and punctuation marks: stands for tokens where no tokenizer is known."""
    return sum(1 for _ in _WORD_OR_MARK.finditer(text))


def style_metadata(text: str, count_tokens: TokenCounter = count_words) -> dict[str, Any]:
    """The ``metadata`` of an answer in Arena-Hard's files.

    Returns:
        ``token_len``, ``header_count`` (``h1`` … ``h6``), ``list_count`` (``ordered``, ``unordered``) and
        ``bold_count`` (``**``, ``__``), in this order, which readers rely on.
    """
    prose = _CODE_BLOCK.sub("``````", text)  # the fences stay, so that what follows one begins no line
    return {
        "token_len": count_tokens(text),
        "header_count": {name: _count(pattern, prose) for name, pattern in _HEADINGS.items()},
        "list_count": {"ordered": _count(_ORDERED, prose), "unordered": _count(_UNORDERED, prose)},
        "bold_count": {name: _count(pattern, prose) for name, pattern in _BOLD.items()},
    }


def style_vector(metadata: dict[str, Any]) -> tuple[float, float, float, float]:
    """Tokens, headings, list items, bold stretches of an answer."""
    headings, items, bold = (sum(metadata[name].values()) for name in ("header_count", "list_count", "bold_count"))
    return float(metadata["token_len"]), float(headings), float(items), float(bold)


def _count(pattern: re.Pattern[str], text: str) -> int:
    return sum(1 for _ in pattern.finditer(text))

"""How long, how varied and how alike texts are, counted in words; pure functions."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import regex

from nid_plugin.documents.words import UNSPACED

_ASCII_WORD = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*")
_LETTERS = rf"[[\p{{L}}\p{{N}}\p{{M}}]--[{UNSPACED}]]+"
_WORD = regex.compile(rf"[{UNSPACED}]\p{{M}}*|{_LETTERS}(?:'{_LETTERS})*", regex.V1)

Gram = tuple[str, ...]


def normalised_words(text: str) -> list[str]:
    """Runs of letters (with their accents) and digits, in lower case; punctuation and white space do not count.

    Both apostrophes and both ways to write an accented letter come out alike; a letter of a script without spaces
    between words is a word of its own.
    """
    folded = text.casefold()
    if folded.isascii():
        return _ASCII_WORD.findall(folded)
    return _WORD.findall(unicodedata.normalize("NFC", folded).replace("’", "'"))


def n_grams(words: Sequence[str], n: int) -> Counter[Gram]:
    """Each run of ``n`` words with how often it occurs."""
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def overlap_f1(one: Sequence[str], other: Sequence[str], n: int) -> float | None:
    """The harmonic mean of precision and recall of common n-grams: ROUGE-N (Lin, 2004) without stemming.

    2 · |common| / (|one's| + |other's|), n-grams counted with repetition; 0 to 1, symmetric. None where a text has
    fewer than ``n`` words.
    """
    mine, theirs = n_grams(one, n), n_grams(other, n)
    if not mine or not theirs:
        return None
    return 2 * (mine & theirs).total() / (mine.total() + theirs.total())


def distinct_share(words: Sequence[str], n: int) -> float | None:
    """Different n-grams by all n-grams of a text (distinct-n of Li et al., 2016, within one text); None without any.

    It falls as a text gets longer: compare texts of the same number of words.
    """
    grams = n_grams(words, n)
    return len(grams) / grams.total() if grams else None


def copied_share(words: Sequence[str], source: Sequence[str], n: int) -> float | None:
    """The share of a text's n-grams, counted with repetition, that occur in ``source``; None without any."""
    grams = n_grams(words, n)
    if not grams:
        return None
    known = n_grams(source, n)
    return sum(count for gram, count in grams.items() if gram in known) / grams.total()

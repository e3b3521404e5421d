"""Text as the Moses tools would have it, and the letters of Romanian. Pure functions; sacremoses does the work.

Nothing here drops a line. The tools are those of sacremoses, a port of the Moses scripts to Python.
"""

import functools
import re
import unicodedata
from typing import Any

_SPACE = re.compile(r"\s+")
_SPACED_PUNCTUATION = re.compile(r" ([,.?!:;])(?=\s|$)")
# The end of a line that is one full stop: Moses splits it off whatever stands before, sacremoses would keep "U.S.A.".
_FINAL_STOP = re.compile(r"(?<=[^\s.])\.$")
# Letters and digits that Moses never separates, or one other character. Letters of other alphabets count one each.
_SMALLEST_PIECE = re.compile(r"[A-Za-z0-9À-ÖØ-öø-ɏ]+|\S")
_HYPHENATED = re.compile(r"(\S)-(\S)")
_CEDILLA_TO_COMMA = str.maketrans("şţŞŢ", "șțȘȚ")
_WITHOUT_DIACRITICS = str.maketrans("șțăâîȘȚĂÂÎ", "staaiSTAAI")


def fold_space(text: str) -> str:
    """White space of all kinds as single spaces, none at the ends."""
    return _SPACE.sub(" ", text).strip()


def normalise_punctuation(text: str, language: str) -> str:
    """Quotes, dashes, apostrophes and spaces before punctuation made uniform (Moses' ``normalize-punctuation``)."""
    return str(_normaliser(language).normalize(text))


def remove_non_printing(text: str) -> str:
    """A space for each character of Unicode's categories C (Moses' ``remove-non-printing-char``)."""
    if text.isprintable():
        return text
    return "".join(" " if unicodedata.category(character)[0] == "C" else character for character in text)


def moses_tokens(text: str, language: str, *, split_hyphens: bool = False) -> list[str]:
    """Moses tokens, special characters not written as entities.

    Args:
        text: one sentence, plain.
        language: decides about abbreviations and apostrophes.
        split_hyphens: make ``@-@`` of hyphens inside words (the tokenizer's option ``-a``).
    """
    text = _FINAL_STOP.sub(" .", text.strip())
    return list(_tokenizer(language).tokenize(text, aggressive_dash_splits=split_hyphens, escape=False))


def moses_token_bounds(text: str) -> tuple[int, int]:
    """At least and at most how many Moses tokens ``text`` has; many times faster than making them.

    Moses never joins words and never splits a run of letters and digits.
    """
    return len(text.split()), len(_SMALLEST_PIECE.findall(text))


def caseless_moses_tokens(text: str, language: str) -> list[str]:
    """Moses tokens in lower case, the same whether ``text`` has capitals or not.

    Moses leaves a full stop on its word where the next word is in lower case, and knows abbreviations by their case: on
    text without capitals it would split hardly any sentence end. So each word after a full stop gets a capital and
    each abbreviation its known form before Moses sees them.
    """
    words = fold_space(text).lower().split(" ")
    for index, word in enumerate(words):
        if not word.endswith("."):
            continue
        words[index] = _abbreviations(language).get(word[:-1].lower(), word[:-1]) + "."
        if index + 1 < len(words):
            following = words[index + 1]
            capital = following[:1].upper() + following[1:]
            words[index + 1] = capital if capital.lower() == following else following
    return [token.lower() for token in moses_tokens(" ".join(words), language)]


def split_compounds(tokenised: str) -> str:
    """``rich-text`` → ``rich ##AT##-##AT## text``, as BLEU on WMT14 is reported since Vaswani et al. (2017).

    Left to right without overlap: of ``a-b-c`` only the first hyphen is split, as by everyone's script.
    """
    return _HYPHENATED.sub(r"\1 ##AT##-##AT## \2", tokenised)


def close_up_punctuation(text: str) -> str:
    """``Ja , gut .`` → ``Ja, gut.``: no space before a punctuation mark that ends a word."""
    return _SPACED_PUNCTUATION.sub(r"\1", text)


def straighten_apostrophes(text: str) -> str:
    """``’`` as ``'``."""
    return text.replace("’", "'")


def normalise_romanian(text: str) -> str:
    """ș and ț with the comma below that Romanian has, where Turkish letters with a cedilla stand for them."""
    return text.translate(_CEDILLA_TO_COMMA)


def remove_romanian_diacritics(text: str) -> str:
    """ă, â, î, ș, ț as plain letters (Sennrich et al., 2016); cedilla forms count as ș and ț."""
    return normalise_romanian(text).translate(_WITHOUT_DIACRITICS)


@functools.cache
def _tokenizer(language: str) -> Any:
    from sacremoses import MosesTokenizer  # type: ignore[import-untyped]

    return MosesTokenizer(language)


@functools.cache
def _abbreviations(language: str) -> dict[str, str]:
    """Words after which a full stop ends no sentence: lower case → as Moses lists them."""
    tokenizer = _tokenizer(language)
    return {listed.lower(): listed for listed in (*tokenizer.NONBREAKING_PREFIXES, *tokenizer.NUMERIC_ONLY_PREFIXES)}


@functools.cache
def _normaliser(language: str) -> Any:
    from sacremoses import MosesPunctNormalizer

    return MosesPunctNormalizer(language)

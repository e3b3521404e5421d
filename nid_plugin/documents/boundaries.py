"""Where a text can be cut in two: at the end of the sentence, word or token nearest its middle."""

from collections.abc import Callable
from typing import Any

import regex
import sentencex

from nid_plugin.documents.words import UNSPACED, WHITE

# A word ends where white space follows it, or, in scripts without spaces, at a boundary of Unicode's default word
# segmentation (UAX #29), except in front of the vowel signs of Thai and Lao that UAX #29 takes for letters.
_WORD_END = regex.compile(
    rf"(?w)(?<=[^{WHITE}])(?=[{WHITE}])|(?<=[{UNSPACED}])\b(?=[{UNSPACED}])(?!\p{{GCB=SM}})", regex.V1
)
_CLUSTER = regex.compile(r"\X")
_CLOSING = regex.compile(r"""[)\]"'”’»]+(?=\s+[^\s\p{Ll}])""", regex.V1)
_ANY_UNSPACED = regex.compile(rf"[{UNSPACED}]", regex.V1)
# sentencex 1.0.32 takes every white space to be one byte long in places, and panics within a longer one.
_WIDE_WHITE = regex.compile(r"[^\S\x00-\x7f]")

NearestIn = Callable[[int, int, int, int, int], int | None]
"""``(start, stop, middle, low, high)``: the end nearest the middle, of the text from ``start`` to ``stop``, among those
from ``low`` to ``high``; of two, the first. None where there is none."""

_REACH = 100  # characters to each side of the middle that are looked at first; then twice as many, and so on
_GROWTH = 2
# A window begins and ends anywhere, so that near its edges an abbreviation, number or list can be misread.
_SENTENCE_EDGE = 40
_WORD_EDGE = 16
_LONGEST_CLUSTER = 64


def sentence_cut(text: str, language: str, smallest: float) -> int | None:
    """Where the first half ends when the text is cut at the sentence end nearest its middle (of two, the first).

    Sentences are told apart by the library sentencex in a window around the middle, which is widened as needed.

    Args:
        language: ISO 639-1 code of the rules to apply.
        smallest: least share of the text's characters that a half may have.

    Returns:
        An index into the text, the character before it no white space; or None if there is no sentence end.
    """

    def nearest_in(start: int, stop: int, middle: int, low: int, high: int) -> int | None:
        sentences = _sentences(language, text[start:stop])
        if stop < len(text) and sentences:
            del sentences[-1]  # cut off by the window; where it ends is not relied on
        before = None
        for sentence in sentences:  # one loop: this is where most of the time of halving goes
            length = len(sentence.rstrip())
            end = start + length
            start += len(sentence)
            if end == start and not text[end : end + 1].isspace():
                end = _end_without_space(text, end)
            if not length or end < low:
                continue
            if end > middle:
                return _nearer(before, end, middle, high)
            before = end
        return before

    return _nearest(text, smallest, _SENTENCE_EDGE, nearest_in)


def _end_without_space(text: str, end: int) -> int:
    """Where a sentence ends that the library takes to end there although no white space follows; 0 if it does not.

    A script without spaces has none there. Otherwise it is a name with a full stop in it (``socket.AF_INET``), or the
    sentence stands in brackets or quotes that are opened far in front: what closes them belongs to it.
    """
    if not text[end - 1].isascii() or _ANY_UNSPACED.match(text, end):
        cluster = _CLUSTER.match(text, end - 1)  # an exclamation mark may have an emoji selector after it
        return cluster.end() if cluster else 0
    closing = _CLOSING.match(text, end)
    return closing.end() if closing else 0


def _sentences(language: str, text: str) -> list[str]:
    """The sentences with the white space after each, character for character as long as the text; other white space
    than ASCII's comes as spaces.
    """
    if not text.isascii():
        text = _WIDE_WHITE.sub(" ", text)
    try:
        return sentencex.segment(language, text)
    except BaseException as error:  # a panic of the library is no `Exception`, and its class cannot be imported
        if type(error).__name__ != "PanicException":
            raise
        return []  # one document that cannot be cut, rather than the end of a run over millions


def word_cut(text: str, smallest: float) -> int | None:
    """As :func:`sentence_cut`, at the word end nearest the middle."""

    def nearest_in(start: int, stop: int, middle: int, low: int, high: int) -> int | None:
        before = None
        for match in _WORD_END.finditer(text, start, stop):
            end = match.start()
            if end < low:
                continue
            if end > middle:
                return _nearer(before, end, middle, high)
            before = end
        return before

    return _nearest(text, smallest, _WORD_EDGE, nearest_in)


def _nearest(text: str, smallest: float, edge: int, nearest_in: NearestIn) -> int | None:
    """The end nearest the middle of the text (white space at its own ends apart) among those that ``nearest_in`` finds.

    Args:
        nearest_in: see ``NearestIn``; ends within ``edge`` characters of a window's start or stop are not relied on.
    """
    length = len(text)
    first, last = _content(text)
    middle = (first + last) // 2
    low = max(first + 1, int(smallest * length))
    high = min(last - 1, length - low)
    reach = _REACH
    while low <= high:
        start = middle - reach if middle > reach else 0
        stop = middle + reach
        sure = reach - edge
        nearest = nearest_in(start, stop, middle, low, high)
        if nearest is not None and middle - sure <= nearest <= middle + sure:
            return nearest
        if (start == 0 or middle - sure <= low) and (stop >= length or middle + sure >= high):
            return nearest
        reach *= _GROWTH
    return None


def _nearer(before: int | None, after: int, middle: int, high: int) -> int | None:
    """Of the last end up to the middle and the first one behind it the nearer one up to ``high``; of two, the first."""
    if after > high:
        return before
    return after if before is None or after - middle < middle - before else before


def _content(text: str) -> tuple[int, int]:
    """Where the text without the white space at its ends begins and ends."""
    first = len(text) - len(text.lstrip()) if text[0].isspace() else 0
    return first, len(text.rstrip()) if text[-1].isspace() else len(text)


def token_cut(text: str, tokenizer: Any, smallest: float) -> int | None:
    """As :func:`sentence_cut`, at the token end nearest the middle, counted in tokens of a fast tokenizer.

    Ends within a character, or between a character and marks that belong to it, are passed over.

    Args:
        tokenizer: of the library tokenizers.
        smallest: least share of the text's tokens that a half may have.
    """
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    count = len(offsets)
    low = max(1, int(smallest * count))
    first, last = _content(text)
    for distance in range(count // 2 + 1):
        for place in (count // 2 - distance, count // 2 + distance):
            if not low <= place <= count - low or place >= count:
                continue
            cut = offsets[place][0]
            whole = offsets[place - 1][1] <= cut
            cut = len(text[:cut].rstrip())
            if whole and first < cut < last and is_cluster_boundary(text, cut):
                return cut
    return None


def is_cluster_boundary(text: str, place: int) -> bool:
    """Whether the place is not inside of what a reader sees as one character (a letter with its marks, an emoji)."""
    if text[place - 1 : place + 1].isascii():
        return text[place - 1 : place + 1] != "\r\n"
    start = max(0, place - _LONGEST_CLUSTER)
    return any(match.end() == place for match in _CLUSTER.finditer(text, start, place + _LONGEST_CLUSTER))

"""The control without a teacher: the completion is the document's own second half."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nid_plugin.controls.by_prompt import ByPrompt
from nid_plugin.documents.words import words
from nid_plugin.halving import Half
from nid_plugin.pairs import HALF_OF_DOCUMENT, Pair
from plugin_common.errors import UserError


@dataclass
class ControlCounts:
    """What became of the documents.

    ``pairs`` are written; ``without_document`` of the teacher's pairs have no document in the halves (and none is
    written for them); ``cut`` completions were shortened to the teacher's length, ``shorter`` ones are shorter than the
    teacher's anyway. ``words`` and ``teacher_words`` are totals over the written completions and over the teacher's.
    """

    pairs: int = 0
    without_document: int = 0
    cut: int = 0
    shorter: int = 0
    words: int = 0
    teacher_words: int = 0


def control_pair(half: Half) -> Pair:
    """The pair whose completion is the document's second half: prompt + completion is the document's text."""
    return _pair(half, half.second_half)


def all_controls(halves: Iterable[Half], counts: ControlCounts) -> Iterator[Pair]:
    """A control pair for each document, in order."""
    for half in halves:
        counts.pairs += 1
        yield control_pair(half)


def controls_like(
    teacher: Iterable[Pair], halves: ByPrompt[Half], counts: ControlCounts, *, match_length: bool
) -> Iterator[Pair]:
    """Control pairs of exactly the documents that the teacher's pairs have, in their order.

    Args:
        teacher: its pairs; prompts are what they and the documents are matched by.
        halves: the documents; what is not taken stays there.
        counts: added to.
        match_length: cut a second half that has more words than the teacher's completion after as many words.

    Raises:
        UserError: no document has the prompt of any pair.
    """
    for pair in teacher:
        half = halves.take(pair.prompt)
        if half is None:
            counts.without_document += 1
            continue
        counts.pairs += 1
        teacher_words, own_words = len(words(pair.completion)), len(words(half.second_half))
        completion = first_words(half.second_half, teacher_words) if match_length else half.second_half
        counts.cut += len(completion) < len(half.second_half)
        counts.shorter += own_words < teacher_words
        counts.words += min(own_words, teacher_words) if match_length else own_words
        counts.teacher_words += teacher_words
        yield _pair(half, completion)
    if not counts.pairs:
        raise UserError(
            f"--like: none of its {counts.without_document:,} prompts is the first half of a document in --halves; "
            "give the halves that the teacher's completions were made from (halves.jsonl in the ledger's folder)"
        )


def first_words(text: str, count: int) -> str:
    """The text up to the end of its word number ``count``, white space as it stands; the whole text if it has no more.

    Words as ``documents.words`` has them.
    """
    if count < 1:
        raise ValueError(f"count {count}: at least one word is expected")
    listed = words(text)
    if len(listed) <= count:
        return text
    end = 0
    for word in listed[:count]:
        end = text.index(word, end) + len(word)
    return text[:end]


def _pair(half: Half, completion: str) -> Pair:
    return Pair(half.document, half.prompt, completion, half.source, HALF_OF_DOCUMENT, HALF_OF_DOCUMENT)

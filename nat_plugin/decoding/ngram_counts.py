"""Count the n-grams of a corpus with sorted arrays.

Memory grows with the number of different n-grams, 16 bytes each and as much again while they are merged; the corpus
itself is kept as numbers in a temporary file, 4 bytes a word and 4 more for each order that is worked on.
"""

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from nat_plugin.decoding.ngram_tables import BOS, EOS, UNK
from plugin_common.errors import UserError
from plugin_common.text_lines import decode_block, read_blocks, shown_name

Ints = NDArray[np.int64]

UNK_ID, BOS_ID, EOS_ID = 0, 1, 2
_CHUNK_WORDS = 2**22
_RESERVED = re.compile(r"(?<!\S)(?:<s>|</s>)(?!\S)")


@dataclass(frozen=True)
class CountedOrder:
    """The different n-grams of one order, sorted by context and word.

    Attributes:
        context: [m] row of the n-gram without its last word in the table of the order below; 0 for unigrams.
        word: [m] last word; for unigrams the row itself.
        count: [m] occurrences.
    """

    context: Ints
    word: Ints
    count: Ints

    def __len__(self) -> int:
        return len(self.word)


@dataclass(frozen=True)
class NgramCounts:
    """What a corpus holds. Word 0 is ``<unk>``, 1 is ``<s>``, 2 is ``</s>``; the latter enclose each sentence."""

    vocabulary: Sequence[str]
    orders: Sequence[CountedOrder]
    sentences: int
    words: int


def count_ngrams(
    paths: Iterable[str],
    order: int,
    *,
    on_lines: Callable[[int], object] = lambda lines: None,
    chunk_words: int = _CHUNK_WORDS,
) -> NgramCounts:
    """Count the n-grams of orders 1 to ``order``; each line is a sentence, words are divided by white space.

    Args:
        paths: token text, plain or ``.gz``; ``-`` is standard input.
        order: the longest n-grams, 1 or more.
        on_lines: told how many lines have been read since the last call.
        chunk_words: how many words are sorted at a time.

    Raises:
        UserError: a file that cannot be read or is no text, a line with ``<s>`` or ``</s>``, or no words at all.
    """
    with contextlib.ExitStack() as files:
        text = files.enter_context(tempfile.TemporaryFile())
        vocabulary, sentences, words = _number_words(paths, text, on_lines)
        if not words:
            raise UserError(f"{', '.join(map(shown_name, paths))}: no words; expected token text, one sentence a line")
        numbered = _Numbers(text, chunk_words)
        ends = numbered  # the n-gram that ends at each word, by its row in its table; -1 for none
        unigrams = sum(np.bincount(chunk, minlength=len(vocabulary)) for chunk in numbered.chunks())
        rows = np.arange(len(vocabulary))
        orders = [CountedOrder(np.zeros_like(rows), rows, np.asarray(unigrams, dtype=np.int64))]
        for n in range(2, order + 1):
            keys, counts = _count(_keys(numbered, ends, len(vocabulary)))
            orders.append(CountedOrder(keys // len(vocabulary), keys % len(vocabulary), counts))
            if n < order:
                stream = files.enter_context(tempfile.TemporaryFile())
                for chunk in _keys(numbered, ends, len(vocabulary)):
                    _rows(keys, chunk).astype(np.int32).tofile(stream)
                ends = _Numbers(stream, chunk_words)
    return NgramCounts(list(vocabulary), orders, sentences, words)


def _number_words(
    paths: Iterable[str], stream: IO[bytes], on_lines: Callable[[int], object]
) -> tuple[dict[str, int], int, int]:
    """Write all sentences as int32 numbers; ``(vocabulary, sentences, words)``."""
    number = _Vocabulary({UNK: UNK_ID, BOS: BOS_ID, EOS: EOS_ID})
    sentences = words = 0
    for path in paths:
        for block in read_blocks(path):
            lines, _ = decode_block(block, path)
            for i, line in enumerate(lines):
                if _RESERVED.search(line):
                    raise UserError(
                        f"{shown_name(path)}, line {block.first_line + i}: holds {BOS} or {EOS}; these stand for the "
                        "start and end of a sentence and are added to every line, remove them from the text"
                    )
            ids = [i for line in lines for i in (BOS_ID, *[number[word] for word in line.split()], EOS_ID)]
            np.array(ids, dtype=np.int32).tofile(stream)
            sentences += len(lines)
            words += len(ids) - 2 * len(lines)
            on_lines(len(lines))
    return number, sentences, words


class _Vocabulary(dict[str, int]):
    """Numbers new words in the order in which they come."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number


class _Numbers:
    """int32 numbers in a file, read in chunks."""

    def __init__(self, stream: IO[bytes], chunk_words: int) -> None:
        self.stream, self.chunk_words = stream, chunk_words
        stream.flush()

    def chunks(self) -> Iterator[NDArray[np.int32]]:
        self.stream.seek(0)
        offset = 0
        while True:
            self.stream.seek(offset)
            chunk = np.fromfile(self.stream, dtype=np.int32, count=self.chunk_words)
            if not len(chunk):
                return
            offset += chunk.nbytes
            yield chunk


def _keys(numbered: _Numbers, ends: _Numbers, words: int) -> Iterator[Ints]:
    """For each word: context's row * words + word; -1 where a sentence is too short for it, as at its start."""
    before = np.full(1, -1, dtype=np.int64)
    for word, end in zip(numbered.chunks(), ends.chunks(), strict=True):
        context = np.concatenate([before, end[:-1]])
        before = end[-1:].astype(np.int64)
        yield np.where((context >= 0) & (word != BOS_ID), context * words + word, -1)


def _count(chunks: Iterator[Ints]) -> tuple[Ints, Ints]:
    """``(keys, counts)`` of all keys from 0, sorted; runs of like size are merged, so that few are held."""
    runs: list[tuple[Ints, Ints]] = []
    for chunk in chunks:
        keys, counts = np.unique(chunk, return_counts=True)
        first = int(np.searchsorted(keys, 0))
        runs.append((keys[first:], counts[first:]))
        while len(runs) > 1 and 2 * len(runs[-1][0]) > len(runs[-2][0]):
            runs.append(_merged(runs.pop(), runs.pop()))
    while len(runs) > 1:
        runs.append(_merged(runs.pop(), runs.pop()))
    return runs[0]


def _merged(one: tuple[Ints, Ints], other: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
    keys, counts = np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])
    order = np.argsort(keys, kind="stable")  # two sorted runs: linear
    keys, counts = keys[order], counts[order]
    first = np.flatnonzero(np.concatenate([np.ones(min(1, len(keys)), dtype=bool), keys[1:] != keys[:-1]]))
    return keys[first], np.add.reduceat(counts, first) if len(first) else counts


def _rows(keys: Ints, wanted: Ints) -> Ints:
    """Where each of ``wanted`` stands in ``keys``; -1 stays -1. Sorted first: neighbours search the same memory."""
    different, back = np.unique(wanted, return_inverse=True)
    return np.where(different >= 0, np.searchsorted(keys, different), -1)[back]

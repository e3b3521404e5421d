"""Documents into batches of at most so many tokens, nearly full and in random order."""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from plugin_common.errors import UserError

OPEN_BATCHES = 64
"""Batches that wait for documents at a time: more fill better, fewer keep closer to the given order."""


def pack(
    lengths: NDArray[np.int64],
    order: NDArray[np.int64],
    *,
    max_tokens: int | None,
    max_sentences: int | None,
) -> list[NDArray[np.int64]]:
    """Batches of documents, each place of ``order`` once, of at most ``max_tokens`` tokens and ``max_sentences``.

    Each document, in the given order, goes into the fullest of the open batches that still has room for it (best fit).
    Where none has, a new one is opened, and if too many are open the fullest is closed. At the end, the documents of
    the batches that are still open are packed again, longest first. The same input gives the same batches. Time
    ``O(n log n)``.

    Args:
        lengths: ``[D]`` tokens of each document.
        order: ``[n]`` indices of documents; one that comes twice is packed twice.
        max_tokens: None for no limit; likewise ``max_sentences``, but one of them there must be.

    Returns:
        index arrays; together they hold what ``order`` holds.

    Raises:
        UserError: no limit, one below 1, or a document longer than ``max_tokens``.
    """
    sizes = np.asarray(lengths)[order].tolist()
    _check(sizes, max_tokens, max_sentences)
    tokens = sum(sizes) if max_tokens is None else max_tokens
    count = len(sizes) if max_sentences is None else max_sentences
    batches, unfinished = _best_fit(range(len(sizes)), sizes, tokens, count)
    left = sorted((place for batch in unfinished for place in batch), key=lambda place: (-sizes[place], place))
    closed, still_open = _best_fit(left, sizes, tokens, count, open_batches=len(left))
    again = closed + still_open
    batches += again if len(again) < len(unfinished) else unfinished
    return [np.asarray(order)[batch] for batch in batches]


def _check(sizes: Sequence[int], max_tokens: int | None, max_sentences: int | None) -> None:
    if max_tokens is None and max_sentences is None:
        raise UserError("neither `--max-tokens` nor `--batch-size` is given; how much is in a batch?")
    for option, limit in (("--max-tokens", max_tokens), ("--batch-size", max_sentences)):
        if limit is not None and limit < 1:
            raise UserError(f"`{option}` must be at least 1, found {limit}")
    longest = max(sizes, default=0)
    if max_tokens is not None and longest > max_tokens:
        raise UserError(
            f"a pair of {longest} tokens does not fit into `--max-tokens {max_tokens}`; raise it, or let "
            f"`--tokens-per-pair {max_tokens}` cut the pairs"
        )


def _best_fit(
    places: Sequence[int], sizes: Sequence[int], max_tokens: int, max_sentences: int, open_batches: int = OPEN_BATCHES
) -> tuple[list[list[int]], list[list[int]]]:
    """The batches that were closed, in this order, and those that are open at the end, fullest first."""
    batches: list[list[int]] = []
    closed: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # of the open batches, ascending: tokens that still fit, place in `batches`
    for place in places:
        size = sizes[place]
        found = bisect_left(rooms, (size, -1))
        if found < len(rooms):
            room, batch = rooms.pop(found)
        else:
            if len(rooms) >= open_batches:
                closed.append(batches[rooms.pop(0)[1]])
            room, batch = max_tokens, len(batches)
            batches.append([])
        batches[batch].append(place)
        if room == size or len(batches[batch]) == max_sentences:
            closed.append(batches[batch])
        else:
            insort(rooms, (room - size, batch))
    return closed, [batches[batch] for _, batch in rooms]

"""Interpolated modified Kneser-Ney estimation (Chen & Goodman, 1998; in the form of Heafield et al., 2013).

With a(hw) the adjusted count of the n-gram hw (h its context, w its last word, h' the context without its oldest word):

    a(hw)   = occurrences, if hw is of the highest order or starts with <s>; else how many different words precede hw
    p(w|h)  = (a(hw) - D(a(hw))) / sum_x a(hx)  +  b(h) p(w|h')
    b(h)    = what the discounts D, and n-grams that are pruned, have taken from sum_x a(hx), divided by that sum
    p(w|h') for unigrams = 1 / words (all but <s>, with <unk>)
    D(k)    = k - (k + 1) Y t_{k+1} / t_k,  Y = t_1 / (t_1 + 2 t_2),  t_k = n-grams of the order with a = k;  k up to 3

D(k) for k > 3 is D(3), and D(0) is 0.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nat_plugin.decoding.ngram_counts import BOS_ID, CountedOrder, NgramCounts
from nat_plugin.decoding.ngram_tables import NEVER, NgramTable, NgramTables
from plugin_common.errors import UserError

logger = logging.getLogger(__name__)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DISCOUNTS_WITHOUT_STATISTICS = (0.0, 0.5, 1.0, 1.5)


@dataclass(frozen=True)
class Estimate:
    """A model and how it came about.

    Attributes:
        model: the back-off model.
        discounts: for each order D(0), D(1), D(2), D(3 and more).
        counted: n-grams of each order before pruning.
    """

    model: NgramTables
    discounts: Sequence[Sequence[float]]
    counted: Sequence[int]


def check_thresholds(prune: Sequence[int], orders: int) -> list[int]:
    """The pruning threshold of each order: ``prune``, its last value repeated.

    Raises:
        UserError: there are too many, the first is not 0, or one is less than the one before.
    """
    given = list(prune) or [0]
    if len(given) > orders or given[0] != 0 or any(b < a for a, b in pairwise(given)):
        raise UserError(
            f"--prune {' '.join(map(str, given))}: expected up to {orders} counts, the first 0 and none less than the "
            "one before (0 0 1 leaves out the 3-grams and longer ones that occur once)"
        )
    return given + [given[-1]] * (orders - len(given))


def estimate(counts: NgramCounts, prune: Sequence[int] = ()) -> Estimate:
    """Estimate a model from counts.

    Where an order has no n-gram of adjusted count 1, 2 or 3, or gives a discount out of range (as tiny or
    artificial corpora do), the discounts 0.5, 1 and 1.5 are taken, with a warning.

    Args:
        counts: of the corpus.
        prune: for each order the count up to which n-grams are left out; orders beyond the list take its last value.
            The first is 0, and none is less than the one before.

    Raises:
        UserError: ``prune`` is not of that form.
    """
    thresholds = check_thresholds(prune, len(counts.orders))
    suffixes = _suffixes(counts.orders)
    adjusted = _adjusted_counts(counts.orders, suffixes)
    lower = np.full(len(counts.vocabulary), 1.0 / (len(counts.vocabulary) - 1))
    discounts, probs, backoffs, kept = [], [], [], []
    for n, (order, adjusted_counts) in enumerate(zip(counts.orders, adjusted, strict=True), start=1):
        discounts.append(_discounts(adjusted_counts, n))
        keep = (order.count > thresholds[n - 1]) | (n == 1)
        contexts = len(counts.orders[n - 2]) if n > 1 else 1
        discounted, backoff = _discount(order, adjusted_counts, keep, np.array(discounts[-1]), contexts)
        lower = discounted + backoff[order.context] * lower[suffixes[n - 1]]
        probs.append(lower)
        kept.append(np.flatnonzero(keep))
        if n > 1:
            backoffs.append(backoff)
    backoffs.append(np.ones(len(counts.orders[-1])))
    probs[0][BOS_ID] = 10**NEVER
    tables = [
        NgramTable(_words(counts.orders, n, rows), _log10(probs[n][rows]), _log10(backoffs[n][rows]))
        for n, rows in enumerate(kept)
    ]
    return Estimate(NgramTables(counts.vocabulary, tables), discounts, [len(order) for order in counts.orders])


def _suffixes(orders: Sequence[CountedOrder]) -> list[Ints]:
    """For each order the row of each n-gram without its oldest word, in the order below."""
    words = len(orders[0])
    suffixes = [np.arange(words)]  # of unigrams: read as "the uniform probability of this word"
    for n, order in enumerate(orders[1:], start=2):
        if n == 2:
            suffixes.append(order.word)
            continue
        below = orders[n - 2]
        wanted = suffixes[-1][order.context] * words + order.word
        suffixes.append(np.searchsorted(below.context * words + below.word, wanted))
    return suffixes


def _adjusted_counts(orders: Sequence[CountedOrder], suffixes: Sequence[Ints]) -> list[Ints]:
    adjusted = []
    starts = np.arange(len(orders[0])) == BOS_ID
    for n, order in enumerate(orders, start=1):
        if n > 1:
            starts = starts[order.context]
        if n == len(orders):
            adjusted.append(order.count.copy())
        else:
            preceded = np.bincount(suffixes[n], minlength=len(order))
            adjusted.append(np.where(starts, order.count, preceded))
    adjusted[0][BOS_ID] = 0  # nothing predicts it
    return adjusted


def _discounts(adjusted: Ints, n: int) -> tuple[float, ...]:
    """D(0) to D(3) of order ``n``."""
    t = np.bincount(np.minimum(adjusted, 5), minlength=6).astype(float)
    if (t[1:4] > 0).all():
        y = t[1] / (t[1] + 2 * t[2])
        found = (0.0, *(float(k - (k + 1) * y * t[k + 1] / t[k]) for k in (1, 2, 3)))
        if all(0 <= discount <= k for k, discount in enumerate(found)):
            return found
    logger.warning(
        "order %s: too little text for discounts of its own (%s n-grams of adjusted count 1 to 4); took %s",
        n,
        ", ".join(f"{count:.0f}" for count in t[1:5]),
        DISCOUNTS_WITHOUT_STATISTICS[1:],
    )
    return DISCOUNTS_WITHOUT_STATISTICS


def _discount(
    order: CountedOrder, adjusted: Ints, keep: NDArray[np.bool_], discounts: Floats, contexts: int
) -> tuple[Floats, Floats]:
    """``(discounted relative frequency [n-grams], b [contexts])``; b is 1 where nothing follows a context."""
    taken = np.where(keep, discounts[np.minimum(adjusted, 3)], adjusted)
    total = np.bincount(order.context, weights=adjusted, minlength=contexts)
    free = np.bincount(order.context, weights=taken, minlength=contexts)
    backoff = np.divide(free, total, out=np.ones(contexts), where=total > 0)
    return np.where(adjusted > 0, adjusted - taken, 0.0) / np.maximum(total, 1)[order.context], backoff


def _words(orders: Sequence[CountedOrder], n: int, rows: Ints) -> NDArray[np.int32]:
    """[rows, n + 1] the words of n-grams of ``orders[n]``."""
    words = np.empty((len(rows), n + 1), dtype=np.int32)
    for column in range(n, -1, -1):
        words[:, column] = orders[column].word[rows]
        rows = orders[column].context[rows]
    return words


def _log10(values: Floats) -> NDArray[np.float32]:
    with np.errstate(divide="ignore"):
        return np.maximum(np.log10(values), NEVER).astype(np.float32)

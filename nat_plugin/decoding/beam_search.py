"""CTC prefix beam search with an n-gram language model, for a batch of sentences at once, in numpy alone.

A prefix is a translation so far: labels after repeats are merged and blanks dropped. Its CTC probability sums the
alignments that yield it; those that end in blank and those that end in its last label are kept apart, because a label
that follows itself makes a new token only after a blank (Graves, 2012, section 7.5.3; Hannun et al., 2014). Every
sentence keeps its ``beam`` best prefixes by

    log p_ctc(prefix) + lm_weight * log p_lm(prefix) + token_bonus * tokens(prefix)

and at the end of the sentence ``lm_weight * log p_lm(</s> | prefix)`` is added. All logarithms are natural.

All arrays have the batch (or those of its sentences that have not ended) as first axis and the beam as second: Python
loops over positions only. Sentences do not influence each other: one alone gives what it gives in a batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nat_plugin.decoding.ngram_lm import NgramLm
from nat_plugin.decoding.prefix_beams import IMPOSSIBLE, NO_TOKEN, Floats, Ints, PrefixBeams
from plugin_common.errors import UserError, raise_all


@dataclass(frozen=True)
class BeamOptions:
    """How wide to search and what to add to the CTC model's log-probability.

    Attributes:
        beam: prefixes kept for each sentence.
        candidates: labels considered at each position: the most probable ones. A prefix's last label that is not among
            them counts as impossible there.
        lm: n-gram language model over the same labels; None for none.
        lm_weight: factor of the language model's natural-log probability, 0 or more.
        token_bonus: added for each token, in nats; a language model alone prefers short outputs.

    Raises:
        UserError: a value is out of range.
    """

    beam: int
    candidates: int = 20
    lm: NgramLm | None = None
    lm_weight: float = 0.0
    token_bonus: float = 0.0

    def __post_init__(self) -> None:
        checks = {
            f"beam {self.beam}: expected 1 or more": self.beam >= 1,
            f"candidates {self.candidates}: expected 1 or more labels for each position": self.candidates >= 1,
            f"language model weight {self.lm_weight}: expected a number of 0 or more": 0 <= self.lm_weight < np.inf,
            f"token bonus {self.token_bonus}: expected a finite number": bool(np.isfinite(self.token_bonus)),
        }
        raise_all(problem for problem, holds in checks.items() if not holds)

    @property
    def uses_lm(self) -> bool:
        """Whether the language model has a say."""
        return self.lm is not None and self.lm_weight > 0


@dataclass(frozen=True)
class BeamResult:
    """The best translation of each sentence.

    Attributes:
        tokens: [B, L] int64, padded with ``pad``; L is the longest length.
        lengths: [B] int64.
        scores: [B] natural log of the CTC probability (of the alignments that the beam kept), without language model
            and bonus.
        token_scores: [B, L] natural-log probability of each token at the position where it joined; 0 at padding.
    """

    tokens: Ints
    lengths: Ints
    scores: Floats
    token_scores: Floats


def ctc_beam_search(
    log_probs: NDArray[np.floating],
    labels: NDArray[np.integer],
    blank_log_probs: NDArray[np.floating],
    lengths: NDArray[np.integer],
    *,
    blank: int,
    pad: int,
    options: BeamOptions,
) -> BeamResult:
    """Search the most probable translation of each sentence.

    Nothing is approximated beyond ``options``: extensions that cannot reach the beam are left out before the language
    model is asked, by a bound that holds because a log-probability is never positive.

    Args:
        log_probs: [B, T, K] natural-log probabilities of each position's most probable labels.
        labels: [B, T, K] those labels, distinct at each position; the blank may be among them.
        blank_log_probs: [B, T] natural-log probability of the blank.
        lengths: [B] positions of each sentence, 0 to T; what lies beyond is not read.
        blank: the blank label.
        pad: fills ``tokens`` beyond each sentence's length.
        options: width of the search and language model.

    Returns:
        one translation for each sentence; a sentence of length 0 has none and the score 0.

    Raises:
        UserError: shapes that do not fit, a log-probability that is NaN or positive infinity, or too little memory.
    """
    _check(log_probs, labels, blank_log_probs, lengths)
    with _memory_errors_explained(options.beam, min(options.candidates, log_probs.shape[2]), len(lengths)):
        # Longest first: the sentences that reach position t are then the first rows of every array.
        order = np.argsort(-lengths.astype(np.int64), kind="stable")
        sorted_lengths = lengths[order]
        emissions = _emissions(log_probs, labels, blank_log_probs, order, blank, options.candidates)
        beams = _start(len(lengths), options)
        trail = []
        for position in range(int(sorted_lengths.max(initial=0))):
            reached = int(np.count_nonzero(sorted_lengths > position))
            trail.append(_advance(beams, emissions.at(position, reached), reached, options))
        found = _trace(beams, trail, _winners(beams, options), pad)
        back = np.argsort(order, kind="stable")
        return BeamResult(found.tokens[back], found.lengths[back], found.scores[back], found.token_scores[back])


@contextmanager
def _memory_errors_explained(beam: int, candidates: int, sentences: int) -> Iterator[None]:
    try:
        if sentences * beam**2 > np.iinfo(np.intp).max:
            raise MemoryError("more than can be addressed")  # numpy has other errors for that
        np.empty((sentences, beam, beam), dtype=bool)  # the largest array: tried before the others fill the memory
        yield
    except MemoryError as error:
        raise UserError(
            f"beam search: too little memory for beam {beam}, {candidates} candidates, {sentences} sentences at once "
            f"({error}); lower --ctc-beam first (memory grows with its square), then --ctc-candidates or the batch size"
        ) from error


@dataclass(frozen=True)
class _Emissions:
    """What the model says of labels and blank: of all positions (a further axis before K), or of one."""

    log_probs: Floats  # [A, K]; impossible where the label is the blank
    labels: Ints  # [A, K]
    blank: Floats  # [A]

    def at(self, position: int, rows: int) -> "_Emissions":
        return _Emissions(self.log_probs[:rows, position], self.labels[:rows, position], self.blank[:rows, position])


def _emissions(
    log_probs: NDArray[np.floating],
    labels: NDArray[np.integer],
    blank_log_probs: NDArray[np.floating],
    order: Ints,
    blank: int,
    candidates: int,
) -> _Emissions:
    """The rows in ``order``, the blank taken out of the labels, and no more than ``candidates`` labels left."""
    scores: Floats = np.where(labels == blank, IMPOSSIBLE, log_probs.astype(np.float64))[order]
    names: Ints = labels.astype(np.int64)[order]
    if scores.shape[2] > candidates:
        best = np.argsort(-scores, axis=2, kind="stable")[:, :, :candidates]
        scores, names = np.take_along_axis(scores, best, 2), np.take_along_axis(names, best, 2)
    return _Emissions(scores, names, blank_log_probs.astype(np.float64)[order])


def _start(batch: int, options: BeamOptions) -> PrefixBeams:
    beams = PrefixBeams.start(batch, options.beam)
    if options.lm is not None and options.uses_lm:
        beams.state[:] = options.lm.start(batch)[:, None]
    return beams


@dataclass(frozen=True)
class _Step:
    """How the prefixes after a position came from those before it; every array is [A, beam]."""

    source: Ints  # slot before
    token: Ints  # what was added, or NO_TOKEN
    log_prob: Floats  # of that token at this position


@dataclass(frozen=True)
class _Extensions:
    """Prefixes with one more token that may reach the beam: of all sentences in one list, ordered by row."""

    row: Ints
    slot: Ints
    column: Ints
    log_prob: Floats  # CTC: of the alignments that end in the new label
    extra: Floats
    state: Ints


def _advance(beams: PrefixBeams, now: _Emissions, rows: int, options: BeamOptions) -> _Step:
    """Bring the first ``rows`` sentences of ``beams`` one position further."""
    view = beams.first(rows)
    row = np.arange(rows)[:, None]
    repeats = view.last[:, :, None] == now.labels[:, None, :]
    column, has_column = repeats.argmax(axis=2), repeats.any(axis=2)
    at_last = np.where(has_column, now.log_probs[row, column], IMPOSSIBLE)
    # A prefix stays as it is by a blank, by its last label again, or because a shorter prefix of the beam becomes it.
    extends = view.parent_hash[:, :, None] == view.hash[:, None, :]
    parent, has_parent = extends.argmax(axis=2), extends.any(axis=2)
    before = np.where(view.last[row, parent] == view.last, view.blank_end[row, parent], view.total[row, parent])
    label_end = np.logaddexp(view.label_end + at_last, np.where(has_parent, before + at_last, IMPOSSIBLE))
    blank_end = view.total + now.blank[:, None]
    stay = np.logaddexp(label_end, blank_end)

    merged = np.zeros(repeats.shape, dtype=bool)
    which = np.nonzero(has_parent & has_column)
    merged[which[0], parent[which], column[which]] = True
    found = _extensions(view, now, repeats, merged, stay + view.extra, options)
    view.blank_end[:], view.label_end[:], view.total[:] = blank_end, label_end, stay
    return _select(view, now, found, options.beam)


def _extensions(
    view: PrefixBeams,
    now: _Emissions,
    repeats: NDArray[np.bool_],
    merged: NDArray[np.bool_],
    stay_rank: Floats,
    options: BeamOptions,
) -> _Extensions | None:
    """The extensions that can beat the worst of the prefixes that stay, with what the language model says of them.

    ``repeats`` and ``merged`` are [A, beam, K]: extensions by the prefix's last label, and those that are in the beam
    already. A log-probability of the language model is at most 0, so what an extension ranks without it is a bound.
    """
    to_beat = stay_rank.min(axis=1)
    highest = (view.total + view.extra).max(axis=1) + now.log_probs.max(axis=1, initial=IMPOSSIBLE)
    busy = np.flatnonzero(highest + options.token_bonus > to_beat)
    if not len(busy):  # the usual case where the model is sure of the blank
        return None
    before = np.where(repeats[busy], view.blank_end[busy, :, None], view.total[busy, :, None])
    log_prob = before + now.log_probs[busy, None, :]
    bound = log_prob + (view.extra[busy] + options.token_bonus)[:, :, None]
    which = np.nonzero((bound > to_beat[busy, None, None]) & ~merged[busy])
    row, slot, column = busy[which[0]], which[1], which[2]
    extra = view.extra[row, slot] + options.token_bonus
    found = _Extensions(row, slot, column, log_prob[which], extra, np.zeros_like(row))
    if options.lm is None or not options.uses_lm or not len(row):
        return found
    lm_log_prob, state = _ask(options.lm, view.state[row, slot], now.labels[row, column])
    return replace(found, extra=extra + options.lm_weight * lm_log_prob, state=state)


def _ask(lm: NgramLm, states: Ints, tokens: Ints) -> tuple[Floats, Ints]:
    """What ``lm.score`` says; about half of the questions are asked by several prefixes, and asked once here."""
    different, back = np.unique(states * len(lm.symbols) + tokens, return_inverse=True)
    log_probs, after = lm.score(different // len(lm.symbols), different % len(lm.symbols))
    return log_probs[back], after[back]


def _select(view: PrefixBeams, now: _Emissions, found: _Extensions | None, beam: int) -> _Step:
    """Keep the best of the prefixes that stay and of the extensions; equal ranks by their order, best prefix first."""
    rows = len(view.total)
    step = _Step(
        np.broadcast_to(np.arange(beam), (rows, beam)).copy(),
        np.full((rows, beam), NO_TOKEN, dtype=np.int64),
        np.zeros((rows, beam)),
    )
    if found is None or not len(found.row):
        return step
    counts = np.bincount(found.row, minlength=rows)
    busy = np.flatnonzero(counts)
    counts = counts[busy]
    first = np.cumsum(counts) - counts
    # [busy, beam + most extensions of a row]: ranks, lower is better; places in `found` beyond the first `beam` columns
    ranks = np.full((len(busy), beam + counts.max()), np.inf)
    ranks[:, :beam] = -(view.total + view.extra)[busy]
    nth = np.arange(len(found.row)) - np.repeat(first, counts)
    ranks[np.repeat(np.arange(len(busy)), counts), beam + nth] = -(found.log_prob + found.extra)
    chosen = np.argsort(ranks, axis=1, kind="stable")[:, :beam]
    is_free = np.isinf(np.take_along_axis(ranks, chosen, 1))
    line, slot = np.nonzero((chosen >= beam) & ~is_free)
    picked = first[line] + chosen[line, slot] - beam
    target = (busy[line], slot)

    step.source[busy] = np.where(chosen < beam, chosen, 0)
    step.source[target] = found.slot[picked]
    step.token[target] = now.labels[found.row[picked], found.column[picked]]
    step.log_prob[target] = now.log_probs[found.row[picked], found.column[picked]]
    view.move(busy, step.source[busy])
    view.extend(target, step.token[target], found.log_prob[picked], found.extra[picked], found.state[picked])
    line, slot = np.nonzero(is_free)
    view.free((busy[line], slot))
    return step


def _winners(beams: PrefixBeams, options: BeamOptions) -> Ints:
    """[B] the slot of each sentence's best prefix, the end of the sentence counted in."""
    rank = beams.total + beams.extra
    if options.lm is not None and options.uses_lm and rank.size:
        rank = rank + options.lm_weight * options.lm.end(beams.state.ravel()).reshape(rank.shape)
    return rank.argmax(axis=1)


def _trace(beams: PrefixBeams, trail: list[_Step], slot: Ints, pad: int) -> BeamResult:
    """Follow each sentence's best prefix back to the first position."""
    batch = np.arange(len(slot))
    lengths, scores = beams.size[batch, slot], beams.total[batch, slot]
    width = int(lengths.max(initial=0))
    tokens = np.full((len(slot), width), pad, dtype=np.int64)
    token_scores = np.zeros((len(slot), width))
    slot, missing = slot.copy(), lengths.copy()
    for step in reversed(trail):
        row = batch[: len(step.source)]
        here = slot[: len(row)]
        token = step.token[row, here]
        joined = np.flatnonzero(token != NO_TOKEN)
        missing[joined] -= 1
        tokens[joined, missing[joined]] = token[joined]
        token_scores[joined, missing[joined]] = step.log_prob[joined, here[joined]]
        slot[: len(row)] = step.source[row, here]
    return BeamResult(tokens, lengths, scores, token_scores)


def _check(
    log_probs: NDArray[np.floating],
    labels: NDArray[np.integer],
    blank_log_probs: NDArray[np.floating],
    lengths: NDArray[np.integer],
) -> None:
    """Shapes that belong together, and log-probabilities that are such."""
    shape = log_probs.shape
    if len(shape) != 3 or labels.shape != shape or blank_log_probs.shape != shape[:2] or lengths.shape != shape[:1]:
        raise UserError(
            f"beam search: expected log_probs and labels [B, T, K], blank_log_probs [B, T] and lengths [B]; found "
            f"{list(shape)}, {list(labels.shape)}, {list(blank_log_probs.shape)} and {list(lengths.shape)}"
        )
    if shape[2] < 1:
        raise UserError("beam search: expected at least 1 label for each position, found K = 0")
    if ((lengths < 0) | (lengths > shape[1])).any():
        raise UserError(f"beam search: lengths {lengths.tolist()}: expected 0 to {shape[1]} positions")
    is_read = np.arange(shape[1]) < lengths[:, None]
    is_bad = ~(log_probs < np.inf).all(axis=2) | ~(blank_log_probs < np.inf)
    if (is_bad & is_read).any():
        row, position = np.argwhere(is_bad & is_read)[0]
        raise UserError(
            f"beam search: sentence {row}, position {position}: a log-probability is NaN or infinite; the model's "
            "output is no distribution there, check its weights (or its precision)"
        )

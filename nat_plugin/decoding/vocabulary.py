"""From states to labels: the vocabulary projection and what decoding reads from it, a block of rows at a time.

The scores of all positions, ``[N, V]``, never exist at once, nor does a float32 copy of them: a block is small enough
to be still in the processor's cache when its maximum and its log-sum-exp are taken. Several models vote by their mean
log-probability, which is not normalised again. N rows are positions of any sentences; V symbols; natural logarithms.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Projection = Callable[[Tensor], Tensor]
"""``[n, D]`` states before the vocabulary projection → ``[n, V]`` scores before the softmax."""


def with_blank_penalty(project: Projection, *, blank: int, penalty: float) -> Projection:
    """The projection with the blank's score lowered by ``penalty``, as if the model had thought so.

    A CTC model that is sure of too little leaves tokens out; a penalty above 0 makes it emit more of them, one below 0
    fewer. 0 gives the projection itself.
    """
    if penalty == 0:
        return project

    def lowered(states: Tensor) -> Tensor:
        scores = project(states)
        scores[:, blank] -= penalty
        return scores

    return lowered


# A block has at least this many rows, because each block reads the whole projection from memory.
_LEAST_ROWS = 64
_BLOCK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 26}


def best_labels(
    states: Sequence[Tensor], projections: Sequence[Projection], *, symbols: int, with_scores: bool
) -> tuple[Tensor, Tensor]:
    """The most probable label of each row.

    Args:
        states: ``[N, D]`` of each model; projections: one for each model.
        symbols: V.

    Returns:
        ``(labels [N] int64, log_probs [N] float32)``; log-probabilities are 0 where they are not asked for, and no
        exponential is computed then.
    """
    labels, log_probs = [], []
    for scores in _blocks(states, projections, symbols):
        best, found = _mean(scores).max(dim=-1)
        labels.append(found)
        log_probs.append(best.float() - _log_normalizer_(scores) if with_scores else torch.zeros_like(best).float())
    return torch.cat(labels), torch.cat(log_probs)


def top_labels(
    states: Sequence[Tensor], projections: Sequence[Projection], *, symbols: int, count: int, blank: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The ``count`` most probable labels of each row (all V where there are fewer), the most probable first.

    Returns:
        ``(log_probs [N, count] float32, labels [N, count] int64, blank_log_probs [N] float32)``; the blank counts as
        a label and may be among them.
    """
    parts = []
    for scores in _blocks(states, projections, symbols):
        mean = _mean(scores)
        best, labels = mean.topk(min(count, mean.size(-1)), dim=-1)
        of_blank = mean[:, blank].to(torch.float32, copy=True)  # the scores are overwritten below
        normalizer = _log_normalizer_(scores)
        parts.append((best.float() - normalizer[:, None], labels, of_blank - normalizer))
    log_probs, chosen, blanks = zip(*parts, strict=True)
    return torch.cat(log_probs), torch.cat(chosen), torch.cat(blanks)


def rows_of_a_block(symbols: int, device: str) -> int:
    """How many rows of ``symbols`` scores are computed at once on a kind of device."""
    return max(_LEAST_ROWS, _BLOCK_ELEMENTS.get(device, _BLOCK_ELEMENTS["cuda"]) // symbols)


def _blocks(states: Sequence[Tensor], projections: Sequence[Projection], symbols: int) -> Iterator[list[Tensor]]:
    """The models' scores ``[n, V]`` of one block of rows after the other; one empty block where there are no rows."""
    rows = rows_of_a_block(symbols, states[0].device.type)
    for start in range(0, max(len(states[0]), 1), rows):
        block = slice(start, start + rows)
        yield [project(own[block]) for own, project in zip(states, projections, strict=True)]


def _mean(scores: list[Tensor]) -> Tensor:
    if len(scores) == 1:
        return scores[0]
    return torch.stack([own.float() for own in scores]).mean(dim=0)


def _log_normalizer_(scores: list[Tensor]) -> Tensor:
    """``[n]`` mean over the models of the log-sum-exp of a row; overwrites scores that are float32."""
    normalizers = []
    for own in scores:
        largest = own.amax(dim=-1, keepdim=True).float()
        normalizers.append(own.float().sub_(largest).exp_().sum(dim=-1).log_() + largest.squeeze(-1))
    return normalizers[0] if len(normalizers) == 1 else torch.stack(normalizers).mean(dim=0)

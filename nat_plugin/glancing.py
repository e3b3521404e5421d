"""Glancing training (Qian et al., 2021) for CTC (Gu and Kong, 2021): part of the answer stands in the input.

Where a sentence is still translated badly, some of its added positions are told a label of the target: their input
becomes that token's embedding. The model learns to fill in the rest from source *and* target words, and is weaned of
the latter as it improves (there is less to correct) and as the share falls.

What is revealed, and where:

- Only *added* positions (MASKs; repeats of a token) are overwritten. This model has no encoder apart: a source token
  that is overwritten can be read nowhere else.
- Most tokens of the target are emitted where a source token stands (see docs/user-guide/train.md). The added position
  right behind it, if the best path leaves it blank, may tell such a token: the path in which the token takes up both
  positions is one of the same target, as repeats are merged.
- Blanks are not revealed: one would go in as ``<s>``, which the LM knows from the beginning of a sentence alone, or as
  MASK, which stands there already.
- How many: the share of those positions that may be told a token and whose token the model gets wrong. Errors elsewhere
  do not count: with them the share could ask for all that may be told, and leave nothing to predict.

Pure tensor functions: B sentences, T positions, L target tokens, D width, V symbols; lengths are int64 tensors and
everything is right-padded. Nothing here makes the host wait for the device.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nat_plugin.ctc import is_feasible, local_labels, viterbi_path
from plugin_common.cpu_matmul import linear_into
from plugin_common.selected_log_probs import default_chunk_rows


@dataclass(frozen=True)
class GlancingSchedule:
    """The share to reveal of what is wrong: ``start`` at the first update, ``end`` at the last, linear in between."""

    start: float = 0.0
    end: float = 0.0
    max_update: int = 0  # updates in all; 0: unknown

    def problems(self) -> Iterator[str]:
        """What is wrong with the options, one message each."""
        for name, share in (("start", self.start), ("end", self.end)):
            if not 0 <= share <= 1:  # NaN included
                yield f"--glancing-{name} {share}: expected a share from 0 (off) to 1"
        if self.start != self.end and self.max_update <= 0 and math.isfinite(self.start + self.end):
            yield (
                f"--glancing-start {self.start} --glancing-end {self.end}: the share goes from one to the other over "
                "the whole training; say with --max-update how many updates that is, or give both the same value"
            )

    def share(self, update: int) -> float:
        """The share for the update that follows ``update`` ones (0 for the first)."""
        if self.max_update <= 1:
            return self.start
        progress = min(max(update / (self.max_update - 1), 0.0), 1.0)
        return self.start * (1 - progress) + self.end * progress


def revealed_labels(
    scores: Tensor,
    targets: Tensor,
    hidden_lengths: Tensor,
    target_lengths: Tensor,
    added: Tensor,
    *,
    blank: int,
    share: float,
) -> Tensor:
    """What to put into the input for the pass that is learned from.

    Candidates are the positions of :func:`may_be_told`. With d of their tokens wrong, ``share · d`` candidates are
    drawn, each (those of right tokens, too) equally likely. A fraction is rounded up with the probability that it
    is, as short sentences would hardly be glanced at otherwise. Draws come from torch's global generator of the device.

    Args:
        scores: ``[B, T, 1 + L]`` of :func:`scores_under_best`.
        targets: ``[B, L]`` labels in ``0 … V-1``; any value past a row's length.
        hidden_lengths, target_lengths: ``[B]``; 0 is allowed for both.
        added: ``[B, T]`` bool: positions that may be overwritten.
        blank: id of the blank in the vocabulary.
        share: 0 … 1.

    Returns:
        ``[B, T]`` int64: the label that the position is given, or -1 where its input stays as it is (all positions of
        an infeasible sentence among them).
    """
    path = path_of_target(scores, targets, hidden_lengths, target_lengths, blank=blank)
    if targets.size(1) == 0:
        return path
    labels = torch.where(path >= 0, targets.gather(1, path.clamp(min=0)), -1)
    told, emitted_at = may_be_told(labels, added, hidden_lengths)
    candidates = told >= 0
    wrong = candidates & is_wrong(scores, path).gather(1, emitted_at)
    # In float64, where whole numbers plus a fraction are exact: share 1 never makes one too many, share 0 none.
    wanted = share * wrong.sum(dim=1).double() + torch.rand(len(path), device=path.device)
    chosen = choose(candidates, wanted.long(), torch.rand(path.shape, device=path.device))
    return torch.where(chosen, told, -1)


def may_be_told(labels: Tensor, added: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Which label an added position may be told: the one that the path emits there; where that is the blank, the one
    that it emits right before at a position that is not added, unless the same label follows as another token.

    Args:
        labels: ``[B, T]`` of the path, -1 for the blank; added: ``[B, T]`` bool; lengths: ``[B]`` real positions.

    Returns:
        ``(told [B, T], emitted_at [B, T])``: the label, or -1 where there is none; and the position (in ``0 … T-1``)
        where the path emits it.
    """
    places = torch.arange(labels.size(1), device=labels.device).expand_as(labels)
    before = F.pad(labels.masked_fill(added, -1), (1, 0), value=-1)[:, :-1]
    after = F.pad(labels, (0, 1), value=-1)[:, 1:]
    behind = added & (labels < 0) & (before >= 0) & (before != after) & (places < lengths[:, None])
    told = torch.where(behind, before, labels.masked_fill(~added, -1))
    return told, places - behind.long()


def path_of_target(
    scores: Tensor, targets: Tensor, hidden_lengths: Tensor, target_lengths: Tensor, *, blank: int
) -> Tensor:
    """``[B, T]`` which target token (from 0) the best CTC path emits at each position; -1 for the blank, past a row's
    length and in infeasible rows. Arguments as in :func:`revealed_labels`.
    """
    # A constant per position, by which scores differ from log-probabilities, changes no path.
    path = viterbi_path(scores, local_labels(targets, target_lengths), hidden_lengths, target_lengths, blank=0)
    feasible = is_feasible(targets, hidden_lengths, target_lengths, blank=blank)  # a target may hold the blank itself
    return path.masked_fill(~feasible[:, None], -1)


def is_wrong(scores: Tensor, path: Tensor) -> Tensor:
    """``[B, T]`` bool: another label is more probable than what the path emits (equals count as right)."""
    return scores.gather(2, (path + 1)[:, :, None]).squeeze(2) < 0


def choose(candidates: Tensor, counts: Tensor, noise: Tensor) -> Tensor:
    """In each row the ``counts`` candidates with the least noise, or all of them if there are fewer.

    Args:
        candidates: ``[B, T]`` bool; counts: ``[B]`` int64; noise: ``[B, T]`` in [0, 1).

    Returns:
        ``[B, T]`` bool.
    """
    order = torch.where(candidates, noise, 2.0).argsort(dim=1, stable=True)
    return (order.argsort(dim=1) < counts[:, None]) & candidates


def scores_under_best(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, target_lengths: Tensor, *, blank: int
) -> Tensor:
    """Logits of the blank and of the sentence's own labels, less the position's largest logit of all V.

    A score is 0 where the label is the most probable one and below 0 elsewhere; it differs from the log-probability by
    the position's log-sum-exp, which is not computed. Logits are made for some sentences at a time, about as many as
    the loss takes in blocks (see :mod:`plugin_common.selected_log_probs`).

    Args:
        hidden: ``[B, T, D]``; weight: ``[V, D]``; bias: ``[V]`` or None; targets: ``[B, L]``; target_lengths: ``[B]``.

    Returns:
        ``[B, T, 1 + L]`` in float32 or better, without gradient: column 0 is the blank, column j + 1 is
        ``targets[:, j]`` (the blank's at padding).
    """
    batch, positions = hidden.shape[:2]
    real = torch.arange(targets.size(1), device=targets.device) < target_lengths[:, None]
    columns = torch.cat([targets.new_full((batch, 1), blank), targets.masked_fill(~real, blank)], dim=1)
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    scores = hidden.new_zeros(batch, positions, columns.size(1), dtype=wide)
    if scores.numel() == 0:
        return scores
    sentences = max(default_chunk_rows(weight.size(0), weight.device) // positions, 1)
    with torch.no_grad():
        buffer = hidden.new_empty(min(sentences, batch) * positions, weight.size(0))
        for start in range(0, batch, sentences):
            states = hidden[start : start + sentences].flatten(0, 1)
            logits = linear_into(buffer[: len(states)], states, weight, bias)
            own = columns[start : start + sentences, None, :].expand(-1, positions, -1)
            chosen = logits.view(-1, positions, weight.size(0)).gather(2, own).to(wide)
            best = logits.amax(dim=1).view(-1, positions, 1).to(wide)
            torch.sub(chosen, best, out=scores[start : start + sentences])
    return scores


def random_numbers_again(device: torch.device) -> AbstractContextManager[None]:
    """What is drawn inside, on the CPU or ``device``, does not advance the generators: the same comes again after."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])

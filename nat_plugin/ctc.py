"""Connectionist temporal classification (Graves et al., 2006) for translation: loss, best path, collapse.

T positions each emit one label or the blank; repeats are merged, then blanks dropped. Pure tensor functions, natural
logarithms; lengths are int64 tensors and everything is right-padded.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from plugin_common.selected_log_probs import selected_log_probs


def ctc_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    hidden_lengths: Tensor,
    target_lengths: Tensor,
    *,
    blank: int,
    chunk_rows: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of each target under all its alignments, Graves et al. (2006), equation 14.

    The probabilities are ``softmax(hidden @ weight.T + bias)``; only the columns of the blank and of the sentence's own
    labels are computed (a local alphabet of L + 1 symbols), and only at real positions.

    Args:
        hidden: ``[B, T, D]`` states before the vocabulary projection.
        weight: ``[V, D]`` projection; bias: ``[V]`` or None.
        targets: ``[B, L]`` labels in ``0 … V-1`` without ``<s>`` and ``</s>``; any value past a row's length.
        hidden_lengths, target_lengths: ``[B]``; 0 is allowed for both.
        blank: id of the blank in the vocabulary.
        chunk_rows: see :func:`plugin_common.selected_log_probs.selected_log_probs`.

    Returns:
        ``(loss [B], feasible [B])``: ``-log p(target)`` in nats, float32 or better, not normalised. A row is infeasible
        if its target and the blanks between equal neighbours need more positions than there are, or if the target
        contains the blank: loss 0, no gradient, feasible False.
    """
    log_probs = local_log_probs(
        hidden, weight, bias, targets, hidden_lengths, target_lengths, blank=blank, chunk_rows=chunk_rows
    )
    return local_ctc_loss(log_probs, targets, hidden_lengths, target_lengths, blank=blank)


def local_log_probs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    hidden_lengths: Tensor,
    target_lengths: Tensor,
    *,
    blank: int,
    chunk_rows: int | None = None,
) -> Tensor:
    """Natural-log probabilities of the blank and of the sentence's own labels at each position.

    Arguments as in :func:`ctc_loss`.

    Returns:
        ``[B, T, 1 + L]`` in float32 or better: column 0 is the blank, column j + 1 is ``targets[:, j]`` (the blank's at
        padding). All are 0 past a row's length and in infeasible rows, where nothing is computed.
    """
    batch, width = hidden.shape[:2]
    feasible = is_feasible(targets, hidden_lengths, target_lengths, blank=blank)
    labels = targets.masked_fill(~_within(target_lengths, targets.size(1)), blank)
    columns = torch.cat([labels.new_full((batch, 1), blank), labels], dim=1)
    used = _within(hidden_lengths, width) & feasible[:, None]
    row_of = torch.arange(batch, device=hidden.device)[:, None].expand(batch, width)[used]
    chosen = selected_log_probs(hidden[used], weight, bias, columns[row_of], chunk_rows=chunk_rows)
    return chosen.new_zeros(batch, width, columns.size(1)).masked_scatter(used[:, :, None], chosen)


def local_ctc_loss(
    log_probs: Tensor, targets: Tensor, hidden_lengths: Tensor, target_lengths: Tensor, *, blank: int
) -> tuple[Tensor, Tensor]:
    """:func:`ctc_loss` from what :func:`local_log_probs` gave for the same targets, lengths and blank."""
    batch, width = log_probs.shape[:2]
    feasible = is_feasible(targets, hidden_lengths, target_lengths, blank=blank)
    if batch == 0 or width == 0:
        return log_probs.sum(dim=(1, 2)), feasible
    in_use = feasible & (hidden_lengths > 0)
    loss = _CtcOfChosen.apply(
        log_probs,
        local_labels(targets, target_lengths),
        hidden_lengths.clamp(min=1),
        torch.where(in_use, target_lengths, torch.zeros_like(target_lengths)),
    )
    return torch.where(in_use, loss, torch.zeros_like(loss)), feasible


class _CtcOfChosen(torch.autograd.Function):
    """``F.ctc_loss`` ``[B]`` of ``log_probs [B, T, 1 + L]`` that are a choice of a log-softmax's columns; blank 0.

    Its gradient is minus the posterior probability of each label at each position. ``F.ctc_loss`` hands back
    ``p - posterior``: right only behind a log-softmax over all columns, where the extra ``p`` cancels. The posterior is
    small and is taken right away. It sums to 1 at each position, which its rounding errors (those of a log-likelihood
    of hundreds of nats) would hide from :func:`selected_log_probs`, so that they are divided out.
    """

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, labels: Tensor, input_lengths: Tensor, target_lengths: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        with torch.set_grad_enabled(wanted):
            leaf = log_probs.detach().requires_grad_(wanted)
            loss = F.ctc_loss(leaf.transpose(0, 1), labels, input_lengths, target_lengths, blank=0, reduction="none")
            gradient = torch.autograd.grad(loss.sum(), leaf)[0] if wanted else None
        if gradient is not None:
            real = _within(input_lengths, log_probs.size(1))[:, :, None]
            posterior = torch.where(real, log_probs.exp() - gradient, 0.0).clamp_(min=0.0)
            ctx.save_for_backward(posterior.div_(torch.where(real, posterior.sum(dim=2, keepdim=True), 1.0)))
        return loss.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (posterior,) = ctx.saved_tensors
        return posterior * -grad[:, None, None], None, None, None


def local_labels(targets: Tensor, target_lengths: Tensor) -> Tensor:
    """``[B, max(L, 1)]``: ``targets`` in the local alphabet, where equal labels of a row share the first one's number.

    0 (the blank) stands at padding.
    """
    if targets.size(1) == 0:
        return targets.new_zeros(targets.size(0), 1)
    equal = targets[:, :, None] == targets[:, None, :]
    places = torch.arange(targets.size(1), device=targets.device)
    first = torch.where(equal, places, targets.size(1)).amin(dim=2)
    return (first + 1).masked_fill(~_within(target_lengths, targets.size(1)), 0)


def is_feasible(targets: Tensor, hidden_lengths: Tensor, target_lengths: Tensor, *, blank: int) -> Tensor:
    """``[B]`` bool: length + equal neighbours (each needs a blank between) <= positions, and no blank in the target."""
    real = _within(target_lengths, targets.size(1))
    repeats = ((targets[:, 1:] == targets[:, :-1]) & real[:, 1:]).sum(dim=1)
    holds_blank = ((targets == blank) & real).any(dim=1)
    return (target_lengths + repeats <= hidden_lengths) & ~holds_blank


def collapse(labels: Tensor, lengths: Tensor, *, blank: int, pad: int) -> tuple[Tensor, Tensor]:
    """Merge repeats, then drop blanks; on the labels' device and without a loop.

    Args:
        labels: ``[B, T]`` the label of each position; lengths: ``[B]`` real positions.

    Returns:
        ``(tokens [B, L], lengths [B])``, L the longest result (0 if all are empty), right-padded with ``pad``.
    """
    places, new_lengths = token_places(labels, lengths, blank=blank)
    width = int(new_lengths.max()) if labels.numel() else 0
    return move_to_places(labels, places, width=labels.size(1), fill=pad)[:, :width].contiguous(), new_lengths


def token_places(labels: Tensor, lengths: Tensor, *, blank: int) -> tuple[Tensor, Tensor]:
    """Which token of the collapsed row each position emits; nothing here makes the host wait for the device.

    Args:
        labels: ``[B, T]`` the label of each position; lengths: ``[B]`` real positions.

    Returns:
        ``(places [B, T], lengths [B])``: the token's number from 0, or -1 where the position adds none.
    """
    kept = emitting_positions(labels, lengths, blank=blank)
    return (kept.cumsum(dim=1) - 1).masked_fill(~kept, -1), kept.sum(dim=1)


def move_to_places(values: Tensor, places: Tensor, *, width: int, fill: float) -> Tensor:
    """``[B, width]``: ``values [B, T]`` moved to ``places [B, T]`` (dropped where that is -1), ``fill`` elsewhere."""
    out = values.new_full((values.size(0), width + 1), fill)
    out.scatter_(1, places.masked_fill(places < 0, width), values)  # column `width` takes what is dropped
    return out[:, :width]


def emitting_positions(labels: Tensor, lengths: Tensor, *, blank: int) -> Tensor:
    """``[B, T]`` bool: the first position of each run of equal labels that are not the blank."""
    changes = torch.ones_like(labels, dtype=torch.bool)
    changes[:, 1:] = labels[:, 1:] != labels[:, :-1]
    return changes & (labels != blank) & _within(lengths, labels.size(1))


def viterbi_alignment(
    log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, *, blank: int
) -> Tensor:
    """Where the most probable CTC path of a target emits each of its tokens.

    Args:
        log_probs: ``[B, T, V]``; targets: ``[B, L]``; input_lengths, target_lengths: ``[B]``.

    Returns:
        ``[B, L]`` int64: of the positions that the best path gives a token, the one where it is most probable (the
        earliest of equals); -1 at padding and in infeasible rows.
    """
    batch, width, _ = log_probs.shape
    targets = targets.masked_fill(~_within(target_lengths, targets.size(1)), blank)
    feasible = is_feasible(targets, input_lengths, target_lengths, blank=blank)
    result = torch.full_like(targets, -1)
    if batch == 0 or width == 0 or targets.size(1) == 0:
        return result
    states = _states_of_best_path(log_probs, targets, input_lengths, target_lengths, blank)
    emits = (states % 2 == 1) & _within(input_lengths, width) & feasible[:, None]
    token = (states // 2).clamp(max=targets.size(1) - 1)
    score = log_probs.gather(2, targets.gather(1, token)[:, :, None]).squeeze(2)
    # Per token the maximum over its positions, then the first position that reaches it.
    minus_inf = torch.full_like(targets, -torch.inf, dtype=score.dtype)
    best = minus_inf.scatter_reduce(1, token, score.masked_fill(~emits, -torch.inf), "amax")
    reached = emits & (score == best.gather(1, token))
    place = torch.arange(width, device=targets.device).expand(batch, width).masked_fill(~reached, width)
    first = torch.full_like(targets, width).scatter_reduce(1, token, place, "amin")
    return torch.where(first < width, first, result)


def viterbi_path(
    log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, *, blank: int
) -> Tensor:
    """What the most probable CTC path of a target emits at each position; arguments as in :func:`viterbi_alignment`.

    Returns:
        ``[B, T]`` int64: which token of the target (from 0); -1 for the blank, past a row's length and in infeasible
        rows.
    """
    batch, width, _ = log_probs.shape
    feasible = is_feasible(targets, input_lengths, target_lengths, blank=blank)
    if batch == 0 or width == 0 or targets.size(1) == 0:
        return torch.full((batch, width), -1, dtype=torch.int64, device=log_probs.device)
    targets = targets.masked_fill(~_within(target_lengths, targets.size(1)), blank)
    states = _states_of_best_path(log_probs, targets, input_lengths, target_lengths, blank)
    emits = (states % 2 == 1) & _within(input_lengths, width) & feasible[:, None]
    return torch.where(emits, states // 2, -1)


def _states_of_best_path(
    log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, blank: int
) -> Tensor:
    """``[B, T]`` states of the best path over blank, y1, blank, y2, … blank (odd states emit tokens); loops over T."""
    batch, width, _ = log_probs.shape
    symbols = targets.new_full((batch, 2 * targets.size(1) + 1), blank)
    symbols[:, 1::2] = targets
    emitted = log_probs.gather(2, symbols[:, None, :].expand(batch, width, symbols.size(1)))
    may_skip = torch.zeros_like(symbols, dtype=torch.bool)
    may_skip[:, 3::2] = targets[:, 1:] != targets[:, :-1]

    minus_inf = torch.tensor(-torch.inf, dtype=log_probs.dtype, device=log_probs.device)
    score = torch.where(torch.arange(symbols.size(1), device=symbols.device) < 2, emitted[:, 0], minus_inf)
    steps = torch.zeros(batch, width, symbols.size(1), dtype=torch.int8, device=symbols.device)
    for t in range(1, width):
        stay, step = score, F.pad(score[:, :-1], (1, 0), value=-torch.inf)
        skip = torch.where(may_skip, F.pad(score[:, :-2], (2, 0), value=-torch.inf), minus_inf)
        best, back = torch.stack([stay, step, skip]).max(dim=0)
        running = (t < input_lengths)[:, None]
        score = torch.where(running, best + emitted[:, t], score)
        steps[:, t] = torch.where(running, back, torch.zeros_like(back)).to(torch.int8)

    last = 2 * target_lengths[:, None]
    end_in_token = score.gather(1, (last - 1).clamp(min=0)).masked_fill(last == 0, -torch.inf)
    state = torch.where(end_in_token >= score.gather(1, last), last - 1, last).clamp(min=0)
    states = torch.empty(batch, width, dtype=torch.int64, device=symbols.device)
    for t in range(width - 1, -1, -1):
        states[:, t] = state.squeeze(1)
        state = (state - steps[:, t].gather(1, state).long()).clamp(min=0)
    return states


def _within(lengths: Tensor, width: int) -> Tensor:
    """``[B, width]`` bool: which positions are real."""
    return torch.arange(width, device=lengths.device)[None, :] < lengths[:, None]

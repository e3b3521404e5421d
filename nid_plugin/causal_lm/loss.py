"""Cross-entropy of the completion's tokens, without an [N, V] log-softmax."""

from typing import NamedTuple

import torch
from torch import Tensor

from plugin_common.selected_log_probs import automatic_chunk_rows, selected_log_probs


class CompletionLoss(NamedTuple):
    """Sums over K labels, in nats."""

    loss: Tensor  # [] what is minimised: label-smoothed
    nll: Tensor  # [] negative log-likelihood


def completion_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    chunk_rows: int | None = -1,
) -> CompletionLoss:
    """Cross-entropy between the labels and ``softmax(hidden @ weight.T + bias)``, summed.

    With smoothing ε the target distribution is ``(1 - ε) onehot + ε uniform`` over all V symbols (Szegedy et al. 2016).
    As ``-mean_v log p_v = lse(z) - mean(z)`` and ``lse(z) = z_y - log p_y``, the loss of a label y is
    ``-log p_y + ε (z_y - mean(z))``: two dot products more, and still nothing of size [K, V].

    Args:
        hidden: ``[K, D]`` states before the projection, at the positions that predict a label.
        weight: ``[V, D]``.
        bias: ``[V]`` or None.
        labels: ``[K]`` int64.
        label_smoothing: ε, 0 to 1.
        chunk_rows: as in :func:`plugin_common.selected_log_probs.selected_log_probs`; -1 chooses.

    Returns:
        sums in float32 (float64 for such inputs); 0 where K is 0.
    """
    if chunk_rows == -1:
        chunk_rows = automatic_chunk_rows(len(labels), weight, hidden.dtype, trains_weight=weight.requires_grad)
    log_probs = selected_log_probs(hidden, weight, bias, labels[:, None], chunk_rows=chunk_rows)
    nll = -log_probs.sum()
    if label_smoothing == 0.0:
        return CompletionLoss(nll, nll.detach())
    wide = log_probs.dtype
    states = hidden.to(wide)
    z_of_label = (states * weight.index_select(0, labels).to(wide)).sum()
    z_mean = (states.sum(dim=0) * weight.mean(dim=0, dtype=wide)).sum()
    if bias is not None:
        z_of_label = z_of_label + bias[labels].to(wide).sum()
        z_mean = z_mean + len(labels) * bias.mean(dtype=wide)
    return CompletionLoss(nll + label_smoothing * (z_of_label - z_mean), nll.detach())


def loss_of_logits(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> CompletionLoss:
    """The same from logits ``[K, V]``, for models whose logits are no plain projection (soft-capped, scaled)."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    log_probs = wide.log_softmax(dim=-1)
    nll = -log_probs.gather(1, labels[:, None]).sum()
    smooth = -log_probs.mean(dim=-1).sum()
    return CompletionLoss((1 - label_smoothing) * nll + label_smoothing * smooth, nll.detach())

"""A matrix that embeds the input and projects the output gets its two gradients added in place.

The projection's gradient is dense ``[V, D]``; that of the embedding concerns the few rows that were read. As two uses
of one tensor they would be added out of place, in a third ``[V, D]``, when all other gradients are there already: the
peak of a training step.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def is_trained_on_cpu(lm: Any) -> bool:
    """Whether ``lm`` has such a matrix, of a plain embedding and a plain linear layer, and autograd follows it."""
    embeddings, head = lm.get_input_embeddings(), lm.get_output_embeddings()
    return (
        type(embeddings) is nn.Embedding
        and type(head) is nn.Linear
        and embeddings.weight is head.weight
        and embeddings.max_norm is None
        and not embeddings.scale_grad_by_freq
        and embeddings.weight.device.type == "cpu"
        and embeddings.weight.requires_grad
        and not (embeddings._forward_hooks or embeddings._forward_pre_hooks or "forward" in vars(embeddings))
        and torch.is_grad_enabled()
    )


def both_uses(weight: Tensor) -> tuple[Tensor, Tensor]:
    """``weight [V, D]`` for :func:`lookup` and for the projection. Differentiable once.

    The projection's gradient is written to: the loss must not keep it (``completion_loss`` does not).
    """
    for_lookup, for_projection = _BothUses.apply(weight)
    return for_lookup, for_projection


def lookup(embeddings: nn.Embedding, weight: Tensor, tokens: Tensor) -> Tensor:
    """``weight[tokens]`` for ``tokens [N]``, as ``[N, D]``; the padding symbol's row gets no gradient."""
    return F.embedding(tokens, weight, embeddings.padding_idx, sparse=True)


class _BothUses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        return weight.view_as(weight), weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_lookup: Tensor | None, of_projection: Tensor | None) -> Tensor | None:
        if of_projection is None:
            return None if of_lookup is None else of_lookup.to_dense()
        if of_lookup is None:
            return of_projection
        # Expanded memory, as of a mean's gradient, cannot be written to.
        return of_projection.add_(of_lookup) if of_projection.is_contiguous() else of_projection + of_lookup

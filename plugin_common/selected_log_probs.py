"""Log-probabilities of a few chosen labels without an [N, V] log-softmax.

CTC needs, at each position, the blank and the sentence's own labels; cross-entropy needs one label. With logits
``z = h W' + b`` and ``lse(z) = log sum_v exp z_v`` the wanted value is ``z_k - lse(z)``, and the gradient of a loss
that has gradient ``g_k`` with respect to it is ``dz = scatter(g, index) - softmax(z) sum_k g_k``: rank-one in
``softmax(z)``, so it can be written over the logits, or over recomputed blocks of them.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Rows are worked on in blocks of about this many logits: small enough for a CPU's cache, large enough for a GPU.
_BLOCK_ELEMENTS = {"cpu": 1 << 19, "cuda": 1 << 26}


def selected_log_probs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, *, chunk_rows: int | None = None
) -> Tensor:
    """Natural-log probabilities of the columns ``index`` under ``softmax(hidden @ weight.T + bias)``.

    Args:
        hidden: ``[N, D]``, floating point.
        weight: ``[V, D]``, the output projection (may be tied to the input embedding).
        bias: ``[V]`` or None.
        index: ``[N, K]`` int64, labels in ``0 … V-1``; repeats within a row are fine.
        chunk_rows: None keeps the ``[N, V]`` logits from forward to backward and turns them into their gradient in
            place; a number keeps nothing of that size and recomputes blocks of so many rows in the backward pass.

    Returns:
        ``[N, K]`` in float32 (float64 for float64 inputs); log-sum-exp and the difference are taken in that precision
        whatever the inputs' dtype or autocast. Differentiable once in ``hidden``, ``weight`` and ``bias``.

    Raises:
        ValueError: shapes that do not fit, or ``chunk_rows`` < 1.
    """
    _check_shapes(hidden, weight, bias, index, chunk_rows)
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    if bias is not None:
        bias = bias.to(hidden.dtype)
    weight = weight.to(hidden.dtype)
    if chunk_rows is None:
        return _KeepLogits.apply(hidden, weight, bias, index)
    return _RecomputeLogits.apply(hidden, weight, bias, index, chunk_rows)


def _check_shapes(hidden: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, chunk_rows: int | None) -> None:
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.size(1) != weight.size(1):
        raise ValueError(f"expected hidden [N, D] and weight [V, D], got {[*hidden.shape]} and {[*weight.shape]}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"expected bias [{weight.size(0)}], got {[*bias.shape]}")
    if index.dim() != 2 or index.size(0) != hidden.size(0):
        raise ValueError(f"expected index [{hidden.size(0)}, K], got {[*index.shape]}")
    if chunk_rows is not None and chunk_rows < 1:
        raise ValueError(f"chunk_rows must be at least 1, got {chunk_rows}")


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return hidden @ weight.t() if bias is None else torch.addmm(bias, hidden, weight.t())


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _row_blocks(logits: Tensor) -> list[slice]:
    elements = _BLOCK_ELEMENTS.get(logits.device.type, _BLOCK_ELEMENTS["cuda"])
    rows = max(1, elements // max(1, logits.size(1)))
    return [slice(start, start + rows) for start in range(0, logits.size(0), rows)]


def _log_normalizer(logits: Tensor) -> Tensor:
    """``[N, 1]`` log-sum-exp in fp32 or better, block by block so that no wide copy of all logits exists."""
    out = logits.new_empty(logits.size(0), 1, dtype=_wide(logits.dtype))
    for rows in _row_blocks(logits):
        torch.logsumexp(logits[rows].to(out.dtype), dim=1, keepdim=True, out=out[rows])
    return out


def _logits_to_gradient_(logits: Tensor, normalizer: Tensor, index: Tensor, grad: Tensor) -> Tensor:
    """Overwrite ``logits`` by their gradient ``scatter(grad, index) - softmax(logits) * grad.sum(1)``."""
    minus_total = grad.sum(dim=1, keepdim=True).neg_()
    for rows in _row_blocks(logits):
        block = logits[rows].to(grad.dtype)  # the same memory where the logits are wide already
        block.sub_(normalizer[rows]).exp_().mul_(minus_total[rows]).scatter_add_(1, index[rows], grad[rows])
        if block.data_ptr() != logits[rows].data_ptr():
            logits[rows] = block
    return logits


class _KeepLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor) -> Tensor:
        logits = _logits(hidden, weight, bias)
        normalizer = _log_normalizer(logits)
        ctx.save_for_backward(hidden, weight, normalizer, index)
        ctx.logits = logits if any(ctx.needs_input_grad) else None
        return logits.gather(1, index).to(normalizer.dtype) - normalizer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        hidden, weight, normalizer, index = ctx.saved_tensors
        if ctx.logits is None:
            raise RuntimeError(
                "selected_log_probs overwrites its logits in the backward pass, which therefore runs once; "
                "pass chunk_rows to go backward repeatedly (retain_graph)"
            )
        gradient = _logits_to_gradient_(ctx.logits, normalizer, index, grad)
        ctx.logits = None
        return (
            gradient @ weight if ctx.needs_input_grad[0] else None,
            gradient.t() @ hidden if ctx.needs_input_grad[1] else None,
            gradient.sum(dim=0) if ctx.needs_input_grad[2] else None,
            None,
        )


class _RecomputeLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, chunk_rows: int
    ) -> Tensor:
        normalizer = hidden.new_empty(hidden.size(0), 1, dtype=_wide(hidden.dtype))
        chosen = torch.empty(index.shape, dtype=normalizer.dtype, device=hidden.device)
        for start in range(0, hidden.size(0), chunk_rows):
            rows = slice(start, start + chunk_rows)
            logits = _logits(hidden[rows], weight, bias)
            normalizer[rows] = _log_normalizer(logits)
            chosen[rows] = logits.gather(1, index[rows]).to(chosen.dtype)
        ctx.save_for_backward(hidden, weight, bias, normalizer, index)
        ctx.chunk_rows = chunk_rows
        return chosen - normalizer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        hidden, weight, bias, normalizer, index = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        # Sums over chunks are kept in fp32 or better; within a chunk the matmul accumulates as the library does.
        wide = normalizer.dtype
        grad_weight = torch.zeros_like(weight, dtype=wide) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias, dtype=wide) if ctx.needs_input_grad[2] else None
        for start in range(0, hidden.size(0), ctx.chunk_rows):
            rows = slice(start, start + ctx.chunk_rows)
            logits = _logits(hidden[rows], weight, bias)
            gradient = _logits_to_gradient_(logits, normalizer[rows], index[rows], grad[rows])
            if grad_hidden is not None:
                torch.mm(gradient, weight, out=grad_hidden[rows])
            if grad_weight is not None:
                _add_product_(grad_weight, gradient.t(), hidden[rows])
            if grad_bias is not None:
                grad_bias += gradient.sum(dim=0, dtype=wide)
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            None,
            None,
        )


def _add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)

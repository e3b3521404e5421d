"""Log-probabilities of a few chosen labels without an [N, V] log-softmax.

CTC needs, at each position, the blank and the sentence's own labels; cross-entropy needs one label. With logits
``z = h W' + b`` and ``lse(z) = log sum_v exp z_v`` the value is ``z_k - lse(z)``. A loss with gradient ``g_k`` with
respect to it has gradient ``dz = scatter(g, index) - G softmax(z)`` with respect to the logits, ``G = sum_k g_k``.
There are two ways from there.

**The logits are kept** and overwritten by ``dz`` in the backward pass.

**In blocks of rows**, nothing of size ``[N, V]`` exists and nothing is computed twice. Split ``softmax(z)`` into the
chosen columns and the rest ``r``, which is 0 there. The chosen columns' part of ``dz`` is sparse. The rest enters the
gradients through ``r W`` (for the states) and ``sum_n G_n r_n' h_n`` (for the weights). The former needs no ``G``, the
latter only as a factor if all ``G_n`` are equal, as they are for a sum of CTC or cross-entropy losses: each position's
``-g`` is a distribution times the loss's own gradient. So both products are taken in the forward pass, while the block
is at hand. Rows whose ``G_n`` differs from the others' are put right by recomputing them.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plugin_common.cpu_matmul import linear_into, product, transposed_product

# Element-wise work goes through about this many logits at a time. On a CPU: small enough for a cache that cores share,
# large enough that threads seldom wait for each other. On a GPU: small beside the logits.
_BLOCK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 26}
# The largest number of logits that `automatic_chunk_rows` keeps.
_KEPT_LOGITS = {torch.float32: 1 << 24, torch.bfloat16: 1 << 28, torch.float16: 1 << 30}
# Totals G_n are equal if they differ by no more than the rounding of their sums, in units of the last place.
_ROUNDING_UNITS = 32
# Rows whose chosen columns are put together: more share more columns, but fill a wider matrix.
_ROWS_FOR_CHOSEN = 1024
# A block of rows has about this many logits. The weights are read, and their gradient read and written, once a block.
_CHUNK_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 28}
_FEWEST_CHUNK_ROWS = 128


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
            place; a number works in blocks of so many rows and holds ``[chunk_rows, V]`` and one ``[V, D]``. Blocks are
            faster too where each row's gradients sum to the same number (a sum of CTC or cross-entropy losses);
            otherwise the differing rows cost five matrix products instead of three.

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
    return _InBlocks.apply(hidden, weight, bias, index, chunk_rows, torch.is_grad_enabled())


def default_chunk_rows(labels: int, device: torch.device) -> int:
    """A good ``chunk_rows`` for a vocabulary of ``labels`` symbols on ``device``."""
    elements = _CHUNK_ELEMENTS.get(device.type, _CHUNK_ELEMENTS["cuda"])
    return max(_FEWEST_CHUNK_ROWS, elements // max(1, labels))


def automatic_chunk_rows(
    positions: int, weight: Tensor, dtype: torch.dtype, *, trains_weight: bool = True
) -> int | None:
    """``chunk_rows`` for the loss of ``positions`` states of ``dtype`` under the projection ``weight [V, D]``.

    Float32 takes less time and memory in blocks, unless the logits are few. Bfloat16 gains memory alone and float16
    would compute the logits twice: both keep theirs until they are large (0.5 and 2 GiB). Where the weight needs no
    gradient (``trains_weight``), blocks take less time in bfloat16, too: the logits are gone through once, not twice.
    """
    if not trains_weight and dtype != torch.float16:
        return default_chunk_rows(weight.size(0), weight.device)
    kept = _KEPT_LOGITS.get(dtype, _KEPT_LOGITS[torch.float32])
    return None if positions * weight.size(0) <= kept else default_chunk_rows(weight.size(0), weight.device)


def _check_shapes(hidden: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, chunk_rows: int | None) -> None:
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.size(1) != weight.size(1):
        raise ValueError(f"expected hidden [N, D] and weight [V, D], got {[*hidden.shape]} and {[*weight.shape]}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"expected bias [{weight.size(0)}], got {[*bias.shape]}")
    if index.dim() != 2 or index.size(0) != hidden.size(0):
        raise ValueError(f"expected index [{hidden.size(0)}, K], got {[*index.shape]}")
    if chunk_rows is not None and chunk_rows < 1:
        raise ValueError(f"chunk_rows must be at least 1, got {chunk_rows}")


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _blocks(rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _blocks_for_cache(logits: Tensor) -> Iterator[slice]:
    elements = _BLOCK_ELEMENTS.get(logits.device.type, _BLOCK_ELEMENTS["cuda"])
    return _blocks(logits.size(0), max(1, elements // max(1, logits.size(1))))


def _write_back(logits: Tensor, rows: slice, block: Tensor) -> None:
    if block.data_ptr() != logits[rows].data_ptr():  # else `.to()` was the memory itself
        logits[rows] = block


def _log_normalizer(logits: Tensor) -> Tensor:
    """``[N, 1]`` log-sum-exp in fp32 or better, block by block so that no wide copy of all logits exists."""
    out = logits.new_empty(logits.size(0), 1, dtype=_wide(logits.dtype))
    for rows in _blocks_for_cache(logits):
        torch.logsumexp(logits[rows].to(out.dtype), dim=1, keepdim=True, out=out[rows])
    return out


# ---- the logits are kept --------------------------------------------------------------------------------------------


def _logits_to_gradient_(logits: Tensor, normalizer: Tensor, index: Tensor, grad: Tensor) -> Tensor:
    """Overwrite ``logits`` by their gradient ``scatter(grad, index) - softmax(logits) * grad.sum(1)``."""
    minus_total = grad.sum(dim=1, keepdim=True).neg_()
    for rows in _blocks_for_cache(logits):
        block = logits[rows].to(grad.dtype)
        block.sub_(normalizer[rows]).exp_().mul_(minus_total[rows]).scatter_add_(1, index[rows], grad[rows])
        _write_back(logits, rows, block)
    return logits


class _KeepLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor) -> Tensor:
        logits = linear_into(hidden.new_empty(hidden.size(0), weight.size(0)), hidden, weight, bias)
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
            product(gradient, weight) if ctx.needs_input_grad[0] else None,
            transposed_product(gradient, hidden) if ctx.needs_input_grad[1] else None,
            gradient.sum(dim=0) if ctx.needs_input_grad[2] else None,
            None,
        )


# ---- in blocks of rows ----------------------------------------------------------------------------------------------


def _logits_to_rest_(logits: Tensor, index: Tensor, normalizer: Tensor) -> Tensor:
    """Overwrite ``logits`` by their softmax with 0 in the chosen columns; write the log-sum-exp into ``normalizer``.

    Returns:
        ``[n, K]`` log-probabilities of the chosen columns.
    """
    chosen = torch.empty(index.shape, dtype=normalizer.dtype, device=logits.device)
    for rows in _blocks_for_cache(logits):
        block = logits[rows].to(chosen.dtype)
        largest = block.amax(dim=1, keepdim=True)
        torch.sub(block.gather(1, index[rows]), largest, out=chosen[rows])
        total = block.sub_(largest).exp_().sum(dim=1, keepdim=True)
        log_total = total.log()
        chosen[rows] -= log_total
        torch.add(largest, log_total, out=normalizer[rows])
        block.mul_(total.reciprocal_()).scatter_(1, index[rows], 0.0)
        _write_back(logits, rows, block)
    return chosen


def _scaled_rest_(logits: Tensor, index: Tensor, normalizer: Tensor, scale: Tensor) -> Tensor:
    """Overwrite ``logits`` by ``scale [n, 1]`` times their softmax with 0 in the chosen columns."""
    for rows in _blocks_for_cache(logits):
        block = logits[rows].to(normalizer.dtype)
        block.sub_(normalizer[rows]).exp_().mul_(scale[rows]).scatter_(1, index[rows], 0.0)
        _write_back(logits, rows, block)
    return logits


def _add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left @ right``, narrow products being added up in ``total``'s precision."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
        return
    for rows in _blocks_for_cache(total):
        total[rows] += left[rows] @ right


class _Sums(NamedTuple):
    """Running sums for the gradients of weight and bias, in fp32 or better; None for one that is not wanted."""

    weight: Tensor | None  # [V, D]
    bias: Tensor | None  # [V]

    @classmethod
    def zero(cls, weight: Tensor, *, for_weight: bool, for_bias: bool) -> "_Sums":
        """What is wanted, nothing added yet."""
        wide = _wide(weight.dtype)
        return cls(
            torch.zeros_like(weight, dtype=wide) if for_weight else None,
            weight.new_zeros(weight.size(0), dtype=wide) if for_bias else None,
        )

    def add(self, rest: Tensor, hidden: Tensor) -> None:
        """Add ``rest' hidden`` and ``rest' 1`` for a block ``rest [n, V]`` and its states ``hidden [n, D]``."""
        if self.weight is not None:
            _add_product_(self.weight, rest.t(), hidden)
        if self.bias is not None:
            self.bias.add_(rest.sum(dim=0, dtype=self.bias.dtype))

    def add_columns(self, columns: Tensor, part: Tensor, hidden: Tensor) -> None:
        """The same for ``part [n, C]``, which holds the columns ``columns [C]`` alone."""
        if self.weight is not None:
            self.weight.index_add_(0, columns, part.t() @ hidden.to(part.dtype))
        if self.bias is not None:
            self.bias.index_add_(0, columns, part.sum(dim=0))

    def times(self, factor: Tensor) -> "_Sums":
        """Everything times ``factor []``: in place unless the graph is kept for another backward pass."""
        scale = torch.mul if _graph_is_kept() else Tensor.mul_
        return _Sums(*(None if total is None else scale(total, factor) for total in self))


def _graph_is_kept() -> bool:
    """Whether the backward pass that is running was called with ``retain_graph``; True where torch does not tell."""
    tell = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return tell is None or bool(tell())


class _InBlocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        index: Tensor,
        chunk_rows: int,
        grad_enabled: bool,
    ) -> Tensor:
        # float16 has no room for small probabilities before the loss scale, a part of G, multiplies them.
        ahead = grad_enabled and hidden.dtype != torch.float16
        for_hidden, for_weight, for_bias = (ahead and wanted for wanted in ctx.needs_input_grad[:3])
        means = torch.empty_like(hidden) if for_hidden else None
        sums = _Sums.zero(weight, for_weight=for_weight, for_bias=for_bias)
        normalizer = hidden.new_empty(hidden.size(0), 1, dtype=_wide(hidden.dtype))
        chosen = torch.empty(index.shape, dtype=normalizer.dtype, device=hidden.device)
        buffer = hidden.new_empty(min(chunk_rows, hidden.size(0)), weight.size(0))
        for rows in _blocks(hidden.size(0), chunk_rows):
            block = linear_into(buffer[: rows.stop - rows.start], hidden[rows], weight, bias)
            chosen[rows] = _logits_to_rest_(block, index[rows], normalizer[rows])
            if means is not None:
                means[rows] = product(block, weight)
            sums.add(block, hidden[rows])
        ctx.save_for_backward(hidden, weight, bias, index, normalizer, chosen, means, *sums)
        ctx.chunk_rows, ctx.ahead = chunk_rows, ahead
        return chosen

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, bias, index, normalizer, chosen, means, *running = ctx.saved_tensors
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        total = grad.sum(dim=1, keepdim=True)
        grad_hidden = None
        if for_hidden:
            grad_hidden = total.new_zeros(hidden.shape) if means is None else means * -total
        if ctx.ahead and len(total) > 0:
            common = total.median()
            sums = _Sums(*running).times(-common)
            recomputed = _differing_rows(total, common) if for_weight or for_bias else index.new_empty(0)
        else:
            common = total.new_zeros(())
            sums = _Sums.zero(weight, for_weight=for_weight, for_bias=for_bias)
            recomputed = torch.arange(len(total), device=total.device)
        buffer = hidden.new_empty(min(ctx.chunk_rows, recomputed.numel()), weight.size(0))
        for block_of_rows in _blocks(recomputed.numel(), ctx.chunk_rows):
            rows = recomputed[block_of_rows]
            logits = linear_into(buffer[: rows.numel()], hidden[rows], weight, bias)
            rest = _scaled_rest_(logits, index[rows], normalizer[rows], common - total[rows])
            if grad_hidden is not None and means is None:
                grad_hidden[rows] = product(rest, weight).to(grad.dtype)
            sums.add(rest, hidden[rows])

        for rows in _blocks(hidden.size(0), min(ctx.chunk_rows, _ROWS_FOR_CHOSEN)):
            columns, part = _chosen_columns(index[rows], grad[rows], total[rows] * chosen[rows].exp())
            if grad_hidden is not None:
                grad_hidden[rows].addmm_(part, weight[columns].to(part.dtype))
            sums.add_columns(columns, part, hidden[rows])
        return (
            None if grad_hidden is None else grad_hidden.to(hidden.dtype),
            None if sums.weight is None else sums.weight.to(weight.dtype),
            None if sums.bias is None else sums.bias.to(weight.dtype),
            None,
            None,
            None,
        )


def _differing_rows(total: Tensor, common: Tensor) -> Tensor:
    """Numbers of the rows whose ``total [n, 1]`` is not ``common []`` up to rounding."""
    tolerance = _ROUNDING_UNITS * torch.finfo(total.dtype).eps * common.abs()
    return ((total - common).abs() > tolerance).squeeze(1).nonzero().squeeze(1)


def _chosen_columns(index: Tensor, grad: Tensor, scaled_probability: Tensor) -> tuple[Tensor, Tensor]:
    """The chosen columns' part of the logits' gradient.

    Args:
        index, grad, scaled_probability: ``[n, K]``: columns, ``g`` and ``G softmax(z)`` there.

    Returns:
        ``(columns [C], part [n, C])``: the different columns among ``index`` and the gradient of their logits.
    """
    columns, place = torch.unique(index, return_inverse=True)
    part = grad.new_zeros(index.size(0), columns.numel())
    # A column that stands twice in a row has two gradients but one probability: assigned, not added.
    part.scatter_(1, place, -scaled_probability).scatter_add_(1, place, grad)
    return columns, part

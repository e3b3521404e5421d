"""Causal attention within packed documents on a CPU, in blocks of queries.

torch's own attention on a CPU multiplies tiles too small for its matrix library, and in bfloat16 takes more than twice
the time of plain products. Here a block of queries meets all the keys that it may see in one product for each group of
heads that share keys (grouped-query attention), and nothing above the diagonal is computed but within a block. The
probabilities are computed again in the backward pass, so that no more than one block of them exists at a time.

With ``S = scale Q K'``, ``P = softmax(S)`` and ``O = P V``::

    dV = P' dO,   dP = dO V',   dS = P (dP - rowsum(P dP)),   dQ = scale dS K,   dK = scale dS' Q
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Smaller blocks waste less above the diagonal, larger ones spend less on calls.
_BLOCK = 160


def blocked_attention(
    query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], *, scale: float, window: int | None = None
) -> Tensor:
    """Causal attention of each document to itself.

    Args:
        query: ``[H, N, D]``, any strides.
        key, value: ``[K, N, D]``; H is a multiple of K, and heads that follow each other share keys.
        lengths: of the documents; their sum is N.
        scale: times the scores.
        window: a query sees itself and the ``window - 1`` positions before it; None: all before it.

    Returns:
        ``[N, H, D]``. Scores and probabilities have the inputs' precision (their exponentials and sums float32 or
        better). Differentiable once.
    """
    result: Tensor = _Attention.apply(query, key, value, tuple(lengths), scale, window)
    return result


class _Block(NamedTuple):
    """Queries ``[start, stop)`` and the keys ``[first, stop)`` that they see, as positions in the packed row."""

    first: int
    start: int
    stop: int
    masks: tuple[tuple[slice, Tensor], ...]
    """Columns of the scores and what to add to them there, ``[stop - start, columns]``."""


def _blocks(lengths: Sequence[int], window: int | None, like: Tensor) -> Iterator[_Block]:
    """The blocks of all documents."""
    known: dict[tuple[int, int, int], Tensor] = {}

    def mask(rows: int, columns: int, shift: int) -> Tensor:
        if (rows, columns, shift) not in known:
            known[rows, columns, shift] = _mask(rows, columns, shift, window, like)
        return known[rows, columns, shift]

    offset = 0
    for length in lengths:
        count = -(-length // _BLOCK)
        bounds = [offset + length * number // count for number in range(count + 1)]
        for start, stop in pairwise(bounds):
            rows = stop - start
            if window is None or stop - offset <= window:
                yield _Block(offset, start, stop, ((slice(start - offset, None), mask(rows, rows, 0)),))
            else:
                first = max(offset, start - window + 1)
                yield _Block(first, start, stop, ((slice(None), mask(rows, stop - first, start - first)),))
        offset += length


def _mask(rows: int, columns: int, shift: int, window: int | None, like: Tensor) -> Tensor:
    """``[rows, columns]``: 0 where the query at ``shift + row`` sees the key at ``column``, else minus infinity."""
    back = torch.arange(rows)[:, None] + shift - torch.arange(columns)
    seen = back >= 0 if window is None else (back >= 0) & (back < window)
    return like.new_zeros(rows, columns).masked_fill_(~seen, -torch.inf)


def _probabilities(queries: Tensor, keys: Tensor, block: _Block, heads: int) -> Tensor:
    """``[K, G n, m]`` softmax of the scores; ``queries [K, G n, D]`` are scaled, ``keys [K, m, D]``."""
    scores = torch.bmm(queries, keys.transpose(1, 2))
    by_head = scores.view(heads, -1, block.stop - block.start, scores.size(2))
    for columns, mask in block.masks:
        by_head[..., columns].add_(mask)
    return scores.softmax(dim=-1)


def _by_group(states: Tensor, groups: int) -> Tensor:
    """``[H, N, D]`` as ``[K, G, N, D]``."""
    return states.unflatten(0, (groups, -1))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scale: float, window: int | None
    ) -> Tensor:
        keys, values = key.contiguous(), value.contiguous()
        groups = key.size(0)
        out = query.new_empty(query.size(1), query.size(0), query.size(2))
        by_group, queries = _by_group(out.transpose(0, 1), groups), _by_group(query, groups)
        for block in _blocks(lengths, window, query):
            rows, seen = slice(block.start, block.stop), slice(block.first, block.stop)
            scaled = (queries[:, :, rows] * scale).flatten(1, 2)
            chances = _probabilities(scaled, keys[:, seen], block, groups)
            by_group[:, :, rows] = torch.bmm(chances, values[:, seen]).view_as(by_group[:, :, rows])
        ctx.save_for_backward(query, keys, values)
        ctx.options = lengths, scale, window
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        query, keys, values = ctx.saved_tensors
        lengths, scale, window = ctx.options
        groups = keys.size(0)
        queries, grads = _by_group(query, groups), _by_group(grad.transpose(0, 1), groups)
        grad_query = torch.empty_like(query)
        for_queries = _by_group(grad_query, groups)
        # Summed over blocks in float32 or better.
        wide = torch.promote_types(keys.dtype, torch.float32)
        grad_keys, grad_values = (torch.zeros_like(keys, dtype=wide) for _ in range(2))
        for block in _blocks(lengths, window, query):
            rows, seen = slice(block.start, block.stop), slice(block.first, block.stop)
            scaled = (queries[:, :, rows] * scale).flatten(1, 2)
            above = grads[:, :, rows].flatten(1, 2)
            chances = _probabilities(scaled, keys[:, seen], block, groups)
            grad_values[:, seen] += torch.bmm(chances.transpose(1, 2), above)
            of_chances = torch.bmm(above, values[:, seen].transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_chances, chances, -1, chances.dtype)
            for_queries[:, :, rows] = torch.bmm(of_scores, keys[:, seen]).mul_(scale).view_as(for_queries[:, :, rows])
            grad_keys[:, seen] += torch.bmm(of_scores.transpose(1, 2), scaled)
        return grad_query, grad_keys.to(keys.dtype), grad_values.to(values.dtype), None, None, None

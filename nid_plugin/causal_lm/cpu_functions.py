"""Parts of a transformer that take less time and memory on a CPU than as chains of torch's operations.

Each keeps for the backward pass its inputs alone and computes what it needs from them again. All are differentiable
once.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from plugin_common.cpu_matmul import linear, product


def rms_norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``weight x / sqrt(mean(x²) + eps)`` over the last dimension (Zhang & Sennrich 2019).

    Computed in float32 or better and rounded once. ``states [..., D]``, ``weight [D]``.
    """
    result: Tensor = _RmsNorm.apply(states, weight, eps)
    return result


def silu_product(gate: Tensor, up: Tensor) -> Tensor:
    """``silu(gate) up``, where ``silu(x) = x sigmoid(x)``: the inner part of a gated layer (Shazeer 2020)."""
    result: Tensor = _SiluProduct.apply(gate, up)
    return result


def linear_layer(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x W' + b`` for ``states [..., D]``, ``weight [V, D]``, ``bias [V]`` or None, by the faster matrix library."""
    result: Tensor = _Linear.apply(states, weight, bias)
    return result


def lora_layer(states: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """``x W' + bias + scale (x A') B'``, where ``weight`` and ``bias`` are frozen.

    Args:
        states: ``[..., D]``.
        weight: ``[V, D]``.
        bias: ``[V]`` or None.
        a, b: ``[R, D]`` and ``[V, R]``.
        scale: of the adapter.
    """
    result: Tensor = _LoraLinear.apply(states, weight, bias, a, b, scale)
    return result


def _rows(states: Tensor) -> Tensor:
    return states.reshape(-1, states.size(-1))


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = torch.promote_types(states.dtype, torch.float32)
        norm = torch.linalg.vector_norm(states, dim=-1, keepdim=True, dtype=wide)
        inverse = norm.square_().div_(states.size(-1)).add_(eps).rsqrt_()
        ctx.save_for_backward(states, weight, inverse)
        return torch.mul(states, inverse).mul_(weight).to(states.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        # With n = x / rms(x) and g the gradient: d weight = sum g n, dx = (g w - n mean(g w n)) / rms(x).
        states, weight, inverse = ctx.saved_tensors
        normed = torch.mul(states, inverse)
        by_place = grad * normed
        grad_weight = _rows(by_place).sum(dim=0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, None
        scale = weight.to(normed.dtype)
        mean = (by_place @ scale).div_(states.size(-1)).unsqueeze(-1)
        grad_states = torch.mul(grad, scale, out=by_place).sub_(normed.mul_(mean)).mul_(inverse)
        return grad_states.to(states.dtype), grad_weight, None


class _SiluProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), F.silu(gate).mul_(grad)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = _rows(states)
        ctx.save_for_backward(rows, weight)
        ctx.shape = states.shape
        return linear(rows, weight, bias).view(*states.shape[:-1], weight.size(0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        grad = _rows(grad).contiguous()
        for_states, for_weight, for_bias = ctx.needs_input_grad
        return (
            product(grad, weight).view(ctx.shape) if for_states else None,
            product(grad.t().contiguous(), rows) if for_weight else None,
            grad.sum(dim=0) if for_bias else None,
        )


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        rows = _rows(states)
        low = rows @ a.t()
        ctx.save_for_backward(rows, weight, a, b, low)
        ctx.shape, ctx.scale = states.shape, scale
        return linear(rows, weight, bias).addmm_(low, b.t(), alpha=scale).view(*states.shape[:-1], weight.size(0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        rows, weight, a, b, low = ctx.saved_tensors
        grad = _rows(grad).contiguous()
        grad_low = (grad @ b).mul_(ctx.scale)
        grad_states = product(grad, weight).addmm_(grad_low, a).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return grad_states, None, None, grad_low.t() @ rows, (grad.t() @ low).mul_(ctx.scale), None

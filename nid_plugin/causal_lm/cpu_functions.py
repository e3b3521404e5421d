"""Parts of a transformer that take less time and memory on a CPU than as chains of torch's operations.

What is cheap to compute is computed again in the backward pass instead of being kept: each function keeps its inputs
alone, and where the input of a linear layer is the result of :func:`rms_norm` or :func:`silu_product`, the layer keeps
what that was made of, which is kept anyway. All are differentiable once.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from plugin_common.cpu_matmul import linear, product

_MARK = "_recipe"  # the attribute of a result that tells how to compute it again


class _Recipe:
    """How to compute a tensor again; shared by all that need it in the backward pass."""

    def __init__(self, compute: Callable[..., Tensor], *inputs: Tensor) -> None:
        self.inputs = inputs
        self._compute = compute
        self._uses = 0
        self._made: Tensor | None = None

    def note_use(self) -> tuple[Tensor, ...]:
        """What a user of the tensor must keep."""
        self._uses += 1
        return self.inputs

    def make(self, *inputs: Tensor) -> Tensor:
        """The tensor; kept until its last user has asked for it."""
        made = self._compute(*inputs) if self._made is None else self._made
        self._uses -= 1
        self._made = made if self._uses > 0 else None
        return made


def _marked(result: Tensor, compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    if result.requires_grad:
        setattr(result, _MARK, _Recipe(compute, *inputs))
    return result


def rms_norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``weight x / sqrt(mean(x²) + eps)`` over the last dimension (Zhang & Sennrich 2019).

    Computed in float32 or better and rounded once. ``states [..., D]``, ``weight [D]``.
    """
    wide = torch.promote_types(states.dtype, torch.float32)
    norm = torch.linalg.vector_norm(states.detach(), dim=-1, keepdim=True, dtype=wide)
    inverse = norm.square_().div_(states.size(-1)).add_(eps).rsqrt_()
    return _marked(_RmsNorm.apply(states, weight, inverse), _normed, states, weight, inverse)


def silu_product(gate: Tensor, up: Tensor) -> Tensor:
    """``silu(gate) up``, where ``silu(x) = x sigmoid(x)``: the inner part of a gated layer (Shazeer 2020)."""
    return _marked(_SiluProduct.apply(gate, up), _gated, gate, up)


def linear_layer(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x W' + b`` for ``states [..., D]``, ``weight [V, D]``, ``bias [V]`` or None, by the faster matrix library."""
    result: Tensor = _Linear.apply(states, weight, bias, *_recipe_of(states))
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
    result: Tensor = _LoraLinear.apply(states, weight, bias, a, b, scale, *_recipe_of(states))
    return result


def _recipe_of(states: Tensor) -> tuple[Any, ...]:
    recipe = getattr(states, _MARK, None) if torch.is_grad_enabled() else None
    return (None,) if recipe is None else (recipe, *recipe.inputs)


def _rows(states: Tensor) -> Tensor:
    return states.reshape(-1, states.size(-1))


def _keep(ctx: Any, rows: Tensor | None, recipe: _Recipe | None, *others: Tensor) -> None:
    """Keep ``others`` and, unless None, ``rows`` for the backward pass, the latter perhaps as what they are made of."""
    ctx.recipe = None if rows is None else recipe
    ctx.others = len(others)
    made_of = () if rows is None else (rows,) if recipe is None else recipe.note_use()
    ctx.save_for_backward(*others, *made_of)


def _kept(ctx: Any) -> tuple[Tensor, ...]:
    """``(*others, rows)``, without ``rows`` if they were None. May be called once."""
    saved = ctx.saved_tensors
    others, rows = saved[: ctx.others], saved[ctx.others :]
    return (*others, _rows(ctx.recipe.make(*rows))) if ctx.recipe is not None else saved


def _normed(states: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    return torch.mul(states, inverse).mul_(weight).to(states.dtype)


def _gated(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate).mul_(up)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(states, weight, inverse)
        return _normed(states, weight, inverse)

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
        return _gated(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), _gated(gate, grad)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, recipe: _Recipe | None, *inputs: Tensor
    ) -> Tensor:
        rows = _rows(states)
        _keep(ctx, rows if ctx.needs_input_grad[1] else None, recipe, weight)
        ctx.shape = states.shape
        return linear(rows, weight, bias).view(*states.shape[:-1], weight.size(0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        for_states, for_weight, for_bias = ctx.needs_input_grad[:3]
        weight, *rows = _kept(ctx)
        grad = _rows(grad).contiguous()
        return (
            product(grad, weight).view(ctx.shape) if for_states else None,
            _weight_gradient(grad, *rows) if for_weight else None,
            grad.sum(dim=0) if for_bias else None,
            *(None for _ in ctx.needs_input_grad[3:]),
        )


def _weight_gradient(grad: Tensor, rows: Tensor) -> Tensor:
    """``grad' rows``; in float32 the faster library wants the transposed one as it lies in memory."""
    return product(grad.t().contiguous(), rows) if grad.dtype == torch.float32 else grad.t() @ rows


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        recipe: _Recipe | None,
        *inputs: Tensor,
    ) -> Tensor:
        rows = _rows(states)
        low = rows @ a.t()
        _keep(ctx, rows, recipe, weight, a, b, low)
        ctx.shape, ctx.scale = states.shape, scale
        return linear(rows, weight, bias).addmm_(low, b.t(), alpha=scale).view(*states.shape[:-1], weight.size(0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        weight, a, b, low, rows = _kept(ctx)
        grad = _rows(grad).contiguous()
        grad_low = (grad @ b).mul_(ctx.scale)
        grad_states = product(grad, weight).addmm_(grad_low, a).view(ctx.shape) if ctx.needs_input_grad[0] else None
        grad_b = (grad.t() @ low).mul_(ctx.scale)
        return grad_states, None, None, grad_low.t() @ rows, grad_b, *(None for _ in ctx.needs_input_grad[5:])

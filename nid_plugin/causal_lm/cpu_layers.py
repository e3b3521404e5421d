"""Let the layers of a transformers causal LM use :mod:`nid_plugin.causal_lm.cpu_functions` on a CPU.

A layer is recognised by what it is made of, and its first one of a class is tried: only where both ways give the same
are those of the class changed. Each looks at its inputs anew, so that a model that moves to another device, or runs
under autocast, computes as it did before.
"""

import logging
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from nid_plugin.causal_lm.cpu_functions import linear_layer, lora_layer, rms_norm, silu_product

logger = logging.getLogger(__name__)

_ROUNDING_UNITS = 8  # by which both ways may differ, of the largest value

_GATED = ("gate_proj", "up_proj", "down_proj", "act_fn")


def install(lm: Any) -> int:
    """Change the layers of ``lm`` that can be; those of adapters, too. Nothing unless its weights lie on a CPU.

    Parameters, their names and what is saved stay as they are.

    Returns:
        How many layers were changed.
    """
    known: dict[tuple[type, torch.dtype], bool] = {}
    changed = 0
    for layer, forward, width in _candidates(lm):
        kind = type(layer), _dtype(layer)
        if kind not in known:
            known[kind] = _same(layer, forward, width)
        if known[kind]:
            layer.forward = MethodType(forward, layer)
            changed += 1
    return changed


def _candidates(lm: Any) -> Iterator[tuple[nn.Module, Callable[..., Tensor], int]]:
    """Layers that might be changed, with their new ``forward`` and the width of their input."""
    head = lm.get_output_embeddings()
    for name, layer in lm.named_modules():
        parameter = next(layer.parameters(), None)
        if parameter is None or parameter.device.type != "cpu" or layer is head:
            continue
        if not all(weight.is_floating_point() for weight in layer.parameters()):
            continue  # weights of 4 bits
        if type(layer) is nn.Linear and "lora_" not in name:
            yield layer, _linear, layer.in_features
        elif type(layer).__name__.endswith("RMSNorm") and hasattr(layer, "variance_epsilon"):
            yield layer, _norm, parameter.numel()
        elif all(hasattr(layer, part) for part in _GATED) and "SiLU" in type(layer.act_fn).__name__:
            yield layer, _gated, layer.gate_proj.in_features
        elif hasattr(layer, "lora_A") and type(getattr(layer, "base_layer", None)) is nn.Linear:
            yield layer, _lora, layer.base_layer.in_features


def _dtype(layer: nn.Module) -> torch.dtype:
    return next(layer.parameters()).dtype


def _same(layer: nn.Module, forward: Callable[..., Tensor], width: int) -> bool:
    """Whether a layer's new ``forward`` gives what its own does."""
    dtype = _dtype(layer)
    probe = torch.randn(3, width, generator=torch.Generator().manual_seed(0)).to(dtype)
    mode = layer.training
    layer.eval()
    try:
        with torch.no_grad():
            expected, given = layer(probe), forward(layer, probe)
    except Exception:  # not what it looked like
        logger.info("%s stays as it is", type(layer).__name__, exc_info=True)
        return False
    finally:
        layer.train(mode)
    tolerance = _ROUNDING_UNITS * torch.finfo(dtype).eps * float(expected.abs().max())
    same = given.shape == expected.shape and bool(((given - expected).abs() <= tolerance).all())
    if not same:
        logger.info("%s stays as it is: it computes something else than its parts tell", type(layer).__name__)
    return same


def _fits(states: Tensor, *weights: Tensor | None) -> bool:
    """Whether the functions take such inputs: on a CPU, of one precision, no autocast."""
    return (
        states.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and all(weight is None or weight.dtype == states.dtype for weight in weights)
    )


def _linear(layer: Any, states: Tensor) -> Tensor:
    if _fits(states, layer.weight, layer.bias):
        return linear_layer(states, layer.weight, layer.bias)
    result: Tensor = type(layer).forward(layer, states)
    return result


def _norm(layer: Any, states: Tensor) -> Tensor:
    if _fits(states, layer.weight):
        return rms_norm(states, layer.weight, layer.variance_epsilon)
    result: Tensor = type(layer).forward(layer, states)
    return result


def _gated(layer: Any, states: Tensor) -> Tensor:
    if _fits(states):
        result: Tensor = layer.down_proj(silu_product(layer.gate_proj(states), layer.up_proj(states)))
    else:
        result = type(layer).forward(layer, states)
    return result


def _lora(layer: Any, states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """For peft's linear layer with one plain adapter, not merged and without dropout."""
    active = layer.active_adapters
    if (
        len(active) == 1
        and active[0] in layer.lora_A
        and not (args or kwargs or layer.merged or layer.disable_adapters)
    ):
        (name,) = active
        a, b, base = layer.lora_A[name], layer.lora_B[name], layer.base_layer
        dropout = layer.lora_dropout[name]
        plain = name not in getattr(layer, "lora_variant", {}) and a.bias is None and b.bias is None
        dropped = isinstance(dropout, nn.Dropout) and dropout.p > 0 and layer.training
        frozen = not base.weight.requires_grad and (base.bias is None or not base.bias.requires_grad)
        if plain and not dropped and frozen and _fits(states, base.weight, base.bias, a.weight, b.weight):
            return lora_layer(states, base.weight, base.bias, a.weight, b.weight, layer.scaling[name])
    result: Tensor = type(layer).forward(layer, states, *args, **kwargs)
    return result

"""Linear layers of a model that only decodes, packed for oneDNN once instead of in each product.

torch multiplies float32 matrices on a CPU with MKL, which uses half-width vector instructions on processors of other
makers than its own, and bfloat16 ones with oneDNN, which rearranges the weight in every product. Packed layers use
oneDNN at full width for both and take weights that are rearranged already; ``torch.compile`` reaches the same
operators. The arithmetic is IEEE float32 or torch's own bfloat16 product, summed in another order than MKL's.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nat_plugin.decoding.precision import bf16_support, short_name
from plugin_common.cpu_matmul import uses_onednn
from plugin_common.errors import UserError

PACKED_TYPES = (torch.float32, torch.bfloat16)


class PackedLinear(nn.Module):
    """``nn.Linear`` with a packed weight: decodes, but can be neither trained, saved, converted nor moved.

    Args:
        weight: ``[V, D]``; bias: ``[V]`` or None.
        activation: ``none``, or ``gelu`` (the exact one) applied to the result while it is in the cache.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, activation: str = "none") -> None:
        super().__init__()
        self.out_features, self.dtype = weight.size(0), weight.dtype
        # Plain attributes: a packed weight has no storage that `to`, `state_dict` and their like could handle.
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
        self.added = None if bias is None else bias.detach()
        self.activation = activation

    def forward(self, inputs: Tensor) -> Tensor:
        """``[…, D]`` → ``[…, V]``.

        Raises:
            UserError: the inputs are of another format or device than the weight, or gradients are asked for.
        """
        self._check(inputs)
        if inputs.numel() == 0:
            return inputs.new_empty(*inputs.shape[:-1], self.out_features)
        algorithm = "" if self.activation == "none" else "none"
        return torch.ops.mkldnn._linear_pointwise(inputs, self.packed, self.added, self.activation, [], algorithm)

    def _check(self, inputs: Tensor) -> None:
        if inputs.dtype != self.dtype or inputs.device.type != "cpu":
            raise UserError(
                f"the model is packed for decoding in {short_name(self.dtype)} on a CPU and cannot be converted or "
                f"moved any more (its inputs are {short_name(inputs.dtype)} on {inputs.device}); load it again"
            )
        if torch.is_grad_enabled() and inputs.requires_grad:
            raise UserError(
                "the model is packed for decoding and cannot be trained: load it again, or use torch.inference_mode() "
                "if it is only to decode"
            )


def can_pack(weight: Tensor) -> bool:
    """Whether packing pays for a weight of this type on this machine: on a CPU with full-width vectors."""
    packer = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
    bf16_is_slow = weight.dtype == torch.bfloat16 and not bf16_support(weight.device)[0]
    return (
        packer is not None
        and uses_onednn()
        and weight.device.type == "cpu"
        and weight.dtype in PACKED_TYPES
        and not bf16_is_slow
    )


def pack_layers(layers: nn.Module) -> int:
    """Replace every linear layer within ``layers`` by a packed one (each gives up its unpacked weight); how many.

    A GELU that follows its linear layer in the same module of the layer (the feed-forward part) moves into it.
    """
    packed = 0
    for module in list(layers.modules()):
        children = dict(module.named_children())
        fused = _gelu_after_linear(children)
        for name, child in children.items():
            if type(child) is nn.Linear and can_pack(child.weight):
                activation = "gelu" if fused is not None and fused[0] == name else "none"
                setattr(module, name, PackedLinear(child.weight, child.bias, activation=activation))
                packed += 1
                if fused is not None and activation == "gelu":
                    setattr(module, fused[1], nn.Identity())
    return packed


def _gelu_after_linear(children: dict[str, nn.Module]) -> tuple[str, str] | None:
    """Names of the feed-forward part's first linear layer and of its exact GELU, as the masked LMs name them."""
    for linear, activation in (("dense", "intermediate_act_fn"), ("lin1", "activation")):
        if type(children.get(linear)) is nn.Linear and _is_exact_gelu(children.get(activation)):
            return linear, activation
    return None


def _is_exact_gelu(activation: Any) -> bool:
    if isinstance(activation, nn.GELU):
        return activation.approximate == "none"
    return type(activation).__name__ == "GELUActivation" and activation.act is F.gelu

"""The frozen LM that reads target sentences for embedding distillation. Knows no fairseq."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nat_plugin.models.masked_lm import MaskedLm


class Reading(NamedTuple):
    """What the LM makes of B sentences of up to L tokens."""

    states: Tensor  # [B, L, D]: the chosen layer's, or those before the vocabulary projection
    lengths: Tensor  # [B]: tokens that were read; less than the sentence has where the positions run out


class FrozenLm:
    """A masked LM outside of everything that trains, moves or saves modules: this is no ``nn.Module`` on purpose.

    It follows the student: dtype and device are those of the states that it is compared with.
    """

    def __init__(self, masked_lm: MaskedLm, *, layer: int | None, bos: int, eos: int, pad: int) -> None:
        """Take the LM over.

        Args:
            masked_lm: used up (layers that nobody asks for are dropped).
            layer: 0 for the embeddings, 1 … n for the layers; None for the states before the vocabulary projection.
        """
        self.masked_lm = masked_lm.eval().requires_grad_(False)
        self.layer = layer
        self.bos, self.eos, self.pad = bos, eos, pad
        if layer is not None:
            del self.masked_lm.layers[layer:]

    @classmethod
    def copy_of(cls, masked_lm: MaskedLm, *, layer: int | None, bos: int, eos: int, pad: int) -> "FrozenLm":
        """The LM as it is now; later training leaves the copy alone."""
        return cls(copy.deepcopy(masked_lm), layer=layer, bos=bos, eos=eos, pad=pad)

    @property
    def weight(self) -> Tensor:
        """``[V, D]`` the vocabulary projection."""
        return self.masked_lm.weight

    @property
    def bias(self) -> Tensor | None:
        """``[V]``."""
        return self.masked_lm.bias

    def read(self, tokens: Tensor, lengths: Tensor, like: Tensor) -> Reading:
        """Read ``<s> tokens </s>`` in inference mode.

        Args:
            tokens: ``[B, L]`` right-padded, without ``<s>`` and ``</s>``; lengths: ``[B]``.
            like: a tensor of the wanted dtype and device.

        Returns:
            States in ``like``'s dtype, as ordinary tensors that a graph may hold.
        """
        lengths = lengths.clamp(max=self.masked_lm.positions - 2)
        width = min(tokens.size(1), self.masked_lm.positions - 2)
        self._follow(like)
        with torch.inference_mode():
            framed = self._framed(tokens[:, :width], lengths)
            real = torch.arange(width + 2, device=tokens.device) < lengths[:, None] + 2
            states = self.masked_lm.states(framed, real)
            states = self.masked_lm.head(states) if self.layer is None else states
        return Reading(states[:, 1 : width + 1].to(like.dtype).clone(), lengths)

    def _follow(self, like: Tensor) -> None:
        weight = self.masked_lm.weight
        if weight.device != like.device or weight.dtype != like.dtype:
            self.masked_lm.to(device=like.device, dtype=like.dtype)

    def _framed(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """``[B, L + 2]``: ``<s>``, the tokens, ``</s>``, padding."""
        framed = tokens.new_full((len(tokens), tokens.size(1) + 2), self.pad)
        real = torch.arange(tokens.size(1), device=tokens.device) < lengths[:, None]
        framed[:, 0] = self.bos
        framed[:, 1:-1] = torch.where(real, tokens, self.pad)
        return framed.scatter(1, lengths[:, None] + 1, self.eos)


def looks_untrained(masked_lm: MaskedLm) -> bool:
    """Whether every layer norm still has the weights 1 and biases 0 that it was born with."""
    norms = [module for module in masked_lm.modules() if isinstance(module, nn.LayerNorm)]
    return all(bool((norm.weight == 1).all() and (norm.bias == 0).all()) for norm in norms)

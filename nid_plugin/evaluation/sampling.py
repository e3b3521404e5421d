"""Sampling that does not depend on the batch: each row has its own temperature and its own random numbers."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from transformers import LogitsProcessor

if TYPE_CHECKING:
    from torch import Tensor

TINY = 1e-20  # keeps the logarithm of a uniform random number finite


def seed_of(seed: int, request_id: str) -> int:
    """The seed of a request's random numbers, from the run's seed and the request's id."""
    return int.from_bytes(hashlib.sha256(f"{seed} {request_id}".encode()).digest()[:8], "big") >> 1


class RowSampling(LogitsProcessor):
    """Turns an argmax over logits into a sample from softmax(logits / temperature), row by row.

    Adding standard Gumbel noise to log-probabilities and taking the largest is a draw from them (Gumbel-max trick), so
    that ``generate`` runs greedily. Rows of temperature 0 are left as they are.

    Args:
        temperatures: of each row.
        seeds: of each row's random numbers.
        top_p: keep the most probable tokens whose probabilities add up to this.
    """

    def __init__(self, temperatures: Sequence[float], seeds: Sequence[int], top_p: float = 1.0) -> None:
        self._temperatures, self._seeds, self._top_p = list(temperatures), list(seeds), top_p
        self._generators: list = []

    def __call__(self, input_ids: "Tensor", scores: "Tensor") -> "Tensor":
        """Logits [B, V] of the next token → values whose argmax is the token."""
        import torch

        if not self._generators:
            self._generators = [torch.Generator(scores.device).manual_seed(seed) for seed in self._seeds]
        chosen = scores.clone()
        for row, (temperature, generator) in enumerate(zip(self._temperatures, self._generators, strict=True)):
            if temperature > 0:
                logits = _most_probable(scores[row].float() / temperature, self._top_p)
                uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
                chosen[row] = logits - torch.log(-torch.log(uniform.clamp_min(TINY)) + TINY)
        return chosen


def _most_probable(logits: "Tensor", top_p: float) -> "Tensor":
    """Logits [V] with -inf outside of the smallest set of tokens whose probability reaches ``top_p``."""
    import torch

    if top_p >= 1:
        return logits
    ordered, order = torch.sort(logits, descending=True)
    before = torch.cumsum(torch.softmax(ordered, -1), -1) - torch.softmax(ordered, -1)
    return logits.masked_fill(torch.zeros_like(logits, dtype=torch.bool).scatter(0, order, before >= top_p), -torch.inf)

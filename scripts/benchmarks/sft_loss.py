"""The loss alone, for sft.py: time and memory at a vocabulary of 128k, ours against log-softmax and cross-entropy."""

from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nid_plugin.causal_lm.loss import completion_loss
from scripts.benchmarks.measure import run_in_turn
from scripts.benchmarks.steps import Step, StepProcess

OURS, DENSE = "ours", "dense"


@dataclass(frozen=True)
class LossShape:
    """LLaMA-3's vocabulary; labels of a batch; width of SmolLM2-135M."""

    labels: int = 128_256
    positions: int = 2048
    width: int = 576


class LossSteps:
    """Inputs and the step from states to loss and gradients."""

    def __init__(self, shape: LossShape, variant: str, dtype: str, trains_weight: bool) -> None:
        generator = torch.Generator().manual_seed(0)

        def normal(*size: int, scale: float) -> Tensor:
            return torch.empty(*size).normal_(std=scale, generator=generator).to(getattr(torch, dtype))

        self.hidden = normal(shape.positions, shape.width, scale=1.0).requires_grad_()
        self.weight = normal(shape.labels, shape.width, scale=0.05).requires_grad_(trains_weight)
        self.labels = torch.randint(0, shape.labels, (shape.positions,), generator=generator)
        self.variant = variant

    def reset(self) -> None:
        """Drop the gradients."""
        self.hidden.grad = self.weight.grad = None

    def step(self) -> Tensor:
        """Loss and gradients."""
        if self.variant == OURS:
            loss = completion_loss(self.hidden, self.weight, None, self.labels).loss
        else:
            logits = F.linear(self.hidden, self.weight).float()
            loss = F.cross_entropy(logits, self.labels, reduction="sum")
        loss.backward()
        return loss.detach()


def measure(shape: LossShape, dtype: str, trains_weight: bool, repeats: int, threads: int) -> dict[str, list[Step]]:
    """Both in turn, after a first step each.

    Raises:
        RuntimeError: their losses differ.
    """
    with ExitStack() as stack:
        steps = {
            name: stack.enter_context(StepProcess(LossSteps, shape, name, dtype, trains_weight, threads=threads))
            for name in (OURS, DENSE)
        }
        for step in steps.values():
            step()
        results: dict[str, list[Step]] = run_in_turn(steps, repeats)
    ours, dense = results[OURS][0].value, results[DENSE][0].value
    if not abs(ours - dense) <= 2e-3 * abs(dense):
        raise RuntimeError(f"ours is {ours}, the dense loss {dense}")
    return results

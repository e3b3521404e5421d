"""``--criterion embedding_distillation``: CTC, and states drawn to those of the frozen LM."""

import logging
import math
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from torch import Tensor, nn

from nat_plugin.criterions.ctc_nat_loss import CtcNatLoss, CtcNatLossConfig, Scored
from nat_plugin.embedding_distillation import (
    Projection,
    align,
    at_positions,
    cosine_distance,
    kl_divergence,
    mean_squared_distance,
)
from nat_plugin.models.frozen_lm import FrozenLm
from nat_plugin.tasks.teacher_loading import load_teacher, warn_about_start
from plugin_common.errors import UserError, raise_all

logger = logging.getLogger(__name__)


@dataclass
class EmbeddingDistillationConfig(CtcNatLossConfig):
    """Options of the criterion: those of ``ctc_nat_loss`` and these."""

    teacher: Optional[str] = field(
        default=None,
        metadata={
            "help": "masked LM that reads the targets: PMLM folder or a model's name on the hub, of the model's "
            "vocabulary (default: the one of --pmlm)"
        },
    )
    distill_weight: float = field(default=1.0, metadata={"help": "factor of the distance in the loss"})
    distill_start_update: int = field(
        default=0,
        metadata={"help": "number of updates without distillation, which starts then (the paper: 75,000 of 100,000)"},
    )
    distill_layer: int = field(
        default=-1, metadata={"help": "the teacher's layer: 0 embeddings, 1 … n, or from the end: -1 the last"}
    )
    distill_alignment: ChoiceEnum(["argmax", "viterbi", "assignment"]) = field(  # type: ignore[valid-type]
        default="argmax",
        metadata={
            "help": "which position stands for a target token: where its probability is highest (argmax, the paper's), "
            "on the best CTC path (viterbi), or the best one-to-one choice (assignment)"
        },
    )
    distill_distance: ChoiceEnum(["cosine", "mse", "kl"]) = field(  # type: ignore[valid-type]
        default="cosine",
        metadata={"help": "1 - cosine or mean squared difference of states, or KL of the output distributions (nats)"},
    )


@register_criterion("embedding_distillation", dataclass=EmbeddingDistillationConfig)
class EmbeddingDistillation(CtcNatLoss):
    """CTC + weight · distance to the teacher's states (arXiv 2306.06345, section 3).

    The distance of a target token is between the student's last state at the token's position and the teacher's state
    of the token (``kl``: between the output distributions there). Distances are summed over the aligned tokens of
    feasible sentences and share CTC's denominator: with the default one, the target tokens of feasible sentences, the
    loss is CTC per token + weight · mean distance per token. The teacher runs in training only, from the start update
    on; validation losses are CTC alone and so stay comparable across the start.

    Logged: ``loss`` (the sum) and ``ctc`` in base 2, by the same denominator; ``distill``, the mean distance of aligned
    tokens in its own unit; ``aligned_pct``, the share of all target tokens that were aligned.
    """

    def __init__(
        self,
        task: Any,
        sentence_avg: bool,
        ctc_chunk_rows: int,
        teacher: str | None,
        distill_weight: float,
        distill_start_update: int,
        distill_layer: int,
        distill_alignment: str,
        distill_distance: str,
        max_update: int,
        glancing_start: float = 0.0,
        glancing_end: float = 0.0,
    ) -> None:
        super().__init__(task, sentence_avg, ctc_chunk_rows, glancing_start, glancing_end, max_update)
        _check_options(task, distill_weight, distill_start_update)
        self.weight, self.start = distill_weight, distill_start_update
        self.alignment, self.distance = str(distill_alignment), str(distill_distance)
        # A model that comes from a checkpoint is evaluated, which needs no teacher.
        self.teacher: FrozenLm | None = None
        if task.new_model is not None:
            warn_about_start(distill_start_update, max_update)
            self.teacher = load_teacher(
                teacher, task.new_model, task.target_dictionary, layer=distill_layer, distance=self.distance
            )
            logger.info(
                "embedding distillation: weight %g, alignment %s, distance %s, after %d updates",
                self.weight, self.alignment, self.distance, self.start,
            )  # fmt: skip

    def forward(self, model: nn.Module, sample: dict[str, Any], reduce: bool = True) -> tuple[Tensor, Any, dict]:
        """``(loss [], sample_size, logging_output)``; with ``reduce=False`` the loss is ``[B]``."""
        scored = self.score(model, sample)
        loss, log = scored.loss, self.log(scored)
        log |= {"ctc": log["loss"]} | dict.fromkeys(
            ("distill", "aligned", "distill_tokens"), torch.zeros_like(log["loss"])
        )
        if self.teacher is not None and model.training and self.num_updates >= self.start:
            distances, aligned = self.distances(scored, self.teacher)
            loss = loss + self.weight * distances
            log["loss"] = loss.detach().sum()
            log["distill"], log["aligned"] = distances.detach().sum(), aligned
            log["distill_tokens"] = scored.target_lengths.sum()
        return (loss.sum() if reduce else loss), log["sample_size"], log

    def distances(self, scored: Scored, teacher: FrozenLm) -> tuple[Tensor, Tensor]:
        """``([B] sums over each sentence's aligned tokens, [] their number)``."""
        output, targets = scored.output, scored.targets
        lengths = scored.target_lengths * scored.feasible
        reading = teacher.read(targets, lengths, like=output.states)
        positions = align(self.alignment, scored.log_probs, targets, output.lengths, lengths)  # type: ignore[arg-type]
        width = reading.states.size(1)
        # The teacher's positions may end before the target does.
        read = torch.arange(width, device=targets.device) < reading.lengths[:, None]
        positions = positions[:, :width].masked_fill(~read, -1)
        aligned = positions >= 0
        goal = reading.states[aligned]
        if self.distance == "kl":
            student = Projection(at_positions(output.hidden, positions), output.weight, output.bias)
            each = kl_divergence(student, Projection(goal, teacher.weight, teacher.bias))
        else:
            distance = cosine_distance if self.distance == "cosine" else mean_squared_distance
            each = distance(at_positions(output.states, positions), goal)
        sentence = torch.arange(len(targets), device=targets.device)[:, None].expand_as(positions)[aligned]
        return each.new_zeros(len(targets)).index_add(0, sentence, each), aligned.sum()

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Aggregate over workers and batches."""
        super().reduce_metrics(logging_outputs)
        names = ("ctc", "sample_size", "distill", "aligned", "distill_tokens")
        total = {name: sum(float(log.get(name, 0)) for log in logging_outputs) for name in names}
        size = total["sample_size"]
        metrics.log_scalar("ctc", total["ctc"] / size / math.log(2) if size else 0.0, size, round=3)
        if total["distill_tokens"]:
            aligned, tokens = total["aligned"], total["distill_tokens"]
            metrics.log_scalar("distill", total["distill"] / max(aligned, 1), aligned, round=4)
            metrics.log_scalar("aligned_pct", 100 * aligned / tokens, tokens, round=2)


def _check_options(task: Any, weight: float, start: int) -> None:
    if not getattr(task, "translates_in_one_pass", False):
        raise UserError("--criterion embedding_distillation goes with --task ctc_nat; add it")
    problems = []
    if not (math.isfinite(weight) and weight >= 0):
        problems.append(f"--distill-weight {weight}: expected a finite number of at least 0")
    if start < 0:
        problems.append(f"--distill-start-update {start}: expected the number of updates without it, 0 or more")
    raise_all(problems)

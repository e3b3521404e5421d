"""``--criterion ctc_nat_loss``: CTC over the up-sampled positions."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II
from torch import Tensor, nn

from nat_plugin.ctc import local_ctc_loss, local_log_probs
from nat_plugin.glancing import GlancingSchedule, random_numbers_again, revealed_labels, scores_under_best
from nat_plugin.models.ctc_pmlm import CtcOutput
from nat_plugin.upsampling import strip_last
from plugin_common.errors import raise_all
from plugin_common.selected_log_probs import automatic_chunk_rows

# Counts that are added up over batches, workers and accumulated gradients.
_COUNTS = (
    "ntokens", "nsentences", "sample_size", "infeasible", "infeasible_tokens", "lowered", "truncated", "glanced",
    "positions",
)  # fmt: skip


class Scored(NamedTuple):
    """A batch of B sentences after the model's pass; T positions, L target tokens."""

    output: CtcOutput
    targets: Tensor  # [B, L] without </s>
    target_lengths: Tensor  # [B]
    log_probs: Tensor  # [B, T, 1 + L] of blank and own labels, see nat_plugin.ctc.local_log_probs
    loss: Tensor  # [B] CTC, nats
    feasible: Tensor  # [B] bool
    glanced: Tensor | None  # [] number of positions that were told a label; None without glancing


@dataclass
class CtcNatLossConfig(FairseqDataclass):
    """Options of the criterion."""

    sentence_avg: bool = II("optimization.sentence_avg")
    ctc_chunk_rows: int = field(
        default=-1,
        metadata={
            "help": "-1: what is fast and small for each batch; 0: keep the logits of all positions for the backward "
            "pass; N: work in blocks of N positions, the least memory (see docs/user-guide/benchmarks.md)"
        },
    )
    glancing_start: float = field(
        default=0.0,
        metadata={
            "help": "glancing training: how many labels of the target the input tells at the first update, as a share "
            "(0 to 1) of what the model gets wrong; 0 here and for --glancing-end: off (Qian et al. 2021: 0.5)"
        },
    )
    glancing_end: float = field(
        default=0.0,
        metadata={"help": "the share at the last update, --max-update; linear in between (Qian et al. 2021: 0.3)"},
    )
    max_update: int = II("optimization.max_update")


@register_criterion("ctc_nat_loss", dataclass=CtcNatLossConfig)
class CtcNatLoss(FairseqCriterion):
    """Negative log-likelihood of the target, summed over sentences.

    The denominator (``sample_size``) is the number of target tokens without ``</s>`` of the feasible sentences, or with
    ``--sentence-avg`` the number of these sentences. Both are sums over all workers and accumulated batches, so that
    the gradient is that of one big batch. Infeasible sentences (see :func:`nat_plugin.ctc.ctc_loss`) enter neither and
    are logged as ``infeasible`` (how many) and ``infeasible_pct``. Logged losses are in bits (base 2).

    With a glancing share over 0 (see :mod:`nat_plugin.glancing`) each batch of the training goes through the model
    twice. The first pass, without gradient, tells what to reveal; the loss, over all target tokens, and its gradient
    are the second's. The training's loss then is that of an easier task; validation never glances. ``glanced_pct`` is
    logged: the share of all positions that were told a label.
    """

    def __init__(
        self,
        task: Any,
        sentence_avg: bool,
        ctc_chunk_rows: int,
        glancing_start: float = 0.0,
        glancing_end: float = 0.0,
        max_update: int = 0,
    ) -> None:
        super().__init__(task)
        self.sentence_avg = sentence_avg
        self.ctc_chunk_rows = ctc_chunk_rows
        self.glancing = GlancingSchedule(glancing_start, glancing_end, max_update)
        problems = list(self.glancing.problems())
        if ctc_chunk_rows < -1:
            problems.append(f"--ctc-chunk-rows {ctc_chunk_rows}: expected -1, 0 or a number of positions")
        raise_all(problems)
        self.num_updates = 0
        self.pad, self.eos = task.target_dictionary.pad(), task.target_dictionary.eos()

    def set_num_updates(self, num_updates: int) -> None:
        """How many updates are done."""
        self.num_updates = num_updates

    def forward(self, model: nn.Module, sample: dict[str, Any], reduce: bool = True) -> tuple[Tensor, Any, dict]:
        """``(loss [], sample_size, logging_output)``; with ``reduce=False`` the loss is ``[B]``."""
        scored = self.score(model, sample)
        log = self.log(scored)
        return (scored.loss.sum() if reduce else scored.loss), log["sample_size"], log

    def score(self, model: Any, sample: dict[str, Any]) -> Scored:
        """One pass of the model (after another where it glances) and its CTC loss."""
        targets, lengths = strip_last(
            sample["target"], sample["target"].ne(self.pad).sum(dim=1), symbol=self.eos, pad=self.pad
        )
        blank = model.blank
        share = self.glancing.share(self.num_updates) if model.training else 0.0
        revealed = self.reveal(model, sample, targets, lengths, share) if share > 0 else None
        output: CtcOutput = model(**sample["net_input"], **({} if revealed is None else {"revealed": revealed}))
        log_probs = local_log_probs(
            output.hidden,
            output.weight,
            output.bias,
            targets,
            output.lengths,
            lengths,
            blank=blank,
            chunk_rows=self.chunk_rows(output),
        )
        loss, feasible = local_ctc_loss(log_probs, targets, output.lengths, lengths, blank=blank)
        glanced = None if revealed is None else (revealed >= 0).sum()
        return Scored(output, targets, lengths, log_probs, loss, feasible, glanced)

    def reveal(
        self, model: Any, sample: dict[str, Any], targets: Tensor, target_lengths: Tensor, share: float
    ) -> Tensor:
        """``[B, T]`` as :func:`nat_plugin.glancing.revealed_labels`, by a pass without gradient.

        The pass has dropout, with the very masks (and random positions) of the pass that follows, as in Qian et al.'s
        own training: what is judged is the network that is about to learn. Nothing drawn here changes what is drawn
        there: where nothing gets revealed, the update is that of a training without glancing, bit for bit.
        """
        with torch.no_grad(), random_numbers_again(targets.device):
            output: CtcOutput = model(**sample["net_input"])
            scores = scores_under_best(
                output.hidden, output.weight, output.bias, targets, target_lengths, blank=model.blank
            )
            added = model.upsampler.added(output.upsampled)
            return revealed_labels(
                scores, targets, output.lengths, target_lengths, added, blank=model.blank, share=share
            )

    def chunk_rows(self, output: CtcOutput) -> int | None:
        """What ``--ctc-chunk-rows`` means for this batch, as :func:`nat_plugin.ctc.ctc_loss` takes it."""
        if self.ctc_chunk_rows >= 0:
            return self.ctc_chunk_rows or None
        return automatic_chunk_rows(output.hidden.shape[:2].numel(), output.weight, output.hidden.dtype)

    def log(self, scored: Scored) -> dict[str, Any]:
        """Sums over the batch."""
        feasible, lengths = scored.feasible, scored.target_lengths
        tokens, sentences = (lengths * feasible).sum(), feasible.sum()
        log = {
            "loss": scored.loss.detach().sum(),
            "ntokens": tokens,
            "nsentences": torch.tensor(len(feasible), device=scored.loss.device),
            "sample_size": sentences if self.sentence_avg else tokens,
            "infeasible": len(feasible) - sentences,
            "infeasible_tokens": (lengths * ~feasible).sum(),
            "lowered": scored.output.lowered,
            "truncated": scored.output.truncated,
        }
        if scored.glanced is not None:
            log |= {"glanced": scored.glanced, "positions": scored.output.lengths.sum()}
        return log

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Aggregate over workers and batches."""
        total = {name: sum(float(log.get(name, 0)) for log in logging_outputs) for name in ("loss", *_COUNTS)}
        sample_size = total["sample_size"]
        # An average over no tokens says nothing; its weight 0 keeps it out of the running mean.
        loss = total["loss"] / sample_size / math.log(2) if sample_size else 0.0
        metrics.log_scalar("loss", loss, sample_size, round=3)
        metrics.log_scalar(
            "infeasible_pct", 100 * total["infeasible"] / max(total["nsentences"], 1), total["nsentences"], round=2
        )
        for name in ("infeasible", "lowered", "truncated"):
            metrics.log_scalar_sum(name, total[name], round=0)
        if total["positions"]:
            share = 100 * total["glanced"] / total["positions"]
            metrics.log_scalar("glanced_pct", share, total["positions"], round=2)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """True: all entries are sums."""
        return True

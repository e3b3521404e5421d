"""``--criterion completion_cross_entropy``: cross-entropy of the completion's tokens."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor, nn

from nid_plugin.causal_lm.lm import LmOutput
from nid_plugin.causal_lm.loss import CompletionLoss, completion_loss, loss_of_logits
from plugin_common.errors import raise_all

_SUMS = ("loss", "nll_loss", "ntokens", "nsentences", "sample_size")


@dataclass
class CompletionCrossEntropyConfig(FairseqDataclass):
    """Options of the criterion."""

    label_smoothing: float = field(
        default=0.0, metadata={"help": "share of the target distribution that is uniform, 0 to 1 (default: 0)"}
    )
    chunk_rows: int = field(
        default=-1,
        metadata={
            "help": "-1: what is fast and small for each batch; 0: keep the logits of all labels for the backward "
            "pass; N: work in blocks of N labels, the least memory (default: -1)"
        },
    )


@register_criterion("completion_cross_entropy", dataclass=CompletionCrossEntropyConfig)
class CompletionCrossEntropy(FairseqCriterion):
    """Summed over the labels of a batch: all tokens of the completions, their end token included.

    The denominator (``sample_size``) is the number of labels, summed over all workers and accumulated batches: the
    gradient is that of one big batch, every token counting alike. Logged, in bits: ``loss`` (label-smoothed) and
    ``nll_loss`` per label, ``ppl`` = 2 ** nll_loss. ``ntokens`` counts all real tokens, prompts too: fairseq's ``wps``
    is real tokens a second.
    """

    def __init__(self, task: Any, label_smoothing: float, chunk_rows: int) -> None:
        super().__init__(task)
        problems = []
        if not 0 <= label_smoothing < 1:
            problems.append(f"--label-smoothing {label_smoothing}: expected at least 0 and less than 1")
        if chunk_rows < -1:
            problems.append(f"--chunk-rows {chunk_rows}: expected -1, 0 or a number of labels")
        raise_all(problems)
        self.label_smoothing = label_smoothing
        self.chunk_rows = {-1: -1, 0: None}.get(chunk_rows, chunk_rows)

    def forward(self, model: nn.Module, sample: dict[str, Any], reduce: bool = True) -> tuple[Tensor, Any, dict]:
        """``(loss [] in nats, sample_size, logging_output)``."""
        target = sample["target"]
        output: LmOutput = model(**sample["net_input"], positions=target["positions"])
        summed = self.score(output, target["labels"])
        labels = torch.tensor(len(target["labels"]), device=summed.loss.device)
        log = {
            "loss": summed.loss.detach(),
            "nll_loss": summed.nll,
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": labels,
        }
        return summed.loss, labels, log

    def score(self, output: LmOutput, labels: Tensor) -> CompletionLoss:
        """The loss of ``[K]`` labels under the model's output at their positions."""
        smoothing = self.label_smoothing
        if output.logits is not None:
            return loss_of_logits(output.logits, labels, label_smoothing=smoothing)
        assert output.weight is not None
        return completion_loss(
            output.hidden, output.weight, output.bias, labels, label_smoothing=smoothing, chunk_rows=self.chunk_rows
        )

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Aggregate over workers and batches."""
        total = {name: sum(float(log.get(name, 0)) for log in logging_outputs) for name in _SUMS}
        labels = total["sample_size"]
        for name in ("loss", "nll_loss"):
            # An average over no labels says nothing; its weight 0 keeps it out of the running mean.
            metrics.log_scalar(name, total[name] / labels / math.log(2) if labels else 0.0, labels, round=3)
        metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["nll_loss"].avg))

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """True: all entries are sums."""
        return True

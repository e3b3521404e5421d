"""One-pass decoding in the form that fairseq-generate, -interactive and ``--eval-bleu`` expect of a generator."""

from typing import Any

import torch
from torch import Tensor

from nat_plugin.ctc import collapse, emitting_positions
from plugin_common.errors import UserError, raise_all

Hypothesis = dict[str, Any]


class CtcGenerator:
    """Argmax at each position, repeats merged, blanks dropped; several models vote by their mean log-probability.

    Args:
        dictionary: fairseq dictionary of the target.
        with_scores: compute log-probabilities (a log-sum-exp over the vocabulary); without, scores are 0.
    """

    def __init__(self, dictionary: Any, *, with_scores: bool = True) -> None:
        self.eos, self.pad = dictionary.eos(), dictionary.pad()
        self.symbols_to_strip_from_output = {dictionary.eos(), dictionary.pad(), dictionary.bos()}
        self.with_scores = with_scores

    def generate(
        self, models: list[Any], sample: dict[str, Any], prefix_tokens: Tensor | None = None, constraints: Any = None
    ) -> list[list[Hypothesis]]:
        """One hypothesis a sentence: ``tokens`` (ending in ``</s>``), ``score``, ``positional_scores``.

        ``score`` is the natural-log probability of the greedy alignment divided by its number of positions (blanks
        count); ``positional_scores`` holds for each token the log-probability at the first position that emits it, and
        0 for ``</s>``, which the model does not predict.

        Raises:
            UserError: prefix tokens or constraints, which one pass cannot follow.
        """
        if prefix_tokens is not None or constraints is not None:
            raise UserError("--prefix-size and --constraints need a left-to-right model; leave them out with ctc_nat")
        for model in models:
            model.eval()
        with torch.inference_mode():
            decoded = self._decode(models, sample["net_input"])
        # fairseq-generate changes the scores in place, which inference tensors forbid outside inference mode.
        tokens, lengths, token_scores, means = (tensor.cpu().clone() for tensor in decoded)
        return [
            [{"tokens": row[: n + 1], "score": mean, "positional_scores": marks[: n + 1], "alignment": None}]
            for row, n, mean, marks in zip(tokens, lengths.tolist(), means, token_scores, strict=True)
        ]

    def _decode(self, models: list[Any], net_input: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(tokens [B, L+1] with </s>, lengths [B] without it, token scores [B, L+1], mean scores [B])``."""
        scores, lengths, normalizer = self._scores(models, net_input)
        best, labels = scores.max(dim=-1) if scores.size(1) else (scores.sum(-1), scores.sum(-1).long())
        blank = models[0].blank
        tokens, token_lengths = collapse(labels, lengths, blank=blank, pad=self.pad)
        label_scores = (best.float() - normalizer).masked_fill(~_within(lengths, labels.size(1)), 0.0)
        token_scores = torch.zeros(tokens.shape, device=tokens.device)
        token_scores[_within(token_lengths, tokens.size(1))] = label_scores[
            emitting_positions(labels, lengths, blank=blank)
        ]
        means = label_scores.sum(dim=1) / lengths.clamp(min=1)
        if not self.with_scores:
            token_scores.zero_()
            means.zero_()
        batch, width = tokens.shape
        ended = torch.full((batch, width + 1), self.pad, dtype=tokens.dtype, device=tokens.device)
        ended[:, :width] = tokens
        ended.scatter_(1, token_lengths[:, None], self.eos)
        return ended, token_lengths, torch.cat([token_scores, token_scores.new_zeros(batch, 1)], dim=1), means

    def _scores(self, models: list[Any], net_input: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """``(scores [B, T, V], lengths [B], log-normalizer [B, T] or 0)``: log-probability = score - normalizer."""
        outputs = [model(**net_input) for model in models]
        lengths = outputs[0].lengths
        if len(models) == 1:
            logits = models[0].logits(outputs[0])
            if self.with_scores and logits.size(1):
                return logits, lengths, logits.float().logsumexp(dim=-1)
            return logits, lengths, torch.zeros((), device=logits.device)
        total = sum(
            model.get_normalized_probs(output, log_probs=True) for model, output in zip(models, outputs, strict=True)
        )
        return total / len(models), lengths, torch.zeros((), device=lengths.device)


def _within(lengths: Tensor, width: int) -> Tensor:
    return torch.arange(width, device=lengths.device)[None, :] < lengths[:, None]


def check_ensemble(models: list[Any]) -> None:
    """Models that vote position by position need the same positions and the same blank."""
    settings = [
        {
            "--blank-symbol": str(model.cfg.blank_symbol),
            "--upsample-ratio": model.cfg.upsample_ratio,
            "--upsampler": model.cfg.upsampler,
            "--mask-placement": str(model.cfg.mask_placement),
            "the number of positions": model.max_upsampled,
        }
        for model in models
    ]
    raise_all(
        f"--path: {name} of model {number} is {value}, of model 1 {settings[0][name]}; models given as a:b need the "
        "same ones"
        for number, own in enumerate(settings[1:], start=2)
        for name, value in own.items()
        if value != settings[0][name]
    )

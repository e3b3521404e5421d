"""Completions in the form that fairseq-generate and -interactive expect of a generator; transformers generates."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nid_plugin.causal_lm.lm import has_plain_head
from nid_plugin.decoding.options import GenerationOptions
from plugin_common.errors import UserError
from plugin_common.selected_log_probs import automatic_chunk_rows, selected_log_probs

Hypothesis = dict[str, Any]


class CausalLmGenerator:
    """Greedy, beam search or sampling, batched and with a key-value cache.

    Args:
        options: how tokens are chosen.
        end_ids: tokens that end a completion.
        pad: the id that fills up prompts in batches.
        positions: most tokens that the model reads.
    """

    def __init__(self, options: GenerationOptions, *, end_ids: Sequence[int], pad: int, positions: int) -> None:
        self.options = options
        self.end_ids = list(end_ids)
        self.pad = pad
        self.positions = positions
        self.symbols_to_strip_from_output = {*self.end_ids, pad}

    @torch.no_grad()
    def generate(
        self, models: list[Any], sample: dict[str, Any], prefix_tokens: Tensor | None = None, constraints: Any = None
    ) -> list[list[Hypothesis]]:
        """For each prompt the best completions: ``tokens`` (with the end token, unless cut), ``score``,
        ``positional_scores``.

        ``positional_scores`` are the model's natural-log probabilities (temperature and other limits of the choice do
        not enter), ``score`` is their mean. How long a completion may be depends on its own prompt alone, whatever
        else is in the batch.

        Raises:
            UserError: several models, prefix tokens or constraints.
        """
        if len(models) != 1:
            raise UserError(f"--path names {len(models)} checkpoints; completion_sft generates with one")
        if prefix_tokens is not None or constraints is not None:
            raise UserError("--prefix-size and --constraints are not known to --task completion_sft; leave them out")
        model = models[0]
        model.eval()
        tokens, lengths = sample["net_input"]["src_tokens"], sample["net_input"]["src_lengths"]
        longest = [self.options.longest(length, self.positions - length) for length in lengths.tolist()]
        if max(longest) > self.positions - tokens.size(1) and len(longest) > 1:
            # Beside the longest prompt there is no room for what the shorter ones may get.
            return [found for row in range(len(longest)) for found in self.generate(models, _row(sample, row))]
        return self._generate(model.causal_lm.lm, tokens, lengths, torch.tensor(longest, device=tokens.device))

    def _generate(self, lm: Any, tokens: Tensor, lengths: Tensor, longest: Tensor) -> list[list[Hypothesis]]:
        width = tokens.size(1)
        real = torch.arange(width, device=tokens.device)[None, :] >= width - lengths[:, None]
        prompts = tokens.masked_fill(~real, self.end_ids[0])
        # What the base's own generation settings say (a repetition penalty, say) would fill what is left open here.
        lm.generation_config = self.options.config(
            new_tokens=int(longest.max()), end_ids=self.end_ids, pad=self.end_ids[0]
        )
        with torch.autocast(tokens.device.type, enabled=False):
            found = lm.generate(input_ids=prompts, attention_mask=real.long())
        new = found[:, width:]
        best = self.options.best
        kept = torch.minimum(self._lengths(new), longest.repeat_interleave(best))
        scores = _log_probs(lm, found, real.repeat_interleave(best, dim=0), width, kept)
        hypotheses = [_hypothesis(new[row, :n], scores[row, :n]) for row, n in enumerate(kept.tolist())]
        return [hypotheses[start : start + best] for start in range(0, len(hypotheses), best)]

    def _lengths(self, new: Tensor) -> Tensor:
        """Tokens of each completion, up to and with its end token."""
        ends = torch.isin(new, torch.tensor(self.end_ids, device=new.device))
        before = (ends.cumsum(dim=1) - ends.long()) == 0
        return before.sum(dim=1)


def _row(sample: dict[str, Any], row: int) -> dict[str, Any]:
    """One prompt of a batch by itself, without padding."""
    length = int(sample["net_input"]["src_lengths"][row])
    tokens = sample["net_input"]["src_tokens"][row : row + 1, -length:]
    return {"net_input": {"src_tokens": tokens, "src_lengths": sample["net_input"]["src_lengths"][row : row + 1]}}


def _log_probs(lm: Any, tokens: Tensor, real_prompt: Tensor, width: int, kept: Tensor) -> Tensor:
    """``[R, L]`` log-probabilities of the new tokens, from one pass over prompts and completions."""
    rows, total = tokens.shape
    new = torch.arange(total - width, device=tokens.device)[None, :] < kept[:, None]
    real = torch.cat([real_prompt, new], dim=1)
    places = (real.long().cumsum(dim=1) - 1).clamp(min=0)
    read = {"input_ids": tokens, "attention_mask": real.long(), "position_ids": places, "use_cache": False}
    labels = tokens[:, width:]
    head = lm.get_output_embeddings()
    if has_plain_head(lm):
        hidden = lm.base_model(**read).last_hidden_state[:, width - 1 : -1]
        flat = hidden.reshape(-1, hidden.size(-1))
        chunk = automatic_chunk_rows(len(flat), head.weight, flat.dtype)
        scores = selected_log_probs(flat, head.weight, head.bias, labels.reshape(-1, 1), chunk_rows=chunk)
        return scores.view(rows, total - width)
    logits = lm(**read, logits_to_keep=total - width + 1).logits[:, :-1]
    return logits.float().log_softmax(dim=-1).gather(2, labels[:, :, None])[:, :, 0]


def _hypothesis(tokens: Tensor, scores: Tensor) -> Hypothesis:
    return {
        "tokens": tokens.cpu(),
        "score": float(scores.mean()),
        "positional_scores": scores.float().cpu().clone(),
        "alignment": None,
    }

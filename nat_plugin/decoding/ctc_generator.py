"""One-pass decoding in the form that fairseq-generate, -interactive and ``--eval-bleu`` expect of a generator.

On the device: the pass, the labels, their collapse; all of it comes to the host in one tensor. Nothing before waits for
the device, so that the whole can be a CUDA graph.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nat_plugin.ctc import move_to_places, token_places
from nat_plugin.decoding.beam_search import BeamOptions, ctc_beam_search
from nat_plugin.decoding.cuda_graphs import BucketedPass, Pass
from nat_plugin.decoding.one_copy import join, split
from nat_plugin.decoding.vocabulary import Projection, best_labels, top_labels, with_blank_penalty
from plugin_common.errors import UserError, raise_all

Hypothesis = dict[str, Any]


class CtcGenerator:
    """Argmax at each position, repeats merged, blanks dropped, or CTC beam search.

    Several models vote by their mean log-probability.

    Args:
        dictionary: fairseq dictionary of the target.
        with_scores: compute log-probabilities (a log-sum-exp over the vocabulary); without, scores are 0.
        beam: search among the prefixes of all alignments; None decodes greedily.
        cuda_graphs: record the pass of each shape and replay it (CUDA alone).
        blank_penalty: taken from the blank's score before the softmax, in nats.
    """

    def __init__(
        self,
        dictionary: Any,
        *,
        with_scores: bool = True,
        beam: BeamOptions | None = None,
        cuda_graphs: bool = False,
        blank_penalty: float = 0.0,
    ) -> None:
        self.eos, self.pad = dictionary.eos(), dictionary.pad()
        self.symbols_to_strip_from_output = {dictionary.eos(), dictionary.pad(), dictionary.bos()}
        self.with_scores = with_scores
        self.beam = beam
        self.cuda_graphs = cuda_graphs
        self.blank_penalty = blank_penalty
        self._captured: tuple[list[Any], BucketedPass] | None = None

    def generate(
        self, models: list[Any], sample: dict[str, Any], prefix_tokens: Tensor | None = None, constraints: Any = None
    ) -> list[list[Hypothesis]]:
        """One hypothesis a sentence: ``tokens`` (ending in ``</s>``), ``score``, ``positional_scores``.

        ``score`` is a natural-log probability divided by the number of positions (blanks count): that of the greedy
        alignment, or with beam search that of the translation, summed over its alignments. ``positional_scores`` holds
        for each token the log-probability at the first position that emits it (at which it joined the translation), and
        0 for ``</s>``, which the model does not predict.

        Raises:
            UserError: prefix tokens or constraints, which one pass cannot follow.
        """
        if prefix_tokens is not None or constraints is not None:
            raise UserError("--prefix-size and --constraints need a left-to-right model; leave them out with ctc_nat")
        for model in models:
            model.eval()
        source = sample["net_input"]["src_tokens"], sample["net_input"]["src_lengths"]
        with torch.inference_mode():
            joined = self._pass_for(models)(*source).cpu()
        return self._greedy_hypotheses(joined) if self.beam is None else self._searched_hypotheses(joined, models[0])

    # ---- on the device ----------------------------------------------------------------------------------------------

    def _pass_for(self, models: list[Any]) -> Pass:
        def run(tokens: Tensor, lengths: Tensor) -> Tensor:
            return (
                self._greedy_pass(models, tokens, lengths)
                if self.beam is None
                else self._top_pass(models, tokens, lengths)
            )

        if not self.cuda_graphs:
            return run
        if self._captured is None or self._captured[0] != models:
            self._captured = models, BucketedPass(run, pad=self.pad)
        return self._captured[1]

    def _may_wait(self, tokens: Tensor) -> bool:
        """Whether values decide about shapes: not on a GPU, which would have to finish first, nor in a graph."""
        return tokens.device.type == "cpu" and not self.cuda_graphs

    def _read(self, models: list[Any], tokens: Tensor, lengths: Tensor) -> "_Read":
        may_wait = self._may_wait(tokens)
        return _Read.of(models, tokens, lengths, may_wait=may_wait, blank_penalty=self.blank_penalty)

    def _greedy_pass(self, models: list[Any], tokens: Tensor, lengths: Tensor) -> Tensor:
        """Tokens with ``</s>``, their number; with scores, theirs and the mean over the positions: joined."""
        read = self._read(models, tokens, lengths)
        labels, scores = map(
            read.in_rows,
            best_labels(read.states, read.projections, symbols=read.symbols, with_scores=self.with_scores),
        )
        places, found = token_places(labels, read.lengths, blank=models[0].blank)
        width = labels.size(1) + 1
        text = move_to_places(labels, places, width=width, fill=self.pad).scatter(1, found[:, None], self.eos)
        if not self.with_scores:
            return join([text, found])
        token_scores = move_to_places(scores, places, width=width, fill=0.0)
        means = scores.sum(dim=1) / read.lengths.clamp(min=1)
        return join([text, found, token_scores, means])

    def _top_pass(self, models: list[Any], tokens: Tensor, lengths: Tensor) -> Tensor:
        """The most probable labels of each position and the blank's log-probability: joined."""
        assert self.beam is not None
        read = self._read(models, tokens, lengths)
        top = top_labels(
            read.states, read.projections, symbols=read.symbols, count=self.beam.candidates, blank=models[0].blank
        )
        return join([read.lengths, *map(read.in_rows, top)])

    # ---- on the host: outside inference mode, whose tensors fairseq could not change in place -----------------------

    def _greedy_hypotheses(self, joined: Tensor) -> list[list[Hypothesis]]:
        width = joined.size(1) // 2 - 1 if self.with_scores else joined.size(1) - 1
        shapes: list[tuple[tuple[int, ...], torch.dtype]] = [((width,), torch.int64), ((), torch.int64)]
        if self.with_scores:
            tokens, found, marks, means = split(joined, [*shapes, ((width,), torch.float32), ((), torch.float32)])
        else:
            tokens, found = split(joined, shapes)
            marks, means = torch.zeros(tokens.shape), torch.zeros(len(tokens))
        return _hypotheses(tokens, found.tolist(), marks, means)

    def _searched_hypotheses(self, joined: Tensor, model: Any) -> list[list[Hypothesis]]:
        assert self.beam is not None
        count = min(self.beam.candidates, model.masked_lm.weight.size(0))
        positions = (joined.size(1) - 1) // (2 * count + 1)
        lengths, log_probs, labels, blanks = split(
            joined,
            [
                ((), torch.int64),
                ((positions, count), torch.float32),
                ((positions, count), torch.int64),
                ((positions,), torch.float32),
            ],
        )
        best = ctc_beam_search(
            log_probs.numpy(),
            labels.numpy(),
            blanks.numpy(),
            lengths.numpy(),
            blank=model.blank,
            pad=self.pad,
            options=self.beam,
        )
        found = torch.from_numpy(best.lengths)
        tokens = torch.nn.functional.pad(torch.from_numpy(best.tokens), (0, 1), value=self.pad)
        tokens.scatter_(1, found[:, None], self.eos)
        marks = torch.nn.functional.pad(torch.from_numpy(best.token_scores).float(), (0, 1))
        means = (torch.from_numpy(best.scores) / lengths.clamp(min=1)).float()
        if not self.with_scores:
            marks, means = torch.zeros_like(marks), torch.zeros_like(means)
        return _hypotheses(tokens, found.tolist(), marks, means)


@dataclass(frozen=True)
class _Read:
    """States in front of the vocabulary projection, a row for each position; N rows, B sentences, T positions.

    Padding is left out where the host may look at the lengths.
    """

    states: list[Tensor]  # [N, D] of each model
    projections: list[Projection]
    symbols: int
    lengths: Tensor  # [B]
    positions: int  # T
    used: Tensor | None  # [N] numbers of the rows among B * T, None for all

    @classmethod
    def of(cls, models: list[Any], tokens: Tensor, lengths: Tensor, *, may_wait: bool, blank_penalty: float) -> "_Read":
        width = None if may_wait else models[0].width_for(tokens.size(1))
        outputs = [model(tokens, lengths, width=width) for model in models]
        lengths, positions = outputs[0].lengths, outputs[0].hidden.size(1)
        states = [output.hidden.flatten(0, 1) for output in outputs]
        used = None
        if may_wait:
            used = (torch.arange(positions, device=lengths.device) < lengths[:, None]).flatten().nonzero().squeeze(1)
            states = [own[used] for own in states]
        projections = [with_blank_penalty(model.project, blank=model.blank, penalty=blank_penalty) for model in models]
        return cls(states, projections, models[0].masked_lm.weight.size(0), lengths, positions, used)

    def in_rows(self, found: Tensor) -> Tensor:
        """``[N, …]`` → ``[B, T, …]``, 0 at padding."""
        shape = (len(self.lengths), self.positions, *found.shape[1:])
        if self.used is not None:
            return found.new_zeros(shape[0] * shape[1], *shape[2:]).index_copy_(0, self.used, found).view(shape)
        real = torch.arange(self.positions, device=found.device) < self.lengths[:, None]
        return found.view(shape).masked_fill(~real.view(*real.shape, *[1] * (found.dim() - 1)), 0)


def _hypotheses(tokens: Tensor, lengths: list[int], marks: Tensor, means: Tensor) -> list[list[Hypothesis]]:
    """Views of the batch's tensors, in fairseq's form."""
    return [
        [{"tokens": row[: n + 1], "score": mean, "positional_scores": own[: n + 1], "alignment": None}]
        for row, n, mean, own in zip(tokens.unbind(), lengths, means.unbind(), marks.unbind(), strict=True)
    ]


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

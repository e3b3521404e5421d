"""Options of one-pass decoding in fairseq-generate and fairseq-interactive, and what they mean together."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from nat_plugin.decoding.beam_search import BeamOptions
from plugin_common.errors import raise_all

PRECISIONS = ("fp32", "bf16", "auto")
CANDIDATES = BeamOptions(beam=1).candidates


@dataclass
class DecodingConfig(FairseqDataclass):
    """Part of the task's options; training takes none of them."""

    no_scores: bool = field(
        default=False,
        metadata={"help": "do not compute scores: H- and P- lines show 0, translations are the same (faster)"},
    )
    # None where it is not given, so that what is asked for in other ways (--bf16, model.half()) is not contradicted.
    decode_precision: Optional[ChoiceEnum(list(PRECISIONS))] = field(  # type: ignore[valid-type]
        default=None,
        metadata={
            "help": "number format of weights and states: fp32, bf16 (as --bf16), or auto: bf16 where the GPU or the "
            "CPU (AVX512-BF16, AMX) computes with it, else fp32 (default: fp32)"
        },
    )
    compile_decoder: bool = field(
        default=False,
        metadata={"help": "compile the model with torch.compile: takes a minute or more before the first translations"},
    )
    cuda_graphs: bool = field(
        default=False,
        metadata={
            "help": "on a GPU, record each shape of a batch as a CUDA graph and replay it; a new shape costs three "
            "passes, so that it pays only where shapes come again often"
        },
    )
    ctc_beam: int = field(
        default=1, metadata={"help": "prefixes that CTC beam search keeps for each sentence; 1 is greedy (default: 1)"}
    )
    ctc_candidates: int = field(
        default=CANDIDATES,
        metadata={"help": f"with --ctc-beam: labels considered at each position (default: {CANDIDATES})"},
    )
    lm: Optional[str] = field(
        default=None,
        metadata={
            "help": "with --ctc-beam: n-gram language model over the pieces (ARPA, or what `nat ngram-lm` writes); its "
            "weight is --lm-weight. It prefers short translations: give a --ctc-token-bonus, too"
        },
    )
    ctc_token_bonus: float = field(
        default=0.0, metadata={"help": "with --ctc-beam: added to a translation's rank for each token, in nats"}
    )
    ctc_blank_penalty: float = field(
        default=0.0,
        metadata={
            "help": "taken from the blank's score before the softmax, in nats: above 0 for a model that leaves words "
            "out, as one that is trained little does; greedily or with --ctc-beam. Choose it on the validation set"
        },
    )


@dataclass(frozen=True)
class DecodingOptions:
    """What a generator does; one of :class:`DecodingConfig`'s values, fairseq's ``--lm-weight`` among them."""

    with_scores: bool = True
    precision: str | None = None
    bf16: bool = False
    compile: bool = False
    cuda_graphs: bool = False
    beam: int = 1
    candidates: int = CANDIDATES
    lm: str | None = None
    lm_weight: float = 0.0
    token_bonus: float = 0.0
    blank_penalty: float = 0.0

    @classmethod
    def from_options(cls, task: DecodingConfig, generation: Any, *, bf16: bool) -> "DecodingOptions":
        """Options of the task, fairseq's own of generation, and whether fairseq's ``--bf16`` was given."""
        precision = getattr(task.decode_precision, "value", task.decode_precision)
        return cls(
            with_scores=not task.no_scores,
            precision=None if precision is None else str(precision),
            bf16=bf16,
            compile=task.compile_decoder,
            cuda_graphs=task.cuda_graphs,
            beam=task.ctc_beam,
            candidates=task.ctc_candidates,
            lm=task.lm,
            lm_weight=float(getattr(generation, "lm_weight", 0.0) or 0.0),
            token_bonus=task.ctc_token_bonus,
            blank_penalty=task.ctc_blank_penalty,
        )

    @property
    def wanted_precision(self) -> str | None:
        """One of ``PRECISIONS``, however it was asked for; None if it was not."""
        return "bf16" if self.bf16 else self.precision

    def problems(self, *, cuda: bool, half: bool) -> Iterable[str]:
        """What is wrong with the options, on a GPU or not, with a model that ``--fp16`` has made half-precision."""
        if half and self.wanted_precision is not None:
            yield f"--fp16 and --decode-precision {self.wanted_precision} (--bf16) exclude each other; leave one out"
        if self.bf16 and self.precision not in (None, "bf16"):
            yield f"--bf16 and --decode-precision {self.precision} exclude each other; leave one out"
        if self.cuda_graphs and not cuda:
            yield "--cuda-graphs needs a CUDA GPU; leave it out, or run without --cpu on a machine that has one"
        if self.cuda_graphs and self.compile:
            yield "--cuda-graphs and --compile-decoder exclude each other; leave one out"
        if not math.isfinite(self.blank_penalty):
            yield f"--ctc-blank-penalty {self.blank_penalty}: expected a finite number"
        yield from self._beam_problems()

    def _beam_problems(self) -> Iterable[str]:
        if self.beam < 1:
            yield f"--ctc-beam {self.beam}: expected 1 (greedy) or more prefixes"
        if self.candidates < 1:
            yield f"--ctc-candidates {self.candidates}: expected 1 or more labels for each position"
        if not math.isfinite(self.token_bonus):
            yield f"--ctc-token-bonus {self.token_bonus}: expected a finite number"
        if not 0 <= self.lm_weight < math.inf:
            yield f"--lm-weight {self.lm_weight}: expected a number of 0 or more"
        elif self.lm is None and self.lm_weight != 0:
            yield f"--lm-weight {self.lm_weight} needs a language model: give --lm PATH, or leave it out"
        if self.lm is not None and not Path(self.lm).exists():
            yield f"--lm {self.lm}: no such file; make one with `nat ngram-lm`"
        if self.lm is not None and self.lm_weight == 0:
            yield "--lm has no effect without a weight; give one, e.g. --lm-weight 0.3"
        if self.beam == 1:
            yield from self._greedy_problems()

    def _greedy_problems(self) -> Iterable[str]:
        """Options that need a beam, which is missing."""
        given = {
            "--lm": self.lm is not None,
            "--ctc-token-bonus": self.token_bonus != 0 and math.isfinite(self.token_bonus),
            "--ctc-candidates": self.candidates != CANDIDATES,
        }
        for option, is_given in given.items():
            if is_given:
                yield f"{option} has no effect without a beam; give one, e.g. --ctc-beam 5"

    def beam_options(self, symbols: list[str]) -> BeamOptions | None:
        """Settings of the beam search over the labels ``symbols``, the language model loaded; None for greedy."""
        if self.beam == 1:
            return None
        from nat_plugin.decoding.ngram_lm import NgramLm

        return BeamOptions(
            beam=self.beam,
            candidates=self.candidates,
            lm=None if self.lm is None else NgramLm.from_file(self.lm, symbols),
            lm_weight=self.lm_weight,
            token_bonus=self.token_bonus,
        )


def refuse_in_training(task: DecodingConfig) -> None:
    """Training does not decode, but for validation: greedily, in the training's own precision and without scores.

    Raises:
        UserError: an option asks for something else.
    """
    raise_all(
        f"--{entry.name.replace('_', '-')} is for fairseq-generate and fairseq-interactive: validation decodes "
        "greedily with the model as it is trained; leave it out"
        for entry in fields(DecodingConfig)
        if not entry.name.startswith("_") and str(getattr(task, entry.name)) != str(entry.default)
    )

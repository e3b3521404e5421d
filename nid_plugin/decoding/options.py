"""fairseq's options of generation as transformers' ``generate`` takes them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plugin_common.errors import raise_all

if TYPE_CHECKING:
    from transformers import GenerationConfig

# Options that nothing here follows, and the values that say "not used".
_NOT_FOLLOWED = {
    "score_reference": False,
    "prefix_size": 0,
    "constraints": None,
    "lm_path": None,
    "diverse_beam_groups": -1,
    "diversity_rate": -1.0,
    "match_source_len": False,
    "replace_unk": None,
    "print_alignment": None,
    "print_step": False,
    "retain_dropout": False,
    "unkpen": 0,
    "iter_decode_eos_penalty": 0.0,
}


@dataclass(frozen=True)
class GenerationOptions:
    """How a completion is chosen.

    Attributes:
        beam: beams; 1 is greedy, or one draw at a time with ``sampling``.
        best: completions a prompt.
        max_len_a, max_len_b: a completion has at most ``a · prompt tokens + b`` tokens.
        min_len: least tokens of a completion.
        lenpen: beams are compared by log-probability / length ** lenpen.
        sampling: draw tokens; ``top_k`` (0: all) and ``top_p`` (1: all) limit the choice.
        temperature: logits are divided by it before a token is drawn.
        no_repeat_ngram: no n-gram of this size comes twice (0: off).
    """

    beam: int = 1
    best: int = 1
    max_len_a: float = 0.0
    max_len_b: int = 200
    min_len: int = 1
    lenpen: float = 1.0
    sampling: bool = False
    top_k: int = 0
    top_p: float = 1.0
    temperature: float = 1.0
    no_repeat_ngram: int = 0

    @classmethod
    def from_fairseq(cls, args: Any) -> "GenerationOptions":
        """Checked.

        Raises:
            UserError: lists all options that cannot be followed.
        """
        problems = [
            f"--{name.replace('_', '-')} is not known to --task completion_sft; leave it out"
            for name, off in _NOT_FOLLOWED.items()
            if getattr(args, name, off) not in (off, None, False)
        ]
        options = cls(
            beam=getattr(args, "beam", 1),
            best=getattr(args, "nbest", 1),
            max_len_a=getattr(args, "max_len_a", 0.0),
            max_len_b=getattr(args, "max_len_b", 200),
            min_len=getattr(args, "min_len", 1),
            lenpen=0.0 if getattr(args, "unnormalized", False) else getattr(args, "lenpen", 1.0),
            sampling=getattr(args, "sampling", False),
            top_k=max(0, getattr(args, "sampling_topk", -1)),
            top_p=getattr(args, "sampling_topp", -1.0) if getattr(args, "sampling_topp", -1.0) > 0 else 1.0,
            temperature=getattr(args, "temperature", 1.0),
            no_repeat_ngram=getattr(args, "no_repeat_ngram_size", 0),
        )
        raise_all([*problems, *options.problems()])
        return options

    def problems(self) -> Sequence[str]:
        """All values that cannot be."""
        found = []
        if self.beam < 1:
            found.append(f"--beam {self.beam}: expected 1 or more")
        if self.best < 1:
            found.append(f"--nbest {self.best}: expected 1 or more")
        if not self.sampling and self.best > self.beam:
            found.append(f"--nbest {self.best}: more than --beam {self.beam}; raise --beam, or add --sampling")
        if not self.temperature > 0:
            found.append(
                f"--temperature {self.temperature}: expected more than 0; greedy is --beam 1 without --sampling"
            )
        if not self.sampling and (self.top_k or self.top_p < 1.0):
            found.append("--sampling-topk and --sampling-topp need --sampling")
        if self.top_p > 1.0:
            found.append(f"--sampling-topp {self.top_p}: expected a probability")
        if not (0 <= self.max_len_a < math.inf):
            found.append(f"--max-len-a {self.max_len_a}: expected a number of 0 or more")
        if self.max_len_a == 0 and self.max_len_b < 1:
            found.append(f"--max-len-b {self.max_len_b}: leaves no room for a completion")
        if self.min_len < 0:
            found.append(f"--min-len {self.min_len}: expected 0 or more")
        return found

    def longest(self, prompt_tokens: int, room: int) -> int:
        """Most new tokens behind a prompt where ``room`` are left."""
        return max(1, min(int(self.max_len_a * prompt_tokens + self.max_len_b), room))

    def config(self, *, new_tokens: int, end_ids: Sequence[int], pad: int) -> "GenerationConfig":
        """For ``generate``."""
        from transformers import GenerationConfig

        drawing = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p} if self.sampling else {}
        beams = 1 if self.sampling else self.beam
        searching = {"length_penalty": self.lenpen, "early_stopping": False} if beams > 1 else {}
        return GenerationConfig(
            max_new_tokens=new_tokens,
            min_new_tokens=min(self.min_len, new_tokens),
            num_beams=beams,
            num_return_sequences=self.best,
            do_sample=self.sampling,
            no_repeat_ngram_size=self.no_repeat_ngram,
            eos_token_id=list(end_ids),
            pad_token_id=pad,
            use_cache=True,
            **drawing,
            **searching,
        )

"""``--arch ctc_pmlm``: a pretrained masked LM whose head emits one label (or blank) per up-sampled position."""

import argparse
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.dataclass.utils import merge_with_parent
from fairseq.models import BaseFairseqModel, register_model
from torch import Tensor

from nat_plugin.models.masked_lm import (
    MODEL_TYPES,
    MaskedLm,
    config_from_json,
    random_masked_lm,
    set_dropout,
)
from nat_plugin.models.upsamplers import build_upsampler
from nat_plugin.upsampling import exact_ratio, strip_last, upsampled_lengths, upsampled_width
from plugin_common.errors import UserError

if TYPE_CHECKING:
    from nat_plugin.decoding.preparation import Prepared


@dataclass
class CtcPmlmConfig(FairseqDataclass):
    """Options of the architecture; the command-line help is made from them."""

    pmlm: Optional[str] = field(
        default=None,
        metadata={"help": "PMLM folder made by `nat prepare-pmlm`, or a model's name on the hub with unchanged rows"},
    )
    random_init: bool = field(
        default=False,
        metadata={"help": "take the shape of the PMLM, not its weights (ablation; training from scratch)"},
    )
    pmlm_type: ChoiceEnum(list(MODEL_TYPES)) = field(  # type: ignore[valid-type]
        default="xlm-roberta", metadata={"help": "family of the model, where no --pmlm is given"}
    )
    encoder_layers: int = field(default=12, metadata={"help": "layers, where no --pmlm is given"})
    encoder_embed_dim: int = field(default=768, metadata={"help": "width, where no --pmlm is given"})
    encoder_ffn_embed_dim: int = field(default=3072, metadata={"help": "feed-forward width, where no --pmlm is given"})
    encoder_attention_heads: int = field(default=12, metadata={"help": "attention heads, where no --pmlm is given"})
    encoder_positions: int = field(
        default=512, metadata={"help": "longest up-sampled source + 1 (for <s>) in tokens, where no --pmlm is given"}
    )
    dropout: float = field(default=0.1, metadata={"help": "dropout on states and embeddings (probability)"})
    attention_dropout: float = field(default=0.1, metadata={"help": "dropout on attention weights (probability)"})
    upsampler: str = field(
        default="mask_insertion",
        metadata={"help": "how the source becomes longer: mask_insertion, token_duplication or a registered one"},
    )
    upsample_ratio: float = field(
        default=2.0,
        metadata={"help": "positions per source token, >= 1, fractions allowed; lowered where positions run out"},
    )
    mask_placement: ChoiceEnum(["uniform", "right", "left"]) = field(  # type: ignore[valid-type]
        default="uniform",
        metadata={"help": "where mask_insertion puts the MASKs: after each token, after or before the source"},
    )
    blank_symbol: ChoiceEnum(["<s>", "<mask>"]) = field(  # type: ignore[valid-type]
        default="<s>", metadata={"help": "the dictionary symbol that serves as the CTC blank"}
    )
    random_positions: bool = field(
        default=False,
        metadata={
            "help": "in training, let each sentence start at a random one of the positions that leave it room, so that "
            "all position embeddings are trained"
        },
    )
    freeze_embeddings: bool = field(
        default=False,
        metadata={
            "help": "keep token, position and type embeddings as they are in the PMLM; where the vocabulary projection "
            "is tied to the token embeddings, that too"
        },
    )
    freeze_lm_head: bool = field(
        default=False,
        metadata={
            "help": "keep the masked-LM head as it is in the PMLM: dense part, bias and projection; where the "
            "projection is tied to the token embeddings, these too"
        },
    )
    # No options: the task fills in the LM's configuration (JSON) and the dictionary's SHA-256 when training starts, and
    # the checkpoint carries them, so that it needs no folder.
    pmlm_config: Optional[str] = field(default=None, metadata={"help": argparse.SUPPRESS})
    dictionary_digest: Optional[str] = field(default=None, metadata={"help": argparse.SUPPRESS})


class CtcOutput(NamedTuple):
    """What one pass gives; B sentences, T positions (``<s>`` is not among them), D width, V symbols."""

    hidden: Tensor  # [B, T, D] states before the vocabulary projection
    lengths: Tensor  # [B] real positions
    weight: Tensor  # [V, D]
    bias: Tensor | None  # [V]
    lowered: Tensor  # [] number of sentences whose ratio was lowered to fit the positions
    truncated: Tensor  # [] number of sentences of which even the source did not fit
    states: Tensor  # [B, T, D] the last layer's states, before the LM head
    upsampled: Tensor  # [B, T] the up-sampled source, as it is without revealed labels


@register_model("ctc_pmlm", dataclass=CtcPmlmConfig)
class CtcPmlmModel(BaseFairseqModel):
    """``<s>`` + up-sampled source → states; the output at ``<s>`` is not used (arXiv 2306.06345, section 3)."""

    def __init__(self, cfg: CtcPmlmConfig, dictionary: Any, masked_lm: MaskedLm) -> None:
        super().__init__()
        self.cfg = cfg
        self.masked_lm = masked_lm
        self.asked_for_bf16 = False
        # Set when the model is made ready for decoding (nat_plugin.decoding.preparation): how, and what it was before.
        self.prepared: Prepared | None = None
        self.dtype_before: torch.dtype | None = None
        self.packed_projection: torch.nn.Module | None = None
        self.bos, self.pad, self.eos = dictionary.bos(), dictionary.pad(), dictionary.eos()
        self.blank = dictionary.index(str(cfg.blank_symbol))
        self.upsampler = build_upsampler(cfg, mask=dictionary.index("<mask>"), pad=self.pad)
        self._freeze()
        if math.ceil(exact_ratio(cfg.upsample_ratio)) > self.max_upsampled:
            raise UserError(
                f"--upsample-ratio {cfg.upsample_ratio} is too large: the model has {self.max_upsampled} positions for "
                f"the up-sampled source, so not even one token could have that many; give at most {self.max_upsampled}"
            )

    @classmethod
    def build_model(cls, cfg: CtcPmlmConfig, task: Any) -> "CtcPmlmModel":
        """An untrained model of the shape that ``cfg.pmlm_config`` tells; the task loads the PMLM's weights."""
        if not getattr(task, "translates_in_one_pass", False):
            raise UserError("the model translates in one pass, which other tasks do not know: add --task ctc_nat")
        cfg = merge_with_parent(CtcPmlmConfig(), cfg, remove_missing=True)
        if cfg.pmlm_config is None:
            raise UserError("the checkpoint lacks pmlm_config, the model's configuration; train it with --task ctc_nat")
        config = config_from_json(cfg.pmlm_config)
        set_dropout(config, cfg.dropout, cfg.attention_dropout)
        return cls(cfg, task.target_dictionary, random_masked_lm(config))

    def _freeze(self) -> None:
        if self.cfg.freeze_embeddings:
            self.masked_lm.embeddings.requires_grad_(False)
        if self.cfg.freeze_lm_head:
            for parameter in self.masked_lm.head_parameters:
                parameter.requires_grad_(False)

    @property
    def max_upsampled(self) -> int:
        """Most positions that the up-sampled source may take."""
        return self.masked_lm.positions - 1

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor,
        *,
        width: int | None = None,
        revealed: Tensor | None = None,
        **unused: Any,
    ) -> CtcOutput:
        """One pass.

        Args:
            src_tokens: ``[B, S]`` right-padded; a final ``</s>`` is dropped.
            src_lengths: ``[B]``, ``</s>`` included.
            width: T, where the host knows it: :meth:`width_for` S or more. The host then never waits for the device
                (which the longest row takes, and the look for padding), so that the pass can become a CUDA graph.
            revealed: ``[B, T]`` labels that take the up-sampled source's place, -1 where it stays (see
                :mod:`nat_plugin.glancing`).
        """
        tokens, lengths = strip_last(src_tokens, src_lengths, symbol=self.eos, pad=self.pad)
        truncated = (lengths > self.max_upsampled).sum()
        tokens, lengths = tokens[:, : self.max_upsampled], lengths.clamp(max=self.max_upsampled)
        upsampled, new_lengths = self._upsample(tokens, lengths, width)
        lowered = (new_lengths < upsampled_lengths(lengths, self.cfg.upsample_ratio)).sum()
        read = upsampled if revealed is None else torch.where(revealed >= 0, revealed, upsampled)
        with_bos = torch.cat([read.new_full((len(read), 1), self.bos), read], dim=1)
        real = torch.arange(with_bos.size(1), device=tokens.device)[None, :] <= new_lengths[:, None]
        starts = self._first_positions(new_lengths)
        states = self.masked_lm.states(with_bos, real, starts, without_waiting=width is not None)[:, 1:]
        hidden = self.masked_lm.head(states)
        weight, bias = self.masked_lm.weight, self.masked_lm.bias
        # Views, because DDP's search for unused parameters follows the graph of the outputs and takes a bare parameter
        # among them for one used outside.
        return CtcOutput(
            hidden,
            new_lengths,
            weight.view_as(weight),
            None if bias is None else bias.view_as(bias),
            lowered,
            truncated,
            states,
            upsampled,
        )

    def _upsample(self, tokens: Tensor, lengths: Tensor, width: int | None) -> tuple[Tensor, Tensor]:
        if width is None or not self.upsampler.takes_width:
            return self.upsampler(tokens, lengths, self.max_upsampled)
        return self.upsampler(tokens, lengths, self.max_upsampled, width=width)  # type: ignore[call-arg]

    def width_for(self, source_width: int) -> int:
        """The most positions that sources in ``source_width`` columns can take."""
        return upsampled_width(source_width, self.cfg.upsample_ratio, self.max_upsampled)

    def _first_positions(self, lengths: Tensor) -> Tensor | None:
        """A random start for each sentence (``<s>`` included) in training, where that is wanted."""
        if not (self.training and self.cfg.random_positions):
            return None
        room = self.max_upsampled - lengths + 1
        return (torch.rand(len(lengths), device=lengths.device) * room).long().clamp(max=self.max_upsampled - lengths)

    def prepare_for_inference_(self, cfg: Any) -> None:
        """As fairseq's; remembers ``--bf16``, which fairseq-generate and -interactive read and leave at that.

        They alone have a ``--path``. Others (fairseq's hub interface) hand in the checkpoint's own configuration,
        which tells how it was trained; there the model's dtype and ``decode_precision`` say what is wanted.
        """
        super().prepare_for_inference_(cfg)
        self.asked_for_bf16 = bool(cfg.common.bf16) and cfg.common_eval.path is not None

    def logits(self, output: CtcOutput) -> Tensor:
        """``[B, T, V]`` scores before the softmax."""
        return torch.nn.functional.linear(output.hidden, output.weight, output.bias)

    def project(self, hidden: Tensor) -> Tensor:
        """``[n, D]`` rows of ``CtcOutput.hidden`` → ``[n, V]`` scores before the softmax."""
        if self.packed_projection is not None:
            return self.packed_projection(hidden)
        return torch.nn.functional.linear(hidden, self.masked_lm.weight, self.masked_lm.bias)

    def get_normalized_probs(self, net_output: CtcOutput, log_probs: bool, sample: Any = None) -> Tensor:
        """``[B, T, V]`` probabilities or natural-log probabilities, in float32."""
        logits = self.logits(net_output).float()
        return logits.log_softmax(dim=-1) if log_probs else logits.softmax(dim=-1)

    def max_positions(self) -> None:
        """No sentence is skipped for its length: the task cuts over-long sources and says so."""
        return

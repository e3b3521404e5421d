"""``--arch hf_causal_lm``: a causal language model of transformers, fine-tuned whole or by LoRA."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.dataclass.utils import merge_with_parent
from fairseq.models import BaseFairseqModel, register_model
from omegaconf import II
from torch import Tensor

from nid_plugin.causal_lm import lora, packed_attention, sharded, source
from nid_plugin.causal_lm.lm import CausalLm, LmOutput, config_from_json, untrained_lm
from plugin_common.errors import UserError, raise_all
from plugin_common.free_memory import give_back_free_memory

logger = logging.getLogger(__name__)

_PREFIX = "causal_lm.lm."  # of the names in a checkpoint


@dataclass
class HfCausalLmConfig(FairseqDataclass):
    """Options of the architecture."""

    model: Optional[str] = field(
        default=None, metadata={"help": "folder of a causal LM (LLaMA, Mistral, Qwen, …), or its name on the hub"}
    )
    tuning: ChoiceEnum(["lora", "full"]) = field(  # type: ignore[valid-type]
        default="lora", metadata={"help": "train low-rank adapters alone (lora) or all weights (full); default: lora"}
    )
    lora_rank: int = field(default=8, metadata={"help": "rank of the adapters (default: 8)"})
    lora_alpha: float = field(default=16.0, metadata={"help": "adapters count alpha / rank times (default: 16)"})
    lora_dropout: float = field(default=0.0, metadata={"help": "dropout in front of the adapters (probability)"})
    lora_targets: str = field(
        default=lora.ALL_LINEAR,
        metadata={
            "help": "linear layers that get adapters: names with commas between them (q_proj,v_proj), or all-linear: "
            "all but the output projection (default)"
        },
    )
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "keep each layer's input alone for the backward pass: less memory, more time"}
    )
    quantize: ChoiceEnum(["none", "4bit"]) = field(  # type: ignore[valid-type]
        default="none",
        metadata={"help": "hold the base's weights as 4-bit NF4 under LoRA (needs bitsandbytes; default: none)"},
    )
    attention: ChoiceEnum(list(packed_attention.IMPLEMENTATIONS)) = field(  # type: ignore[valid-type]
        default="packed",
        metadata={
            "help": "attention within packed documents: packed (torch's, document by document; default), "
            "flash_attention_2 (the package flash-attn, CUDA), sdpa or eager (with a mask; slow, for comparison)"
        },
    )
    shard_model: bool = field(
        default=False,
        metadata={"help": "split weights, gradients and optimizer state over the processes (FSDP2)"},
    )
    # How the weights are held, as the trainer will hold them.
    bf16: bool = II("common.bf16")
    memory_efficient_bf16: bool = II("common.memory_efficient_bf16")
    fp16: bool = II("common.fp16")
    memory_efficient_fp16: bool = II("common.memory_efficient_fp16")
    # No options: the task fills them in when training starts, and the checkpoint carries them.
    lm_config: Optional[str] = field(default=None, metadata={"help": argparse.SUPPRESS})
    base_fingerprint: Optional[str] = field(default=None, metadata={"help": argparse.SUPPRESS})
    trained_format: Optional[str] = field(default=None, metadata={"help": argparse.SUPPRESS})


def check_options(cfg: HfCausalLmConfig) -> None:
    """Raise ``UserError`` with all that cannot be."""
    problems = []
    if cfg.model is None:
        problems.append("--model is missing: give the folder of a causal LM, or its name on the hub")
    if cfg.quantize == "4bit" and cfg.tuning == "full":
        problems.append("--quantize 4bit needs --tuning lora: weights of 4 bits cannot be trained")
    problems += sharding_problems(cfg) if cfg.shard_model else []
    if str(cfg.attention) == "flash_attention_2":
        problems += packed_attention.flash_attention_problems(weights_dtype(cfg))
    try:
        if cfg.tuning == "lora":
            lora_options(cfg)
    except UserError as error:
        problems.append(str(error))
    raise_all(problems)


def sharding_problems(cfg: HfCausalLmConfig) -> list[str]:
    """Why this model cannot be split over the processes."""
    problems = []
    if cfg.quantize == "4bit":
        problems.append("--shard-model does not split weights of 4 bits; leave out one of --shard-model and --quantize")
    if cfg.fp16 or cfg.memory_efficient_fp16:
        problems.append("--shard-model does not go with --fp16, whose scaling needs whole gradients; give --bf16")
    try:
        sharded.check_processes()
    except UserError as error:
        problems.append(str(error))
    return problems


def lora_options(cfg: HfCausalLmConfig) -> lora.LoraOptions:
    """The adapters' shape."""
    return lora.LoraOptions.from_options(cfg.lora_rank, cfg.lora_alpha, cfg.lora_dropout, cfg.lora_targets)


def weights_dtype(cfg: HfCausalLmConfig) -> torch.dtype:
    """The precision in which the trainer holds the weights."""
    if cfg.bf16 or cfg.memory_efficient_bf16:
        return torch.bfloat16
    return torch.float16 if cfg.fp16 or cfg.memory_efficient_fp16 else torch.float32


@register_model("hf_causal_lm", dataclass=HfCausalLmConfig)
class HfCausalLm(BaseFairseqModel):
    """Packed documents → states at the positions that predict a completion's token.

    With LoRA, checkpoints hold the adapters alone; the base is read again from ``--model``.
    """

    def __init__(self, cfg: HfCausalLmConfig, lm: Any) -> None:
        super().__init__()
        self.cfg = cfg
        self.causal_lm = CausalLm(lm, str(cfg.attention))
        if cfg.gradient_checkpointing:
            lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    @classmethod
    def build_model(cls, cfg: HfCausalLmConfig, task: Any, *, from_checkpoint: bool = False) -> "HfCausalLm":
        """With the base's weights where a checkpoint will not bring them.

        Raises:
            UserError: see :mod:`nid_plugin.causal_lm.source` and :mod:`nid_plugin.causal_lm.lora`.
        """
        if not getattr(task, "completes_texts", False):
            raise UserError("the model completes texts, which other tasks do not know: add --task completion_sft")
        cfg = merge_with_parent(HfCausalLmConfig(), cfg, remove_missing=True)
        if cfg.lm_config is None:
            raise UserError("the checkpoint lacks lm_config, the configuration; train with --task completion_sft")
        config = config_from_json(cfg.lm_config)
        if from_checkpoint and str(cfg.attention) == "flash_attention_2" and not packed_attention.has_flash_attention():
            cfg.attention = "eager" if getattr(config, "attn_logit_softcapping", None) else "packed"
            logger.info("trained with --attention flash_attention_2, not here; %s computes the same", cfg.attention)
        attention = packed_attention.name_in_transformers(str(cfg.attention))
        if cfg.tuning == "full" and from_checkpoint:
            return cls(cfg, untrained_lm(config, dtype=weights_dtype(cfg), attention=attention))
        if cfg.shard_model and not from_checkpoint:
            return cls._build_sharded(cfg, config, attention)
        lm = source.load_weights(
            source.local_folder(str(cfg.model)),
            config,
            dtype=weights_dtype(cfg),
            attention=attention,
            four_bit=str(cfg.quantize) == "4bit",
        )
        if cfg.tuning == "lora":
            lora.add_adapters(lm, lora_options(cfg))
        return cls(cfg, lm)

    @classmethod
    def _build_sharded(cls, cfg: HfCausalLmConfig, config: Any, attention: str) -> "HfCausalLm":
        def change(lm: Any) -> None:
            if cfg.tuning == "lora":
                lora.add_adapters(lm, lora_options(cfg))

        folder = source.local_folder(str(cfg.model))
        lm, split = sharded.open_to_split(folder, config, dtype=weights_dtype(cfg), attention=attention, change=change)
        model = cls(cfg, lm)
        split(model)
        return model

    @property
    def uses_adapters(self) -> bool:
        """Whether adapters alone are trained and saved."""
        return str(self.cfg.tuning) == "lora"

    def forward(
        self, src_tokens: Tensor, position_ids: Tensor, document_lengths: Sequence[int], positions: Tensor
    ) -> LmOutput:
        """See :meth:`nid_plugin.causal_lm.lm.CausalLm.forward`."""
        output: LmOutput = self.causal_lm(src_tokens, position_ids, document_lengths, positions)
        if self.training and not self.uses_adapters and src_tokens.device.type == "cpu":
            # A step's memory is at its fullest in the loss, and gradients and states of the optimizer that lie between
            # activations of other batches leave holes in the heap.
            give_back_free_memory()
        return output

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The adapters alone under LoRA, else all weights."""
        state = super().state_dict(*args, **kwargs)
        if not self.uses_adapters:
            return state
        return type(state)((name, tensor) for name, tensor in state.items() if "lora_" in name)

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, model_cfg: Any = None, args: Any = None
    ) -> Any:
        """The counterpart of :meth:`state_dict`; names and shapes must be the model's.

        Raises:
            UserError: adapters for a model without, or the other way round, or of another shape.
        """
        adapters = any("lora_" in name for name in state_dict)
        if adapters != self.uses_adapters:
            there, here = ("adapters", "full") if adapters else ("all weights", "lora")
            raise UserError(f"the checkpoint holds {there}, but the model is built with --tuning {here}")
        if self.uses_adapters:
            inner = {name.removeprefix(_PREFIX): tensor for name, tensor in state_dict.items()}
            lora.load_adapter_state(self.causal_lm.lm, inner, "the checkpoint")
            return None
        return torch.nn.Module.load_state_dict(self, state_dict, strict)

    # ---- for fairseq ------------------------------------------------------------------------------------------------

    def prepare_for_inference_(self, cfg: Any) -> None:
        """As fairseq's, and: ``--bf16``; the usual attention, as generation packs nothing."""
        super().prepare_for_inference_(cfg)
        if cfg.common.bf16 and cfg.common_eval.path is not None:
            self.bfloat16()
        self.causal_lm.lm.set_attn_implementation("sdpa")

    def max_positions(self) -> None:
        """No pair is skipped for its length: the task cuts over-long ones and says so."""
        return

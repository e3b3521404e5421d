"""A causal LM as a function from packed documents to what a loss over some of its positions needs. Knows no fairseq."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nid_plugin.causal_lm import cpu_sizes, packed_attention, tied_embedding
from plugin_common.hf_folder import quiet_transformers

# Families whose logits are the projection of the last states and nothing else. Others cap, scale or shift them: there
# the model's own logits are taken.
PLAIN_HEADS = frozenset(
    {"gpt2", "gpt_neox", "llama", "mistral", "mixtral", "olmo", "olmo2", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3",
     "qwen3_moe", "smollm3", "starcoder2"}
)  # fmt: skip


class LmOutput(NamedTuple):
    """K positions, D width, V symbols. Either states and projection, or logits."""

    hidden: Tensor  # [K, D] states before the projection; [K, 0] where there are logits
    weight: Tensor | None  # [V, D]
    bias: Tensor | None  # [V]
    logits: Tensor | None  # [K, V] where they are more than a projection


class CausalLm(nn.Module):
    """Wraps a transformers causal LM (with or without adapters).

    Attributes:
        lm: the model.
        attention: one of ``packed_attention.IMPLEMENTATIONS``; how packed documents are kept apart.
    """

    def __init__(self, lm: Any, attention: str) -> None:
        super().__init__()
        self.lm = lm
        self.attention = attention
        packed_attention.prepare(lm, attention)

    def forward(
        self, tokens: Tensor, position_ids: Tensor, document_lengths: Sequence[int], positions: Tensor
    ) -> LmOutput:
        """One pass over documents that do not see each other.

        Args:
            tokens: ``[N]`` the documents' tokens, one document after another.
            position_ids: ``[N]`` from 0 in each document.
            document_lengths: their sum is N.
            positions: ``[K]`` indices into ``tokens``.
        """
        if self.attention == "packed" and tokens.device.type == "cpu":
            tokens, position_ids, document_lengths = cpu_sizes.fill_up(tokens, position_ids, document_lengths)
        packing = packed_attention.packing_arguments(self.attention, document_lengths, tokens.device)
        read = {"input_ids": tokens[None], "position_ids": position_ids[None], "use_cache": False, **packing}
        if not has_plain_head(self.lm):
            logits = self.lm(**read, logits_to_keep=positions).logits[0]
            return LmOutput(logits.new_empty(len(positions), 0), None, None, logits)
        head = self.lm.get_output_embeddings()
        # Views, because DDP's search for unused parameters follows the graph of the outputs and takes a bare parameter
        # among them for one used outside.
        if tied_embedding.is_trained_on_cpu(self.lm):
            for_lookup, weight = tied_embedding.both_uses(head.weight)
            embedded = tied_embedding.lookup(self.lm.get_input_embeddings(), for_lookup, tokens)
            read = read | {"input_ids": None, "inputs_embeds": embedded[None]}
        else:
            weight = head.weight.view_as(head.weight)
        bias = None if head.bias is None else head.bias.view_as(head.bias)
        hidden = self.lm.base_model(**read).last_hidden_state[0].index_select(0, positions)
        return LmOutput(hidden, weight, bias, None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CausalLm":
        """As ``nn.Module``'s (``.to()``, ``.bfloat16()``, …), but buffers keep their precision.

        A 16-bit training converts all that a module has, the frequencies of the rotary positions too: rounded to
        bfloat16 they turn position 1,000 by radians. transformers keeps them in float32 whatever the weights are.
        """
        exact = [(module, name, buffer) for module in self.lm.modules() for name, buffer in module._buffers.items()]
        super()._apply(fn, recurse)
        for module, name, buffer in exact:
            now = module._buffers[name]
            if buffer is not None and now is not None and now.dtype != buffer.dtype:
                module._buffers[name] = buffer.to(now.device)
        return self


def has_plain_head(lm: Any) -> bool:
    """Whether the logits are the projection of the last states by a linear layer without adapter."""
    return lm.config.model_type in PLAIN_HEADS and type(lm.get_output_embeddings()) is nn.Linear


def untrained_lm(config: Any, *, dtype: torch.dtype, attention: str) -> Any:
    """A model of the shape ``config`` tells, its weights left to be loaded."""
    with quiet_transformers():
        from transformers import AutoModelForCausalLM
        from transformers.initialization import no_init_weights

        with no_init_weights():
            lm = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
        lm.tie_weights()
    return lm.eval()


def config_from_json(text: str) -> Any:
    """The configuration that :func:`config_to_json` wrote."""
    with quiet_transformers():
        from transformers import AutoConfig

        content = json.loads(text)
        return AutoConfig.for_model(content.pop("model_type"), **content)


def config_to_json(config: Any) -> str:
    """All that the configuration holds, without the name of the folder that it came from."""
    content = config.to_dict()
    for name in ("_name_or_path", "transformers_version", "quantization_config"):
        content.pop(name, None)
    return json.dumps(content, sort_keys=True)


def base_name(folder: Path | str) -> str:
    """What a model card calls the base: the hub's name for a folder of its cache, else the path."""
    parts = Path(folder).parts
    cached = [part for part in parts if part.startswith("models--")]
    return cached[-1].removeprefix("models--").replace("--", "/") if cached else str(folder)

"""A Hugging Face masked LM, taken apart in front of its vocabulary projection. Knows no fairseq.

The dense part of the LM head (dense, activation, layer norm) stays as it is; the projection to the vocabulary is handed
out as weight and bias, so that a loss can compute the few columns that it needs.
"""

import json
from typing import Any

import torch
from torch import Tensor, nn

from plugin_common.compat import hide_broken_torchaudio

hide_broken_torchaudio()
from transformers import AutoConfig, AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel  # noqa: E402

MODEL_TYPES = ("xlm-roberta", "roberta", "bert", "distilbert")


class MaskedLm(nn.Module):
    """The LM of a PMLM folder as a function from tokens to the states before the vocabulary projection.

    Attributes:
        config: the Hugging Face configuration; ``positions`` is the longest input, ``<s>`` included.
    """

    def __init__(self, lm: PreTrainedModel) -> None:
        super().__init__()
        projection = lm.get_output_embeddings()
        embeddings = lm.get_input_embeddings()
        _leave_out(projection, lm)
        self.lm = lm
        self.config: PretrainedConfig = lm.config
        self.tied = projection.weight is embeddings.weight
        if not self.tied:
            self.untied_weight = projection.weight
        self.bias: nn.Parameter | None = projection.bias

    @property
    def weight(self) -> Tensor:
        """``[V, D]`` the vocabulary projection."""
        return self.lm.get_input_embeddings().weight if self.tied else self.untied_weight

    @property
    def positions(self) -> int:
        """The longest input that the position embeddings allow."""
        return usable_positions(self.config)

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        """States ``[B, T, D]`` of ``tokens [B, T]``; ``real [B, T]`` (bool) is False at padding."""
        return self.lm(input_ids=tokens, attention_mask=real.long()).logits


def _leave_out(projection: nn.Module, lm: nn.Module) -> None:
    """Let the LM's head end before ``projection``.

    The head keeps the bias under a name of its own, too: the same parameter in a tied model, an unused one otherwise,
    which distributed training would wait for.
    """
    for head in list(lm.modules()):
        for name, child in list(head.named_children()):
            if child is projection:
                setattr(head, name, nn.Identity())
                own = getattr(head, "bias", None)
                if isinstance(own, nn.Parameter) and own is not projection.bias:
                    head.register_parameter("bias", None)


def usable_positions(config: PretrainedConfig) -> int:
    """RoBERTa's and XLM-R's position ids start behind the pad id, so that many positions less are usable."""
    offset = config.pad_token_id + 1 if config.model_type in ("xlm-roberta", "roberta") else 0
    return int(config.max_position_embeddings) - offset


def config_from_json(text: str) -> PretrainedConfig:
    """The configuration that :func:`config_to_json` wrote."""
    settings = json.loads(text)
    return AutoConfig.for_model(settings.pop("model_type"), **settings)


def config_to_json(config: PretrainedConfig) -> str:
    """A configuration as one line of JSON: travels inside a checkpoint."""
    return json.dumps(config.to_diff_dict(), sort_keys=True)


def random_masked_lm(config: PretrainedConfig) -> MaskedLm:
    """A model of this shape with fresh weights (the generator is torch's global one)."""
    lm = AutoModelForMaskedLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    return MaskedLm(lm)


def set_dropout(config: PretrainedConfig, dropout: float, attention_dropout: float) -> None:
    """Set both rates, whatever the family calls them."""
    if config.model_type == "distilbert":
        config.dropout, config.attention_dropout = dropout, attention_dropout
    else:
        config.hidden_dropout_prob, config.attention_probs_dropout_prob = dropout, attention_dropout


def shape_config(
    model_type: str, *, vocab_size: int, layers: int, dim: int, ffn_dim: int, heads: int, positions: int
) -> PretrainedConfig:
    """A configuration by its shape, with the special symbols where fairseq's dictionary has them.

    Args:
        positions: the longest usable input, ``<s>`` included.
    """
    special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    if model_type == "distilbert":
        names: dict[str, Any] = {"dim": dim, "n_layers": layers, "n_heads": heads, "hidden_dim": ffn_dim}
    else:
        names = {
            "hidden_size": dim,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": ffn_dim,
            "type_vocab_size": 1 if model_type != "bert" else 2,
            "layer_norm_eps": 1e-5 if model_type != "bert" else 1e-12,
        }
    offset = special["pad_token_id"] + 1 if model_type in ("xlm-roberta", "roberta") else 0
    return AutoConfig.for_model(
        model_type, vocab_size=vocab_size, max_position_embeddings=positions + offset, **names, **special
    )

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

    @property
    def embeddings(self) -> nn.Module:
        """Token, position and type embeddings with their normalisation."""
        return self.lm.base_model.embeddings

    @property
    def layers(self) -> nn.ModuleList:
        """The Transformer layers."""
        body = self.lm.base_model
        return body.transformer.layer if self.config.model_type == "distilbert" else body.encoder.layer

    @property
    def head_parameters(self) -> list[nn.Parameter]:
        """The masked-LM head: dense part, projection (also the embedding where they are tied) and bias."""
        inside = {id(parameter) for parameter in self.lm.base_model.parameters()}
        own = [parameter for parameter in self.parameters() if id(parameter) not in inside]
        return [*own, *([self.lm.get_input_embeddings().weight] if self.tied else [])]

    def forward(self, tokens: Tensor, real: Tensor, first_positions: Tensor | None = None) -> Tensor:
        """States ``[B, T, D]`` before the projection; arguments as in :meth:`states`."""
        return self.head(self.states(tokens, real, first_positions))

    def states(
        self, tokens: Tensor, real: Tensor, first_positions: Tensor | None = None, *, without_waiting: bool = False
    ) -> Tensor:
        """The last layer's states ``[B, T, D]``.

        Args:
            tokens: ``[B, T]``; real: ``[B, T]`` bool, False at padding, which stands on the right.
            first_positions: ``[B]`` the position at which each sentence starts, 0 … ``positions`` - its length; None
                starts all at 0.
            without_waiting: let the host not wait for the device. Otherwise transformers looks whether there is any
                padding and calls attention without a mask (which is faster) where there is none.
        """
        ids = None if first_positions is None else self._position_ids(real, first_positions)
        mask = real[:, None, None, :].expand(-1, 1, real.size(1), -1) if without_waiting else real.long()
        return self.lm.base_model(input_ids=tokens, attention_mask=mask, position_ids=ids).last_hidden_state

    def head(self, states: Tensor) -> Tensor:
        """The head's dense part: from the last layer's states to those before the projection, ``[…, D]`` both."""
        if self.config.model_type == "bert":
            return self.lm.cls(states)
        if self.config.model_type == "distilbert":
            return self.lm.vocab_layer_norm(self.lm.activation(self.lm.vocab_transform(states)))
        return self.lm.lm_head(states)

    def _position_ids(self, real: Tensor, first_positions: Tensor) -> Tensor:
        """RoBERTa and XLM-R count from behind the pad id and give padding the pad id, the others count from 0."""
        ids = first_positions[:, None] + torch.arange(real.size(1), device=real.device)
        offset = _first_position_id(self.config)
        return (ids + offset).masked_fill(~real, self.config.pad_token_id if offset else 0)


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
    return int(config.max_position_embeddings) - _first_position_id(config)


def _first_position_id(config: PretrainedConfig) -> int:
    return config.pad_token_id + 1 if config.model_type in ("xlm-roberta", "roberta") else 0


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

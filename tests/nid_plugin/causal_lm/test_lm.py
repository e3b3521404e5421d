"""A pass over packed documents, for every family that is said to have a plain head and for some that have not."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from nid_plugin.causal_lm import packed_attention
from nid_plugin.causal_lm.lm import (
    PLAIN_HEADS,
    CausalLm,
    base_name,
    config_from_json,
    config_to_json,
    has_plain_head,
    untrained_lm,
)
from plugin_common.hf_folder import quiet_transformers

with quiet_transformers():
    from transformers import AutoConfig, AutoModelForCausalLM

LENGTHS = (5, 1, 9)
SHAPE = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
}  # fmt: skip
OWN_NAMES = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 50},
    "mixtral": {**SHAPE, "num_local_experts": 2},
    "qwen2_moe": {
        **SHAPE,
        "num_experts": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "num_experts_per_tok": 1,
    },
    "qwen3_moe": {**SHAPE, "num_experts": 2, "moe_intermediate_size": 16, "num_experts_per_tok": 1},
    "qwen3": {**SHAPE, "head_dim": 8},
}
CAPPED = {
    "gemma2": {**SHAPE, "head_dim": 8, "final_logit_softcapping": 0.5},
    "granite": {**SHAPE, "logits_scaling": 3.0},
}


def _model(family: str) -> Any:
    torch.manual_seed(0)
    with quiet_transformers():
        config = AutoConfig.for_model(family, **{**SHAPE, **OWN_NAMES.get(family, CAPPED.get(family, {}))})
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    tokens = torch.randint(3, 50, (sum(LENGTHS),), generator=torch.Generator().manual_seed(1))
    return tokens, torch.cat([torch.arange(n) for n in LENGTHS]), torch.tensor([0, 4, 5, 8, 14])


def _expected(lm: Any, tokens: Tensor, positions: Tensor) -> Tensor:
    """``[K, V]`` logits, document by document."""
    with torch.no_grad():
        rows = [lm(input_ids=part[None], use_cache=False).logits[0] for part in tokens.split(LENGTHS)]
    return torch.cat(rows)[positions]


def _logits(lm: CausalLm) -> Tensor:
    tokens, places, positions = _inputs()
    with torch.no_grad():
        output = lm(tokens, places, LENGTHS, positions)
        if output.logits is not None:
            return output.logits
        assert output.weight is not None
        return torch.nn.functional.linear(output.hidden, output.weight, output.bias)


@pytest.mark.parametrize("family", sorted(PLAIN_HEADS))
def test_plain_heads_are_plain(family: str) -> None:
    lm = _model(family)
    tokens, _, positions = _inputs()
    expected = _expected(lm, tokens, positions)
    assert has_plain_head(lm)
    try:
        packed_attention.prepare(lm, "packed")
    except Exception as error:
        pytest.fail(f"{family}: {error}")
    torch.testing.assert_close(_logits(CausalLm(lm, "packed")), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", sorted(CAPPED))
def test_other_heads_give_their_own_logits(family: str) -> None:
    lm = _model(family)
    tokens, _, positions = _inputs()
    expected = _expected(lm, tokens, positions)
    assert not has_plain_head(lm)
    torch.testing.assert_close(_logits(CausalLm(lm, "eager")), expected, rtol=1e-4, atol=1e-5)


def test_an_untrained_model_has_the_shape_and_its_ties() -> None:
    config = config_from_json(config_to_json(_model("llama").config))
    assert json.loads(config_to_json(config)) == json.loads(config_to_json(_model("llama").config))
    config.tie_word_embeddings = True
    lm = untrained_lm(config, dtype=torch.float32, attention="sdpa")
    assert lm.get_output_embeddings().weight is lm.get_input_embeddings().weight
    trained = AutoModelForCausalLM.from_config(config)
    lm.load_state_dict(trained.state_dict())
    tokens = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        torch.testing.assert_close(lm(tokens).logits, trained.eval()(tokens).logits, rtol=1e-5, atol=1e-5)


def test_a_base_is_called_by_its_name_on_the_hub() -> None:
    assert base_name("/cache/models--meta-llama--Llama-2-7b-hf/snapshots/01c7") == "meta-llama/Llama-2-7b-hf"
    assert base_name("/models/mine") == "/models/mine"

"""Adapters: where they are put, what they change, what their files hold."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from nid_plugin.causal_lm import lora, source
from nid_plugin.causal_lm.lora import LoraOptions
from plugin_common.errors import UserError
from tests.toy_causal_lm import make_causal_lm

TOKENS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_causal_lm(tmp_path_factory.mktemp("lm") / "toy")


def _model(toy: Path) -> torch.nn.Module:
    return source.load_weights(toy, source.read_config(toy), dtype=torch.float32, attention="sdpa")


def _logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


def test_at_first_adapters_change_nothing_and_alone_are_trained(toy: Path) -> None:
    model = _model(toy)
    before = _logits(model)
    lora.add_adapters(model, LoraOptions())
    torch.testing.assert_close(_logits(model), before, rtol=0, atol=0)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    layers = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert len(trained) == 2 * 2 * len(layers), "A and B of each linear layer of two blocks"
    assert all("lora_" in name for name in trained)
    assert not any("lm_head" in name for name in trained)
    ranks = {parameter.shape[0] for name, parameter in model.named_parameters() if "lora_A" in name}
    assert ranks == {8}


def test_an_adapter_is_alpha_over_rank_times_b_a(toy: Path) -> None:
    model = _model(toy)
    lora.add_adapters(model, LoraOptions(rank=3, alpha=12.0, targets=("q_proj",)))
    plain = _model(toy)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    state = lora.adapter_state(model)
    with torch.no_grad():
        for index, layer in enumerate(plain.model.layers):
            front = f"model.layers.{index}.self_attn.q_proj"
            product = state[f"{front}.lora_B.default.weight"] @ state[f"{front}.lora_A.default.weight"]
            layer.self_attn.q_proj.weight += 12.0 / 3 * product
    torch.testing.assert_close(_logits(model), _logits(plain), rtol=1e-5, atol=1e-5)


def test_states_are_copied_and_must_fit(toy: Path) -> None:
    one, other = _model(toy), _model(toy)
    for model in (one, other):
        lora.add_adapters(model, LoraOptions(rank=4))
    for name, parameter in one.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    state = lora.adapter_state(one)
    lora.load_adapter_state(other, state, "here")
    torch.testing.assert_close(_logits(one), _logits(other), rtol=0, atol=0)
    wider = _model(toy)
    lora.add_adapters(wider, LoraOptions(rank=5))
    with pytest.raises(UserError, match=r"here: .*lora_A.* is \[4, \d+\], this model's is \[5, \d+\]"):
        lora.load_adapter_state(wider, state, "here")
    name = next(iter(state))
    with pytest.raises(UserError, match="lacks the adapter weights"):
        lora.load_adapter_state(other, {key: value for key, value in state.items() if key != name}, "here")
    with pytest.raises(UserError, match="has weights that this model's adapters do not"):
        lora.load_adapter_state(other, {**state, "x.lora_A.default.weight": state[name]}, "here")


def test_options_that_cannot_be_are_told_all_at_once(toy: Path) -> None:
    with pytest.raises(UserError) as caught:
        LoraOptions.from_options(0, 0.0, 1.0, " , ")
    for part in (
        "--lora-rank 0: expected 1 or more",
        "--tuning full",
        "--lora-alpha",
        "--lora-dropout",
        "--lora-targets",
    ):
        assert part in str(caught.value)
    with pytest.raises(UserError, match=r"--lora-targets all-linear,q_proj: all-linear means all of them"):
        LoraOptions.from_options(8, 16.0, 0.0, "all-linear,q_proj")
    with pytest.raises(UserError, match=r"--lora-targets c_attn: matches no linear layer .* it has .*q_proj"):
        lora.add_adapters(_model(toy), LoraOptions.from_options(8, 16.0, 0.0, "q_proj,c_attn"))


def test_names_in_files_are_pefts(toy: Path) -> None:
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    config = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    theirs = get_peft_model_state_dict(get_peft_model(_model(toy), config))
    model = _model(toy)
    lora.add_adapters(model, LoraOptions())
    ours = lora.to_peft_names(lora.adapter_state(model))
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: t.shape for n, t in theirs.items()}

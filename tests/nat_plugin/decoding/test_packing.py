from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN

from nat_plugin.decoding.packing import PackedLinear, can_pack, pack_layers
from nat_plugin.models.masked_lm import MODEL_TYPES
from plugin_common.errors import UserError

pytestmark = pytest.mark.skipif(not can_pack(torch.zeros(1, 1)), reason="this CPU or torch does not pack weights")

NewModel = Callable[..., tuple[Any, Any]]


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8), (0, 8), (1, 0, 8)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_a_packed_layer_is_the_layer(shape: tuple[int, ...], biased: bool, activation: str) -> None:
    torch.manual_seed(1)
    layer = nn.Linear(8, 13, bias=biased)
    inputs = torch.randn(*shape)
    expected = layer(inputs)
    expected = F.gelu(expected) if activation == "gelu" else expected
    with torch.inference_mode():
        found = PackedLinear(layer.weight, layer.bias, activation=activation)(inputs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", MODEL_TYPES)
def test_packed_models_give_the_same_states(new_model: NewModel, family: str) -> None:
    model, _ = new_model(pmlm_type=family)
    tokens, lengths = torch.tensor([[7, 9, 11, 2], [8, 2, 1, 1]]), torch.tensor([4, 2])
    with torch.inference_mode():
        expected = model(tokens, lengths).hidden
        count = sum(type(module) is nn.Linear for module in model.masked_lm.lm.modules())
        assert pack_layers(model.masked_lm.lm) == count > 12
        assert pack_layers(model.masked_lm.lm) == 0, "once is enough"
        torch.testing.assert_close(model(tokens, lengths).hidden, expected, rtol=1e-4, atol=1e-5)
    fused = [module for module in model.modules() if getattr(module, "activation", None) == "gelu"]
    assert len(fused) == 2, "one feed-forward part a layer"


@pytest.mark.parametrize("name", ["gelu_new", "relu", "gelu_python"])
def test_only_the_exact_gelu_moves_into_the_product(name: str) -> None:
    torch.manual_seed(2)
    layer = nn.Module()
    layer.dense, layer.intermediate_act_fn = nn.Linear(4, 5), ACT2FN[name]
    pack_layers(layer)
    assert layer.dense.activation == "none"
    assert not isinstance(layer.intermediate_act_fn, nn.Identity)


def test_inputs_of_another_format_are_refused() -> None:
    layer = nn.Linear(8, 13)
    packed = PackedLinear(layer.weight, layer.bias)
    message = r"packed for decoding in fp32 on a CPU and cannot be converted .* \(its inputs are bf16 on cpu\); load it"
    with torch.inference_mode(), pytest.raises(UserError, match=message):
        packed(torch.zeros(2, 8, dtype=torch.bfloat16))
    with torch.inference_mode(), pytest.raises(UserError, match="its inputs are fp32 on meta"):
        packed(torch.zeros(2, 8, device="meta"))


def test_packed_models_are_not_trained(new_model: NewModel) -> None:
    model, _ = new_model()
    pack_layers(model.masked_lm.lm)
    tokens, lengths = torch.tensor([[7, 9, 2]]), torch.tensor([3])
    with pytest.raises(UserError, match="packed for decoding and cannot be trained: load it again"):
        model(tokens, lengths)
    with torch.no_grad():
        assert model(tokens, lengths).hidden.isfinite().all()


def test_other_formats_are_not_packed() -> None:
    assert not can_pack(torch.zeros(2, 2, dtype=torch.float16))
    assert not can_pack(torch.zeros(2, 2, device="meta"))
    with torch.backends.mkldnn.flags(enabled=False):
        assert not can_pack(torch.zeros(2, 2))

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from nat_plugin.models.masked_lm import (
    MODEL_TYPES,
    MaskedLm,
    config_from_json,
    config_to_json,
    random_masked_lm,
    set_dropout,
    shape_config,
    usable_positions,
)

VOCABULARY, POSITIONS = 40, 20
every_family = pytest.mark.parametrize("family", MODEL_TYPES)
tied_or_not = pytest.mark.parametrize("tied", [True, False])


def config(family: str, tied: bool = True) -> Any:
    made = shape_config(family, vocab_size=VOCABULARY, layers=2, dim=16, ffn_dim=24, heads=2, positions=POSITIONS)
    made.tie_word_embeddings = tied
    return made


def hugging_face_model(family: str, tied: bool = True) -> Any:
    from transformers import AutoModelForMaskedLM

    torch.manual_seed(3)
    lm = AutoModelForMaskedLM.from_config(config(family, tied)).eval()
    with torch.no_grad():
        for parameter in lm.parameters():  # biases and layer norms begin as constants, which would hide mistakes
            parameter.add_(0.1 * torch.randn_like(parameter))
    return lm


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(4)
    tokens = torch.randint(4, VOCABULARY, (3, 11))
    tokens[:, 0] = 0
    real = torch.arange(11)[None, :] < torch.tensor([11, 7, 1])[:, None]
    return tokens.masked_fill(~real, 1), real


@every_family
@tied_or_not
def test_logits_are_those_of_the_hugging_face_model(family: str, tied: bool) -> None:
    lm = hugging_face_model(family, tied)
    tokens, real = batch()
    with torch.no_grad():
        expected = copy.deepcopy(lm)(input_ids=tokens, attention_mask=real.long()).logits
        mine = MaskedLm(lm)
        hidden = mine(tokens, real)
        logits = torch.nn.functional.linear(hidden, mine.weight, mine.bias)
    assert hidden.shape == (3, 11, 16)
    assert mine.tied is tied
    torch.testing.assert_close(logits[real], expected[real], rtol=1e-6, atol=1e-6)


@every_family
@tied_or_not
def test_every_parameter_is_trained_and_saved_once(family: str, tied: bool) -> None:
    mine = MaskedLm(hugging_face_model(family, tied))
    tokens, real = batch()
    torch.nn.functional.linear(mine(tokens, real), mine.weight, mine.bias).logsumexp(-1).sum().backward()
    without = [name for name, parameter in mine.named_parameters() if parameter.grad is None]
    assert without == [], "distributed training would wait for these"
    assert any(parameter is mine.weight for parameter in mine.parameters())
    assert any(parameter is mine.bias for parameter in mine.parameters())


@every_family
@tied_or_not
def test_weights_move_from_one_to_another_by_the_state_dict(family: str, tied: bool) -> None:
    source = MaskedLm(hugging_face_model(family, tied))
    target = random_masked_lm(config_from_json(config_to_json(config(family, tied)))).eval()
    target.load_state_dict(source.state_dict(), strict=True)
    tokens, real = batch()
    with torch.no_grad():
        torch.testing.assert_close(target(tokens, real), source(tokens, real), rtol=1e-6, atol=1e-6)
    assert torch.equal(target.weight, source.weight)
    assert target.bias is not None
    assert source.bias is not None
    assert torch.equal(target.bias, source.bias)


@every_family
def test_positions_are_those_that_the_model_can_use(family: str) -> None:
    lm = MaskedLm(hugging_face_model(family))
    assert lm.positions == POSITIONS == usable_positions(lm.config)
    longest = torch.full((1, POSITIONS), 7)
    lm(longest, torch.ones_like(longest, dtype=torch.bool))
    too_long = torch.full((1, POSITIONS + 1), 7)
    with pytest.raises((IndexError, RuntimeError)):
        lm(too_long, torch.ones_like(too_long, dtype=torch.bool))


@every_family
def test_a_configuration_survives_as_json(family: str) -> None:
    original = config(family)
    set_dropout(original, 0.3, 0.2)
    text = config_to_json(original)
    assert "\n" not in text
    read = config_from_json(text)
    assert type(read) is type(original)
    assert read.to_diff_dict() == original.to_diff_dict()
    assert config_to_json(read) == text


@every_family
def test_dropout_reaches_every_dropout_of_the_model(family: str) -> None:
    made = config(family)
    set_dropout(made, 0.25, 0.125)
    lm = random_masked_lm(made)
    rates = {module.p for module in lm.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates <= {0.25, 0.125}
    assert 0.25 in rates
    assert lm.training
    tokens, real = batch()
    assert not torch.equal(lm(tokens, real), lm(tokens, real))
    set_dropout(made, 0.0, 0.0)
    certain = random_masked_lm(made)
    assert torch.equal(certain(tokens, real), certain(tokens, real))


@every_family
def test_the_shape_is_what_was_asked_for(family: str) -> None:
    lm = random_masked_lm(config(family))
    assert lm.weight.shape == (VOCABULARY, 16)
    layers = {name.split("layer.")[1].split(".")[0] for name, _ in lm.named_parameters() if "layer." in name}
    assert layers == {"0", "1"}
    made = config(family)
    assert (made.bos_token_id, made.pad_token_id, made.eos_token_id) == (0, 1, 2)

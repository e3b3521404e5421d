import argparse
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fairseq.models import build_model
from omegaconf import OmegaConf
from torch import Tensor

from nat_plugin.ctc import ctc_loss
from nat_plugin.models.ctc_pmlm import CtcOutput, CtcPmlmConfig
from nat_plugin.models.masked_lm import MODEL_TYPES, random_masked_lm
from plugin_common.errors import UserError

BOS, PAD, EOS = 0, 1, 2
NewModel = Callable[..., tuple[Any, Any]]
every_family = pytest.mark.parametrize("family", MODEL_TYPES)


def batch(*lengths: int, width: int | None = None, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Sources of these many tokens, each followed by ``</s>`` and padding."""
    torch.manual_seed(seed)
    rows = [torch.randint(4, 60, (length,)) for length in lengths]
    tokens = torch.full((len(rows), width or max(lengths) + 1), PAD)
    for row, words in zip(tokens, rows, strict=True):
        row[: len(words)] = words
        row[len(words)] = EOS
    return tokens, torch.tensor(lengths) + 1


def spread_out(model: Any) -> Any:
    """The model in float64 with larger weights, so that what should have no influence would show."""
    torch.manual_seed(6)
    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def loss_of(model: Any, output: CtcOutput, targets: Tensor, target_lengths: Tensor) -> Tensor:
    return ctc_loss(
        output.hidden, output.weight, output.bias, targets, output.lengths, target_lengths, blank=model.blank
    )[0]


def listen(model: Any) -> list[dict[str, Tensor]]:
    """What the LM gets to read, pass by pass."""
    heard: list[dict[str, Tensor]] = []
    body = model.masked_lm.lm.base_model
    body.register_forward_pre_hook(lambda module, inputs, named: heard.append(named), with_kwargs=True)
    return heard


# ---- what goes in and what comes out --------------------------------------------------------------------------------


def test_shapes_and_lengths(new_model: NewModel) -> None:
    model, _ = new_model(upsample_ratio=2.5)
    output = model(*batch(4, 0, 3))
    assert output.lengths.tolist() == [10, 0, 8]
    assert output.hidden.shape == (3, 10, 32)
    assert output.weight.shape == (65, 32)
    assert output.bias.shape == (65,)
    assert (int(output.lowered), int(output.truncated)) == (0, 0)


def test_the_lm_reads_bos_and_the_up_sampled_source_without_eos(new_model: NewModel) -> None:
    model, task = new_model()
    mask = task.src_dict.index("<mask>")
    seen = listen(model)
    tokens, lengths = batch(3, 1)
    model(tokens, lengths)
    a, b, c = tokens[0, :3].tolist()
    d = int(tokens[1, 0])
    read, real = seen[0]["input_ids"], seen[0]["attention_mask"].bool()
    assert read.tolist() == [[BOS, a, mask, b, mask, c, mask], [BOS, d, mask, PAD, PAD, PAD, PAD]]
    assert torch.equal(real, read != PAD)


def test_token_duplication_and_placement_are_options(new_model: NewModel) -> None:
    for options, expected in (
        ({"upsampler": "token_duplication"}, "aabb"),
        ({"mask_placement": "right"}, "ab__"),
        ({"mask_placement": "left"}, "__ab"),
    ):
        model, task = new_model(**options)
        seen = listen(model)
        tokens, lengths = batch(2)
        model(tokens, lengths)
        names = {"a": int(tokens[0, 0]), "b": int(tokens[0, 1]), "_": task.src_dict.index("<mask>")}
        assert seen[0]["input_ids"].tolist() == [[BOS, *(names[letter] for letter in expected)]]


def test_probabilities_are_those_of_the_logits(new_model: NewModel) -> None:
    model, _ = new_model()
    output = model(*batch(4, 2))
    logits = model.logits(output)
    assert logits.shape == (2, 8, 65)
    log_probs = model.get_normalized_probs(output, log_probs=True)
    torch.testing.assert_close(log_probs, logits.log_softmax(-1))
    torch.testing.assert_close(model.get_normalized_probs(output, log_probs=False).sum(-1), torch.ones(2, 8))


def test_the_blank_is_a_symbol_of_the_dictionary(new_model: NewModel) -> None:
    assert new_model()[0].blank == BOS
    model, task = new_model(blank_symbol="<mask>")
    assert model.blank == task.tgt_dict.index("<mask>") == 64


@pytest.mark.parametrize("upsampler", ["mask_insertion", "token_duplication"])
def test_all_sources_empty(new_model: NewModel, upsampler: str) -> None:
    model, _ = new_model(upsampler=upsampler)
    output = model(*batch(0, 0))
    assert output.hidden.shape == (2, 0, 32)
    assert output.lengths.tolist() == [0, 0]
    assert model.get_normalized_probs(output, log_probs=True).shape == (2, 0, 65)


# ---- positions that run out -----------------------------------------------------------------------------------------


@every_family
@pytest.mark.parametrize("upsampler", ["mask_insertion", "token_duplication"])
def test_the_ratio_gives_way_to_the_positions_and_then_the_source(
    new_model: NewModel, family: str, upsampler: str
) -> None:
    model, _ = new_model(pmlm_type=family, encoder_positions=21, upsampler=upsampler)
    assert model.max_upsampled == 20
    output = model(*batch(10, 11, 20, 21, 33))
    assert output.lengths.tolist() == [20] * 5
    assert int(output.lowered) == 4, "all but the first have less than twice their length"
    assert int(output.truncated) == 2, "21 and 33 tokens do not fit at all"


def test_a_cut_source_is_read_from_its_beginning(new_model: NewModel) -> None:
    model, _ = new_model(encoder_positions=11)
    tokens, lengths = batch(30)
    cut = torch.cat([tokens[:, :10], torch.full((1, 1), EOS)], dim=1)
    assert torch.equal(model(tokens, lengths).hidden, model(cut, torch.tensor([11])).hidden)


# ---- padding changes nothing ----------------------------------------------------------------------------------------


@every_family
@pytest.mark.parametrize("upsampler", ["mask_insertion", "token_duplication"])
@pytest.mark.parametrize("blank", ["<s>", "<mask>"])
def test_output_loss_and_gradient_do_not_depend_on_padding_or_company(
    new_model: NewModel, family: str, upsampler: str, blank: str
) -> None:
    model = spread_out(new_model(pmlm_type=family, upsampler=upsampler, blank_symbol=blank, upsample_ratio=1.5)[0])
    company, lengths = batch(5, 9, 0, 2, width=25)
    targets = torch.randint(4, 60, (4, 7), generator=torch.Generator().manual_seed(1))
    target_lengths = torch.tensor([5, 7, 0, 2])
    together = model(company, lengths)
    losses = loss_of(model, together, targets, target_lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = model(company[row : row + 1, :length], lengths[row : row + 1])
        real = int(alone.lengths)
        torch.testing.assert_close(together.hidden[row, :real], alone.hidden[0, :real], rtol=0, atol=1e-12)
        n = int(target_lengths[row])
        loss = loss_of(model, alone, targets[row : row + 1, :n], target_lengths[row : row + 1])[0]
        torch.testing.assert_close(losses[row], loss, rtol=1e-12, atol=1e-12)

    def gradients(padding: int, extra: int) -> list[Tensor]:
        wide = torch.cat([company, torch.full((4, padding), PAD)], dim=1)[:, : int(lengths.max()) + padding]
        output = model(wide, lengths)
        padded_targets = torch.cat([targets, torch.full((4, extra), 33)], dim=1)
        model.zero_grad()
        loss_of(model, output, padded_targets, target_lengths).sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    for one, other in zip(gradients(0, 0), gradients(6, 3), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_the_sum_over_sentences_has_the_sum_of_the_gradients(new_model: NewModel) -> None:
    model = spread_out(new_model()[0])
    tokens, lengths = batch(3, 6)
    targets, target_lengths = torch.randint(4, 60, (2, 4)), torch.tensor([4, 2])

    def gradient(rows: slice) -> Tensor:
        model.zero_grad()
        loss_of(model, model(tokens[rows], lengths[rows]), targets[rows], target_lengths[rows]).sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    torch.testing.assert_close(
        gradient(slice(0, 2)), gradient(slice(0, 1)) + gradient(slice(1, 2)), rtol=1e-11, atol=1e-11
    )


@every_family
def test_every_parameter_has_a_gradient_also_when_all_targets_are_infeasible(new_model: NewModel, family: str) -> None:
    model, _ = new_model(pmlm_type=family)
    output = model(*batch(2, 1))
    loss_of(model, output, torch.full((2, 9), 7), torch.tensor([9, 9])).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not any(bool(parameter.grad.any()) for parameter in model.parameters())


# ---- building -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [47.5, 100.0])
def test_a_ratio_that_not_even_one_token_can_have_names_the_limit(new_model: NewModel, ratio: float) -> None:
    with pytest.raises(UserError, match=rf"--upsample-ratio {ratio} is too large: .* 47 positions .* give at most 47"):
        new_model(upsample_ratio=ratio)


def test_the_largest_ratio(new_model: NewModel) -> None:
    model, _ = new_model(upsample_ratio=47.0)
    output = model(*batch(1, 2))
    assert output.lengths.tolist() == [47, 47]
    assert int(output.lowered) == 1


@pytest.mark.parametrize("ratio", [0.5, float("nan")])
def test_a_ratio_under_one_or_no_number(new_model: NewModel, ratio: float) -> None:
    with pytest.raises(UserError, match=rf"^--upsample-ratio {ratio}: .* at least 1"):
        new_model(upsample_ratio=ratio)


def test_other_tasks_are_sent_to_ctc_nat(new_model: NewModel) -> None:
    model, task = new_model()
    other = argparse.Namespace(target_dictionary=task.target_dictionary)
    with pytest.raises(UserError, match="add --task ctc_nat"):
        build_model(model.cfg, other)


def test_a_checkpoint_from_before_a_new_option_takes_its_default(new_model: NewModel) -> None:
    model, task = new_model(blank_symbol="<mask>")
    settings: Any = OmegaConf.to_container(model.cfg, enum_to_str=True)
    old = OmegaConf.create({"_name": "ctc_pmlm", **settings})
    del old["upsample_ratio"]
    old["option_of_the_past"] = 3
    rebuilt = task.build_model(old, from_checkpoint=True)
    assert rebuilt.cfg.upsample_ratio == CtcPmlmConfig.upsample_ratio
    assert rebuilt.blank == model.blank
    rebuilt.load_state_dict(model.state_dict(), strict=True)


def test_no_sentence_is_filtered_by_its_length(new_model: NewModel) -> None:
    assert new_model()[0].max_positions() is None


def test_dropout_options_reach_the_model(new_model: NewModel) -> None:
    model, _ = new_model(dropout=0.3, attention_dropout=0.2)
    assert model.masked_lm.config.hidden_dropout_prob == 0.3
    assert model.masked_lm.config.attention_probs_dropout_prob == 0.2
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.3, 0.2}


# ---- the paper's training options -----------------------------------------------------------------------------------


@every_family
def test_random_positions_start_anywhere_that_leaves_room_in_training_only(new_model: NewModel, family: str) -> None:
    model, _ = new_model(pmlm_type=family, encoder_positions=21, random_positions=True)
    offset = 2 if family in ("xlm-roberta", "roberta") else 0
    heard = listen(model)
    source = batch(*[4] * 300, 10, 9)
    model.train()(*source)
    ids, real = heard[0]["position_ids"], heard[0]["attention_mask"].bool()
    assert (ids[:, 1:] - ids[:, :-1])[real[:, 1:]].eq(1).all(), "positions follow each other"
    assert set(ids[:300, 0].tolist()) == set(range(offset, offset + 13)), "9 of 21 positions are used: 13 starts"
    assert ids[300].tolist() == list(range(offset, offset + 21)), "no room to move"
    assert ids.max() == offset + 20
    model.eval()(*source)
    assert heard[1]["position_ids"] is None


@every_family
def test_positions_from_0_are_the_models_own(new_model: NewModel, family: str) -> None:
    model = spread_out(new_model(pmlm_type=family)[0])
    tokens, real = (
        torch.tensor([[BOS, 5, 6, 7], [BOS, 8, PAD, PAD]]),
        torch.tensor([[True] * 4, [True] * 2 + [False] * 2]),
    )
    as_ever = model.masked_lm.states(tokens, real)
    given = model.masked_lm.states(tokens, real, torch.tensor([0, 0]))
    torch.testing.assert_close(given[real], as_ever[real], rtol=0, atol=0)
    moved = model.masked_lm.states(tokens, real, torch.tensor([3, 0]))
    assert not torch.allclose(moved[0], as_ever[0])
    torch.testing.assert_close(moved[1, :2], as_ever[1, :2], rtol=0, atol=1e-12)


def trained_parameters(model: Any) -> set[str]:
    """What one step of training changes."""
    tokens, lengths = batch(4, 3)
    loss_of(model.train(), model(tokens, lengths), tokens[:, :2], torch.tensor([2, 2])).sum().backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


@every_family
def test_frozen_parts_get_no_gradient(new_model: NewModel, family: str) -> None:
    everything = trained_parameters(new_model(pmlm_type=family)[0])
    without_embeddings = trained_parameters(new_model(pmlm_type=family, freeze_embeddings=True)[0])
    assert {name for name in everything if ".embeddings." in name} == everything - without_embeddings
    without_head = everything - trained_parameters(new_model(pmlm_type=family, freeze_lm_head=True)[0])
    assert {name for name in without_head if ".embeddings." in name} == {
        name for name in everything if "word_embeddings.weight" in name
    }, "the projection is tied to the token embeddings"
    assert not any("layer." in name for name in without_head)
    assert len(without_head) == 6, "embeddings, bias, dense and norm with weight and bias each"


@every_family
def test_an_untied_projection_is_frozen_with_the_head_alone(new_model: NewModel, family: str) -> None:
    model, _ = new_model(pmlm_type=family)
    config = model.masked_lm.config
    config.tie_word_embeddings = False
    lm = random_masked_lm(config)
    assert not lm.tied
    head = {id(parameter) for parameter in lm.head_parameters}
    assert id(lm.weight) in head
    assert id(lm.bias) in head
    assert not head & {id(parameter) for parameter in lm.embeddings.parameters()}


@every_family
def test_a_width_known_beforehand_changes_no_state(new_model: NewModel, family: str) -> None:
    model = spread_out(new_model(pmlm_type=family)[0])
    tokens, lengths = batch(7, 0, 12, 3, width=16)
    with torch.no_grad():
        tight, wide = model(tokens, lengths), model(tokens, lengths, width=model.width_for(16))
    assert wide.hidden.size(1) == 32
    assert wide.lengths.tolist() == tight.lengths.tolist()
    for row, length in enumerate(tight.lengths.tolist()):
        torch.testing.assert_close(wide.hidden[row, :length], tight.hidden[row, :length], rtol=1e-9, atol=1e-9)
    assert model.width_for(1000) == model.max_upsampled

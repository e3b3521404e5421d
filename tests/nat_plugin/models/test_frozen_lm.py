import copy

import pytest
import torch

from nat_plugin.models.frozen_lm import FrozenLm, looks_untrained
from nat_plugin.models.masked_lm import MODEL_TYPES, MaskedLm, random_masked_lm, shape_config

BOS, PAD, EOS = 0, 1, 2
every_family = pytest.mark.parametrize("family", MODEL_TYPES)


def made(family: str, positions: int = 12) -> MaskedLm:
    torch.manual_seed(3)
    shape = {"layers": 3, "dim": 16, "ffn_dim": 24, "heads": 2}
    lm = random_masked_lm(shape_config(family, vocab_size=30, positions=positions, **shape))
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return lm


def frozen(lm: MaskedLm, layer: int | None) -> FrozenLm:
    return FrozenLm.copy_of(lm, layer=layer, bos=BOS, eos=EOS, pad=PAD)


TOKENS = torch.tensor([[5, 6, 7], [8, 9, 9], [4, 4, 4]])
LENGTHS = torch.tensor([3, 1, 0])


@every_family
@pytest.mark.parametrize("layer", [0, 1, 3, None])
def test_states_are_the_hugging_face_models_own(family: str, layer: int | None) -> None:
    lm = made(family).eval()
    reading = frozen(lm, layer).read(TOKENS, LENGTHS, torch.zeros(1))
    for row, length in enumerate(LENGTHS.tolist()):
        sentence = torch.tensor([[BOS, *TOKENS[row, :length].tolist(), EOS]])
        with torch.no_grad():
            if layer is None:
                expected = lm(sentence, torch.ones_like(sentence, dtype=torch.bool))
            else:
                expected = lm.lm.base_model(input_ids=sentence, output_hidden_states=True).hidden_states[layer]
        torch.testing.assert_close(reading.states[row, :length], expected[0, 1 : 1 + length], rtol=1e-5, atol=1e-5)


def test_it_is_frozen_and_no_module() -> None:
    lm = made("bert").train()
    teacher = frozen(lm, 3)
    assert not isinstance(teacher, torch.nn.Module)
    before = copy.deepcopy(teacher.masked_lm.state_dict())
    reading = teacher.read(TOKENS, LENGTHS, torch.zeros(1))
    assert torch.equal(reading.states, teacher.read(TOKENS, LENGTHS, torch.zeros(1)).states), "no dropout"
    assert not reading.states.requires_grad
    student = torch.ones_like(reading.states, requires_grad=True)
    (student * reading.states).sum().backward()  # an inference tensor could not be saved for this
    assert torch.equal(student.grad, reading.states)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.add_(1)
    assert all(torch.equal(before[name], value) for name, value in teacher.masked_lm.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_it_follows_the_students_precision(dtype: torch.dtype) -> None:
    teacher = frozen(made("xlm-roberta"), 3)
    reading = teacher.read(TOKENS, LENGTHS, torch.zeros(1, dtype=dtype))
    assert reading.states.dtype == teacher.weight.dtype == dtype


def test_layers_above_the_chosen_one_are_dropped() -> None:
    assert [len(frozen(made("distilbert"), layer).masked_lm.layers) for layer in (0, 2, None)] == [0, 2, 3]


@every_family
def test_targets_longer_than_its_positions_are_read_as_far_as_they_go(family: str) -> None:
    teacher = frozen(made(family, positions=6), 3)
    tokens = torch.randint(4, 30, (2, 9))
    reading = teacher.read(tokens, torch.tensor([9, 3]), torch.zeros(1))
    assert reading.lengths.tolist() == [4, 3]
    assert reading.states.shape == (2, 4, 16)
    short = teacher.read(tokens[:, :4], torch.tensor([4, 3]), torch.zeros(1))
    assert torch.equal(reading.states, short.states)


def test_batches_without_tokens() -> None:
    teacher = frozen(made("roberta"), 3)
    assert teacher.read(TOKENS[:, :0], LENGTHS * 0, torch.zeros(1)).states.shape == (3, 0, 16)


@every_family
def test_random_weights_are_recognised(family: str) -> None:
    lm = random_masked_lm(shape_config(family, vocab_size=30, layers=1, dim=16, ffn_dim=24, heads=2, positions=9))
    assert looks_untrained(lm)
    with torch.no_grad():
        next(m for m in lm.modules() if isinstance(m, torch.nn.LayerNorm)).bias[0] += 0.01
    assert not looks_untrained(lm)

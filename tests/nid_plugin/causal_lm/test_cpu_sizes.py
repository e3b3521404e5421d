import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nid_plugin.causal_lm.cpu_sizes import fill_up, rounded_up
from nid_plugin.causal_lm.lm import CausalLm
from plugin_common import compat

compat.hide_broken_torchaudio()

from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402


@given(st.integers(0, 1 << 20))
def test_rounding_adds_little_and_once(size):
    rounded = rounded_up(size)
    assert size <= rounded <= size * 17 / 16
    assert rounded_up(rounded) == rounded
    if size <= 32:
        assert rounded == size


def test_sixteen_sizes_an_octave():
    for octave in (64, 512, 4096):
        assert len({rounded_up(size) for size in range(octave + 1, 2 * octave + 1)}) == 16
    assert [rounded_up(size) for size in (33, 257, 500, 2048, 2049)] == [34, 272, 512, 2048, 2176]


def test_the_documents_stay():
    tokens, positions = torch.arange(100, 171), torch.cat([torch.arange(40), torch.arange(31)])
    more_tokens, more_positions, lengths = fill_up(tokens, positions, [40, 31])
    assert lengths == [40, 31, 1]
    assert torch.equal(more_tokens, torch.cat([tokens, torch.zeros(1, dtype=torch.int64)]))
    assert torch.equal(more_positions, torch.cat([positions, torch.zeros(1, dtype=torch.int64)]))
    full = torch.arange(72)
    assert fill_up(full, full, [72])[0] is full


def test_what_is_filled_in_has_no_position_that_the_documents_lack():
    places = torch.arange(3).repeat(44)
    _, positions, lengths = fill_up(torch.zeros(132, dtype=torch.int64), places, [3] * 44)
    assert lengths[-1] == 4 and torch.equal(positions, torch.cat([places, torch.zeros(4, dtype=torch.int64)]))


@pytest.mark.parametrize("tied", [True, False])
def test_nothing_sees_what_is_filled_in(tied):
    torch.manual_seed(0)
    lm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=67, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=tied,
        )
    ).double()  # fmt: skip
    lengths = [40, 29]
    tokens, places = torch.randint(1, 67, (69,)), torch.arange(69)
    positions = torch.cat([torch.arange(length) for length in lengths])
    assert rounded_up(69) == 72

    def outcome(read):
        states = read()
        gradients = torch.autograd.grad(states.square().sum(), list(lm.parameters()), allow_unused=True)
        return states, [gradient for gradient in gradients if gradient is not None]

    def alone():
        parts = tokens.split(lengths)
        return torch.cat([lm.model(input_ids=part[None]).last_hidden_state[0] for part in parts])

    expected = outcome(alone)
    model = CausalLm(lm, "packed")
    given = outcome(lambda: model(tokens, positions, lengths, places).hidden)
    assert given[0].shape == (69, 32)
    torch.testing.assert_close(given, expected, rtol=1e-9, atol=1e-10)

import pytest
import torch
from torch import nn

from nid_plugin.causal_lm import tied_embedding
from nid_plugin.causal_lm.lm import CausalLm
from nid_plugin.causal_lm.loss import completion_loss
from plugin_common import compat

compat.hide_broken_torchaudio()

from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

V, D = 11, 6
TOKENS = torch.tensor([3, 1, 3, 0, 7])
LABELS = torch.tensor([1, 3, 0, 7, 2])


def embeddings(padding=None):
    torch.manual_seed(0)
    return nn.Embedding(V, D, padding_idx=padding, dtype=torch.float64)


@pytest.mark.parametrize("padding", [None, 1])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk_rows", [None, 2])
def test_the_gradient_is_that_of_one_tensor_used_twice(padding, smoothing, chunk_rows):
    layer = embeddings(padding)

    def gradient(for_lookup, weight, look):
        hidden = torch.tanh(look(for_lookup))
        loss = completion_loss(hidden, weight, None, LABELS, label_smoothing=smoothing, chunk_rows=chunk_rows).loss
        return torch.autograd.grad(loss, layer.weight)[0]

    expected = gradient(layer.weight, layer.weight, lambda _: layer(TOKENS))
    uses = tied_embedding.both_uses(layer.weight)
    given = gradient(*uses, lambda weight: tied_embedding.lookup(layer, weight, TOKENS))
    assert not given.is_sparse
    torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-14)


def test_it_is_added_where_the_projections_gradient_lies():
    layer = embeddings()
    for_lookup, for_projection = tied_embedding.both_uses(layer.weight)
    places = []
    for_projection.register_hook(lambda gradient: places.append(gradient.data_ptr()))
    hidden = tied_embedding.lookup(layer, for_lookup, TOKENS)
    completion_loss(hidden * 1.0, for_projection, None, LABELS, chunk_rows=2).loss.backward()
    assert places == [layer.weight.grad.data_ptr()]
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("used", ["lookup", "projection", "a mean"])
def test_one_use_alone(used):
    layer = embeddings()
    for_lookup, for_projection = tied_embedding.both_uses(layer.weight)
    rows = tied_embedding.lookup(layer, for_lookup, TOKENS).sum()
    total = {"lookup": rows, "projection": for_projection.square().sum(), "a mean": rows + for_projection.mean()}[used]
    (given,) = torch.autograd.grad(total, layer.weight)
    counts = torch.bincount(TOKENS, minlength=V).double()[:, None].expand(V, D)
    expected = {"lookup": counts, "projection": 2 * layer.weight, "a mean": counts + 1 / (V * D)}[used]
    torch.testing.assert_close(given, expected.detach())


def tied_lm(**settings):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=67, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, **settings,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def test_which_models():
    lm = tied_lm()
    assert tied_embedding.is_trained_on_cpu(lm)
    with torch.no_grad():
        assert not tied_embedding.is_trained_on_cpu(lm)
    lm.requires_grad_(False)
    assert not tied_embedding.is_trained_on_cpu(lm)
    lm = tied_lm()
    lm.lm_head = nn.Linear(32, 67, bias=False)
    assert not tied_embedding.is_trained_on_cpu(lm)
    lm = tied_lm()
    lm.get_input_embeddings().register_forward_hook(lambda *_: None)
    assert not tied_embedding.is_trained_on_cpu(lm)
    lm = tied_lm()
    lm.get_input_embeddings().scale_grad_by_freq = True
    assert not tied_embedding.is_trained_on_cpu(lm)


def test_a_whole_models_gradients_are_transformers_own():
    lm = tied_lm().double()
    tokens = torch.randint(0, 67, (13,))
    logits = lm(input_ids=tokens[None]).logits[0, :-1]
    nn.functional.cross_entropy(logits, tokens[1:]).backward()  # transformers' own loss rounds to float32
    expected = {name: parameter.grad.clone() for name, parameter in lm.named_parameters()}
    lm.zero_grad()
    model = CausalLm(lm, "sdpa")
    output = model(tokens, torch.arange(13), [13], torch.arange(12))
    (completion_loss(output.hidden, output.weight, output.bias, tokens[1:]).loss / 12).backward()
    for name, parameter in lm.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-9, atol=1e-12, msg=name)

import pytest
import torch
import torch.nn.functional as F

from nid_plugin.causal_lm.cpu_functions import linear_layer, lora_layer, rms_norm, silu_product


def normal(*size, dtype=torch.float64, seed=0, grad=True):
    values = torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(dtype).requires_grad_(grad)


def plain_rms_norm(states, weight, eps):
    return weight * states / (states.square().mean(dim=-1, keepdim=True) + eps).sqrt()


def plain_lora(states, weight, bias, a, b, scale):
    return F.linear(states, weight, bias) + scale * F.linear(F.linear(states, a), b)


CASES = {
    "rms_norm": (rms_norm, plain_rms_norm, [(2, 5, 6), (6,)], (1e-2,)),
    "silu_product": (silu_product, lambda gate, up: F.silu(gate) * up, [(2, 5, 6), (2, 5, 6)], ()),
    "linear": (linear_layer, F.linear, [(2, 5, 6), (7, 6), (7,)], ()),
    "linear without bias": (lambda x, w: linear_layer(x, w, None), F.linear, [(5, 6), (7, 6)], ()),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_formula(name):
    ours, plain, shapes, rest = CASES[name]
    inputs = [normal(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    given, expected = ours(*inputs, *rest), plain(*inputs, *rest)
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-12)
    upstream = normal(*expected.shape, seed=9, grad=False)
    for mine, theirs in zip(
        torch.autograd.grad(given, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("frozen", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("name", ["rms_norm", "linear without bias"])
def test_only_what_needs_a_gradient_gets_one(name, frozen):
    ours, plain, shapes, rest = CASES[name]
    inputs = [normal(*shape, seed=seed, grad=seed not in frozen) for seed, shape in enumerate(shapes)]
    trained = [part for part in inputs if part.requires_grad]
    given = ours(*inputs, *rest)
    assert given.requires_grad == bool(trained)
    if trained:
        expected = torch.autograd.grad(plain(*inputs, *rest).sum(), trained)
        for mine, theirs in zip(torch.autograd.grad(given.sum(), trained), expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("states_need_grad", [True, False])
def test_lora(with_bias, states_need_grad):
    states = normal(2, 5, 6, grad=states_need_grad)
    weight, a, b = normal(7, 6, seed=1, grad=False), normal(3, 6, seed=2), normal(7, 3, seed=3)
    bias = normal(7, seed=4, grad=False) if with_bias else None
    trained = [a, b, *([states] if states_need_grad else [])]
    given, expected = (way(states, weight, bias, a, b, 0.5) for way in (lora_layer, plain_lora))
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-12)
    upstream = normal(*expected.shape, seed=9, grad=False)
    for mine, theirs in zip(
        torch.autograd.grad(given, trained, upstream), torch.autograd.grad(expected, trained, upstream), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-11)


def test_products_large_enough_for_the_other_library():
    states, weight, bias = (
        normal(*size, seed=n, dtype=torch.float32) for n, size in enumerate([(300, 200), (400, 200), (400,)])
    )
    exact = [part.detach().double().requires_grad_() for part in (states, weight, bias)]
    upstream = normal(300, 400, dtype=torch.float32, grad=False)
    given = torch.autograd.grad(linear_layer(states, weight, bias), (states, weight, bias), upstream)
    expected = torch.autograd.grad(F.linear(*exact), exact, upstream.double())
    for mine, theirs in zip(given, expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def test_a_gradient_that_is_no_contiguous_memory():
    states, weight = normal(4, 6), normal(7, 6, seed=1)
    given = torch.autograd.grad(linear_layer(states, weight, None).sum(), (states, weight))
    expected = torch.autograd.grad(F.linear(states, weight).sum(), (states, weight))
    for mine, theirs in zip(given, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_bfloat16_is_rounded_once():
    states, weight = normal(40, 64, dtype=torch.bfloat16), normal(64, dtype=torch.bfloat16, seed=1)
    exact = [part.detach().double().requires_grad_() for part in (states, weight)]
    upstream = normal(40, 64, dtype=torch.bfloat16, grad=False)
    given, expected = rms_norm(states, weight, 1e-5), plain_rms_norm(*exact, 1e-5)
    unit = torch.finfo(torch.bfloat16).eps
    torch.testing.assert_close(given.double(), expected, rtol=unit, atol=0)
    for mine, theirs in zip(
        torch.autograd.grad(given, (states, weight), upstream),
        torch.autograd.grad(expected, exact, upstream.double()),
        strict=True,
    ):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.double(), theirs, rtol=unit, atol=1e-5)

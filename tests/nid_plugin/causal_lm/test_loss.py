"""The completion loss against the plain formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nid_plugin.causal_lm.loss import completion_loss, loss_of_logits


def _case(
    labels: int = 13, symbols: int = 29, width: int = 7, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(labels, width, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(symbols, width, generator=generator, dtype=dtype).requires_grad_()
    bias = torch.randn(symbols, generator=generator, dtype=dtype).requires_grad_()
    return hidden, weight, bias, torch.randint(symbols, (labels,), generator=generator)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk_rows", [None, 4, -1])
def test_is_torchs_cross_entropy_with_its_gradients(smoothing: float, with_bias: bool, chunk_rows: int | None) -> None:
    hidden, weight, bias, labels = _case()
    inputs = [hidden, weight, bias] if with_bias else [hidden, weight]
    given = bias if with_bias else None
    logits = F.linear(hidden, weight, given)
    expected = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    got = completion_loss(hidden, weight, given, labels, label_smoothing=smoothing, chunk_rows=chunk_rows)
    torch.testing.assert_close(got.loss, expected)
    torch.testing.assert_close(got.nll, F.cross_entropy(logits, labels, reduction="sum").detach())
    for mine, theirs in zip(torch.autograd.grad(got.loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_from_logits_it_is_the_same(smoothing: float) -> None:
    hidden, weight, bias, labels = _case()
    one = completion_loss(hidden, weight, bias, labels, label_smoothing=smoothing)
    other = loss_of_logits(F.linear(hidden, weight, bias), labels, label_smoothing=smoothing)
    torch.testing.assert_close(one.loss, other.loss)
    torch.testing.assert_close(one.nll, other.nll)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_no_label_is_no_loss_and_no_gradient(smoothing: float) -> None:
    hidden, weight, bias, labels = _case(labels=0)
    got = completion_loss(hidden, weight, bias, labels, label_smoothing=smoothing)
    assert got.loss.item() == 0.0
    (gradient,) = torch.autograd.grad(got.loss, [weight])
    assert not gradient.any()


def test_bfloat16_sums_are_taken_in_float32() -> None:
    hidden, weight, _, labels = _case(labels=400, dtype=torch.bfloat16)
    got = completion_loss(hidden, weight, None, labels, label_smoothing=0.1)
    assert got.loss.dtype == torch.float32
    logits = F.linear(hidden, weight).float()
    expected = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(got.loss, expected, rtol=2e-3, atol=0.0)

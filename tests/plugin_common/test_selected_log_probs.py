"""selected_log_probs against log_softmax + gather, in value and in every gradient."""

import pytest
import torch

from plugin_common.selected_log_probs import selected_log_probs


def make(n, d, v, k, dtype=torch.float64, bias=True, seed=0):
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, d, generator=g, dtype=dtype, requires_grad=True)
    weight = torch.randn(v, d, generator=g, dtype=dtype, requires_grad=True)
    b = torch.randn(v, generator=g, dtype=dtype, requires_grad=True) if bias else None
    index = torch.randint(0, v, (n, k), generator=g)
    return hidden, weight, b, index


def reference(hidden, weight, bias, index):
    logits = hidden @ weight.t()
    return (logits if bias is None else logits + bias).log_softmax(dim=1).gather(1, index)


@pytest.mark.parametrize("chunk_rows", [None, 1, 4, 100])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("n", "k"), [(11, 3), (1, 1), (0, 2), (5, 0)])
def test_value_and_gradients_are_those_of_the_dense_log_softmax(chunk_rows, bias, n, k):
    leaves = make(n, 7, 19, k, bias=bias)
    index = leaves[3]
    if index.size(1) > 1 and n:
        index[0, 1] = index[0, 0]  # a label twice in a row: both gradients must arrive
    ours = selected_log_probs(*leaves, chunk_rows=chunk_rows)
    dense = reference(*leaves)
    torch.testing.assert_close(ours, dense, rtol=0, atol=1e-12)
    upstream = torch.randn_like(dense)
    inputs = [t for t in leaves[:3] if t is not None]
    for mine, theirs in zip(
        torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(dense, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-11)


def test_tied_weight_gets_both_gradients():
    _, weight, bias, index = make(6, 5, 8, 2)
    tokens = torch.tensor([1, 2, 3, 1, 0, 7])
    ours = selected_log_probs(weight[tokens], weight, bias, index).sum()
    dense = reference(weight[tokens], weight, bias, index).sum()
    torch.testing.assert_close(*(torch.autograd.grad(x, weight)[0] for x in (ours, dense)), rtol=0, atol=1e-11)


@pytest.mark.parametrize("chunk_rows", [None, 3])
def test_bf16_inputs_give_fp32_results_near_the_exact_ones(chunk_rows):
    hidden, weight, bias, index = make(9, 16, 50, 2, dtype=torch.bfloat16)
    ours = selected_log_probs(hidden, weight, bias, index, chunk_rows=chunk_rows)
    assert ours.dtype == torch.float32
    logits = torch.addmm(bias, hidden, weight.t()).float()  # the rounding of the matmul is not ours
    torch.testing.assert_close(ours, logits.log_softmax(1).gather(1, index), rtol=0, atol=1e-5)
    ours.sum().backward()
    assert all(torch.isfinite(t.grad).all() and t.grad.dtype == torch.bfloat16 for t in (hidden, weight, bias))


def test_autocast_lowers_the_matmul_only():
    hidden, weight, bias, index = make(9, 16, 50, 2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = selected_log_probs(hidden, weight, bias, index)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, reference(hidden, weight, bias, index), rtol=0, atol=0.08)
    ours.sum().backward()
    assert hidden.grad.dtype == torch.float32


def test_blocks_smaller_than_the_input_change_nothing(monkeypatch):
    from plugin_common import selected_log_probs as module

    leaves = make(23, 4, 31, 2)
    whole = selected_log_probs(*leaves)
    expected = torch.autograd.grad(whole.sum(), leaves[:3])
    monkeypatch.setitem(module._BLOCK_ELEMENTS, "cpu", 70)  # two rows a block, the last one ragged
    blocked = selected_log_probs(*leaves)
    torch.testing.assert_close(blocked, whole, rtol=0, atol=1e-13)
    for mine, theirs in zip(torch.autograd.grad(blocked.sum(), leaves[:3]), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_a_second_backward_is_refused_not_wrong():
    leaves = make(3, 4, 5, 1)
    total = selected_log_probs(*leaves).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="chunk_rows"):
        total.backward()


def test_misfitting_shapes_are_named():
    hidden, weight, bias, index = make(3, 4, 5, 1)
    with pytest.raises(ValueError, match="index"):
        selected_log_probs(hidden, weight, bias, index[:2])
    with pytest.raises(ValueError, match="weight"):
        selected_log_probs(hidden, weight[:, :2], bias, index)
    with pytest.raises(ValueError, match="bias"):
        selected_log_probs(hidden, weight, bias[:2], index)
    with pytest.raises(ValueError, match="chunk_rows"):
        selected_log_probs(hidden, weight, bias, index, chunk_rows=0)

"""selected_log_probs against log_softmax + gather, in value and in every gradient."""

import pytest
import torch
import torch.nn.functional as F

from plugin_common import selected_log_probs as module
from plugin_common.selected_log_probs import automatic_chunk_rows, default_chunk_rows, selected_log_probs

BOTH_WAYS = pytest.mark.parametrize("chunk_rows", [None, 4])


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


def assert_same_gradients(ours, dense, inputs, upstream, atol=1e-11):
    mine, theirs = (torch.autograd.grad(value, inputs, upstream) for value in (ours, dense))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize("equal_totals", [True, False])
@pytest.mark.parametrize("chunk_rows", [None, 1, 4, 100])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("n", "k"), [(11, 3), (1, 1), (0, 2), (5, 0)])
def test_value_and_gradients_are_those_of_the_dense_log_softmax(equal_totals, chunk_rows, bias, n, k):
    leaves = make(n, 7, 19, k, bias=bias)
    index = leaves[3]
    if index.size(1) > 1 and n:
        index[0, 1] = index[0, 0]  # a label twice in a row: both gradients must arrive
    ours = selected_log_probs(*leaves, chunk_rows=chunk_rows)
    dense = reference(*leaves)
    torch.testing.assert_close(ours, dense, rtol=0, atol=1e-12)
    upstream = -torch.rand_like(dense)
    if equal_totals:
        upstream /= upstream.sum(dim=1, keepdim=True)
    assert_same_gradients(ours, dense, [t for t in leaves[:3] if t is not None], upstream)


@pytest.mark.parametrize("odd", [[], [0], [2, 3, 9], list(range(6))])
def test_rows_whose_total_differs_are_put_right(odd, monkeypatch):
    leaves = make(11, 7, 19, 3)
    upstream = torch.rand(11, 3, dtype=torch.float64)
    upstream /= upstream.sum(dim=1, keepdim=True)
    for place, row in enumerate(odd):
        upstream[row] *= place  # the first one becomes 0
    recomputed = []
    compute = module._scaled_rest_
    monkeypatch.setattr(module, "_scaled_rest_", lambda z, *args: recomputed.append(len(z)) or compute(z, *args))
    ours = selected_log_probs(*leaves, chunk_rows=4)
    assert_same_gradients(ours, reference(*leaves), leaves[:3], upstream)
    # The second odd row (times 1) is none; nothing is computed twice but the odd ones.
    assert sum(recomputed) == len(odd) - (len(odd) > 1)


def test_a_loss_of_equal_totals_recomputes_nothing_in_fp32_either(monkeypatch):
    hidden, weight, bias, index = make(64, 16, 50, 30, dtype=torch.float32)
    monkeypatch.setattr(module, "_scaled_rest_", None)
    upstream = torch.rand(64, 30).pow(8)
    upstream = upstream / upstream.sum(dim=1, keepdim=True) * -1024.0
    ours = selected_log_probs(hidden, weight, bias, index, chunk_rows=10)
    ours.backward(upstream)
    exact = [t.detach().double().requires_grad_() for t in (hidden, weight, bias)]
    reference(*exact, index).backward(upstream.double())
    for mine, theirs in zip((hidden, weight, bias), exact, strict=True):
        torch.testing.assert_close(
            mine.grad.double(), theirs.grad, rtol=1e-5, atol=1e-5 * theirs.grad.abs().max().item()
        )


@BOTH_WAYS
@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
def test_only_what_needs_a_gradient_gets_one(frozen, chunk_rows):
    leaves = make(9, 5, 13, 2)
    for place in frozen:
        leaves[place].requires_grad_(False)
    inputs = [t for t in leaves[:3] if t.requires_grad]
    upstream = torch.rand(9, 2, dtype=torch.float64)
    assert_same_gradients(selected_log_probs(*leaves, chunk_rows=chunk_rows), reference(*leaves), inputs, upstream)


@BOTH_WAYS
def test_without_gradients_nothing_is_prepared_for_them(chunk_rows, monkeypatch):
    leaves = make(9, 5, 13, 2)
    monkeypatch.setattr(module, "product", None)
    monkeypatch.setattr(module, "_add_product_", None)
    with torch.no_grad():
        ours = selected_log_probs(*leaves, chunk_rows=chunk_rows)
    assert not ours.requires_grad
    torch.testing.assert_close(ours, reference(*leaves), rtol=0, atol=1e-12)


@BOTH_WAYS
def test_strided_inputs(chunk_rows):
    hidden, weight, bias, index = make(12, 10, 26, 4)
    views = (hidden[::2, 1::2], weight.t()[1::2].t()[::2], bias[::2], (index[::2, ::2] // 2))
    upstream = torch.rand(6, 2, dtype=torch.float64)
    assert_same_gradients(
        selected_log_probs(*views, chunk_rows=chunk_rows), reference(*views), (hidden, weight, bias), upstream
    )


@BOTH_WAYS
def test_used_twice_in_one_loss_and_called_twice(chunk_rows):
    leaves = make(8, 5, 13, 2)

    def loss(function):
        first, second = function(*leaves), function(leaves[0] * 2, *leaves[1:])
        return first.exp().sum() + first[:, 0].sum() - second.sum()

    ours = loss(lambda *inputs: selected_log_probs(*inputs, chunk_rows=chunk_rows))
    assert_same_gradients(ours, loss(reference), leaves[:3], None)


@BOTH_WAYS
def test_gradcheck(chunk_rows):
    *inputs, index = make(5, 3, 7, 2)
    if chunk_rows is None:
        with pytest.raises(RuntimeError, match="pass chunk_rows"):
            torch.autograd.gradcheck(lambda *x: selected_log_probs(*x, index), inputs)
    else:
        assert torch.autograd.gradcheck(lambda *x: selected_log_probs(*x, index, chunk_rows=chunk_rows), inputs)


def test_blocks_go_backward_again_where_the_graph_is_kept():
    leaves = make(7, 4, 9, 2)
    ours = selected_log_probs(*leaves, chunk_rows=3)
    first, second, last = (
        torch.autograd.grad(factor * ours.sum(), leaves[:3], retain_graph=factor < 3) for factor in (1, 2, 3)
    )
    for one, two, three in zip(first, second, last, strict=True):
        torch.testing.assert_close(two, 2 * one, rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(three, 3 * one, rtol=1e-14, atol=1e-14)


def test_tied_weight_gets_both_gradients():
    _, weight, bias, index = make(6, 5, 8, 2)
    tokens = torch.tensor([1, 2, 3, 1, 0, 7])
    ours = selected_log_probs(weight[tokens], weight, bias, index).sum()
    dense = reference(weight[tokens], weight, bias, index).sum()
    torch.testing.assert_close(*(torch.autograd.grad(x, weight)[0] for x in (ours, dense)), rtol=0, atol=1e-11)


@BOTH_WAYS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs_give_fp32_results_and_gradients_near_the_exact_ones(dtype, chunk_rows):
    hidden, weight, bias, index = make(9, 16, 50, 2, dtype=dtype)
    ours = selected_log_probs(hidden, weight, bias, index, chunk_rows=chunk_rows)
    assert ours.dtype == torch.float32
    logits = torch.addmm(bias, hidden, weight.t()).float()  # the rounding of the matmul is not ours
    torch.testing.assert_close(ours, logits.log_softmax(1).gather(1, index), rtol=0, atol=1e-5)
    ours.sum().backward()
    exact = [t.detach().double().requires_grad_() for t in (hidden, weight, bias)]
    reference(*exact, index).sum().backward()
    for mine, theirs in zip((hidden, weight, bias), exact, strict=True):
        assert mine.grad.dtype == dtype
        error = (mine.grad.double() - theirs.grad).abs().max() / theirs.grad.abs().max()
        assert error < 4 * torch.finfo(dtype).eps


@BOTH_WAYS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_sure_label_keeps_its_small_gradient_in_narrow_types(dtype, chunk_rows):
    """``p`` of the label is 0.9998: ``1 - p`` must be taken before rounding. Loss scale as in mixed precision."""
    weight = torch.zeros(40, 8, dtype=dtype)
    weight[3, 0] = 2.0
    hidden = torch.zeros(1, 8, dtype=dtype)
    hidden[0, 0] = 6.0
    hidden.requires_grad_()
    scale = 1024.0
    ours = selected_log_probs(hidden, weight, None, torch.tensor([[3]]), chunk_rows=chunk_rows)
    (-scale * ours.sum()).backward()
    p = torch.tensor(12.0, dtype=torch.float64).exp() / (torch.tensor(12.0, dtype=torch.float64).exp() + 39)
    assert hidden.grad[0, 0].item() == pytest.approx(-scale * (1 - p.item()) * 2.0, rel=0.01)


@BOTH_WAYS
def test_autocast_lowers_the_matmul_only(chunk_rows):
    hidden, weight, bias, index = make(9, 16, 50, 2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = selected_log_probs(hidden, weight, bias, index, chunk_rows=chunk_rows)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, reference(hidden, weight, bias, index), rtol=0, atol=0.08)
    ours.sum().backward()
    assert all(t.grad.dtype == torch.float32 for t in (hidden, weight, bias))


@BOTH_WAYS
def test_blocks_for_the_cache_change_nothing(chunk_rows, monkeypatch):
    leaves = make(23, 4, 31, 2)
    dense = reference(*leaves)
    monkeypatch.setitem(module._BLOCK_ELEMENTS, "cpu", 70)  # two rows a block, the last one ragged
    ours = selected_log_probs(*leaves, chunk_rows=chunk_rows)
    torch.testing.assert_close(ours, dense, rtol=0, atol=1e-13)
    assert_same_gradients(ours, dense, leaves[:3], torch.ones_like(dense))


@BOTH_WAYS
def test_large_logits_neither_overflow_nor_vanish(chunk_rows):
    hidden, weight, bias, index = make(6, 8, 20, 3, dtype=torch.float32)
    ours = selected_log_probs(hidden * 200, weight, bias, index, chunk_rows=chunk_rows)
    dense = reference(hidden * 200, weight, bias, index)
    torch.testing.assert_close(ours, dense, rtol=1e-6, atol=1e-3)
    ours.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in (hidden, weight, bias))


def test_cross_entropy_is_the_case_of_one_column():
    hidden, weight, bias, _ = make(10, 6, 15, 1)
    labels = torch.randint(0, 15, (10,))
    ours = -selected_log_probs(hidden, weight, bias, labels[:, None], chunk_rows=4).mean()
    dense = F.cross_entropy(hidden @ weight.t() + bias, labels)
    assert_same_gradients(ours, dense, (hidden, weight, bias), None)


def test_the_products_of_both_libraries_agree():
    """Large enough for oneDNN, where there is one."""
    leaves = make(130, 160, 1000, 5, dtype=torch.float32)
    exact = [t.detach().double().requires_grad_() for t in leaves[:3]]
    reference(*exact, leaves[3]).sum().backward()
    for chunk_rows in (None, 128):
        gradients = torch.autograd.grad(selected_log_probs(*leaves, chunk_rows=chunk_rows).sum(), leaves[:3])
        for mine, theirs in zip(gradients, exact, strict=True):
            torch.testing.assert_close(
                mine.double(), theirs.grad, rtol=1e-4, atol=1e-4 * theirs.grad.abs().max().item()
            )


def test_default_blocks_shrink_with_the_vocabulary_but_not_to_nothing():
    cpu = torch.device("cpu")
    assert default_chunk_rows(1000, cpu) > default_chunk_rows(32_000, cpu) > default_chunk_rows(250_000, cpu) >= 100
    assert default_chunk_rows(32_000, torch.device("cuda")) > default_chunk_rows(32_000, cpu)


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


def test_the_automatic_choice_keeps_small_logits_and_cuts_large_ones():
    weight = torch.empty(32_000, 1)
    assert automatic_chunk_rows(100, weight, torch.float32) is None
    assert automatic_chunk_rows(4096, weight, torch.float32) == default_chunk_rows(32_000, weight.device)
    assert automatic_chunk_rows(4096, weight, torch.bfloat16) is None
    assert automatic_chunk_rows(30_000, weight, torch.bfloat16) == default_chunk_rows(32_000, weight.device)
    assert automatic_chunk_rows(30_000, weight, torch.float16) is None


def test_a_frozen_weight_is_taken_in_blocks():
    weight = torch.empty(32_000, 1)
    for dtype in (torch.float32, torch.bfloat16):
        chosen = automatic_chunk_rows(100, weight, dtype, trains_weight=False)
        assert chosen == default_chunk_rows(32_000, weight.device)
    assert automatic_chunk_rows(100, weight, torch.float16, trains_weight=False) is None

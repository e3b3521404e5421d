"""CTC by brute force: every alignment of tiny cases is enumerated."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nat_plugin.ctc import collapse, ctc_loss, emitting_positions, viterbi_alignment
from plugin_common import selected_log_probs as selected_log_probs_module

BLANK, PAD = 0, 1


def merge(path, blank):
    """The definition: merge repeats, drop blanks."""
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def all_alignments(target, width, vocabulary, blank):
    return [p for p in itertools.product(range(vocabulary), repeat=width) if merge(p, blank) == tuple(target)]


def make(batch, width, dim, vocabulary, length, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(batch, width, dim, generator=g, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabulary, dim, generator=g, dtype=dtype, requires_grad=True)
    bias = torch.randn(vocabulary, generator=g, dtype=dtype, requires_grad=True)
    targets = torch.randint(2, vocabulary, (batch, length), generator=g)
    return hidden, weight, bias, targets


@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize("target", [(), (2,), (2, 1), (2, 2), (1, 2, 1), (2, 2, 2), (1, 1, 2)])
@pytest.mark.parametrize("width", [0, 1, 3, 5])
def test_loss_is_minus_log_of_the_sum_over_all_alignments(blank, target, width):
    hidden, weight, bias, _ = make(1, width, 3, 4, 0)
    targets = torch.tensor([target], dtype=torch.int64).reshape(1, len(target))
    loss, feasible = ctc_loss(
        hidden, weight, bias, targets, torch.tensor([width]), torch.tensor([len(target)]), blank=blank
    )
    paths = all_alignments(target, width, 4, blank)
    assert bool(feasible) == bool(paths)
    if not paths:
        assert loss.item() == 0
        return
    log_probs = (hidden[0] @ weight.t() + bias).log_softmax(-1)
    total = sum(math.exp(sum(log_probs[t, k].item() for t, k in enumerate(path))) for path in paths)
    assert loss.item() == pytest.approx(-math.log(total), abs=1e-9)


@pytest.mark.parametrize("chunk_rows", [None, 2])
def test_loss_and_gradients_are_those_of_the_dense_ctc(chunk_rows):
    hidden, weight, bias, targets = make(4, 9, 5, 11, 4)
    targets[1, 1] = targets[1, 0]
    targets[2, 2] = targets[2, 0]
    hidden_lengths, target_lengths = torch.tensor([9, 7, 8, 4]), torch.tensor([4, 2, 3, 0])
    ours, feasible = ctc_loss(
        hidden, weight, bias, targets, hidden_lengths, target_lengths, blank=BLANK, chunk_rows=chunk_rows
    )
    dense = F.ctc_loss(
        (hidden @ weight.t() + bias).log_softmax(-1).transpose(0, 1),
        targets,
        hidden_lengths,
        target_lengths,
        blank=BLANK,
        reduction="none",
    )
    assert feasible.all()
    torch.testing.assert_close(ours, dense, rtol=0, atol=1e-10)
    inputs = [hidden, weight, bias]
    for mine, theirs in zip(
        torch.autograd.grad(ours.sum(), inputs), torch.autograd.grad(dense.sum(), inputs), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)


def test_long_sentences_in_fp32_need_no_block_twice(monkeypatch):
    """A posterior's rounding errors, large after hundreds of positions, must not look like differing totals."""
    hidden, weight, bias, targets = make(2, 300, 5, 40, 120, dtype=torch.float32)
    monkeypatch.setattr(selected_log_probs_module, "_scaled_rest_", None)
    lengths = torch.tensor([300, 280]), torch.tensor([120, 100])
    loss, feasible = ctc_loss(hidden, weight, bias, targets, *lengths, blank=BLANK, chunk_rows=64)
    assert feasible.all()
    (loss.sum() * 3).backward()
    exact = [t.detach().double().requires_grad_() for t in (hidden, weight, bias)]
    log_probs = (exact[0] @ exact[1].t() + exact[2]).log_softmax(-1).transpose(0, 1)
    (F.ctc_loss(log_probs, targets, *lengths, blank=BLANK, reduction="sum") * 3).backward()
    for mine, theirs in zip((hidden, weight, bias), exact, strict=True):
        torch.testing.assert_close(
            mine.grad.double(), theirs.grad, rtol=1e-3, atol=1e-4 * theirs.grad.abs().max().item()
        )


def test_gradcheck():
    hidden, weight, bias, targets = make(2, 5, 3, 6, 2)
    lengths = torch.tensor([5, 4]), torch.tensor([2, 1])
    assert torch.autograd.gradcheck(
        lambda h, w, b: ctc_loss(h, w, b, targets, *lengths, blank=BLANK, chunk_rows=3)[0], (hidden, weight, bias)
    )


def test_infeasible_rows_are_told_and_leave_no_gradient():
    hidden, weight, bias, _ = make(3, 3, 4, 6, 0)
    targets = torch.tensor([[2, 2, 3, 4], [2, 3, 4, 0], [2, 2, 0, 0]])
    loss, feasible = ctc_loss(
        hidden, weight, bias, targets, torch.tensor([3, 3, 2]), torch.tensor([4, 3, 2]), blank=BLANK
    )
    assert feasible.tolist() == [False, True, False]
    assert loss[0] == 0
    assert loss[2] == 0
    assert loss[1] > 0
    loss.sum().backward()
    assert hidden.grad[0].abs().max() == 0
    assert hidden.grad[2].abs().max() == 0
    assert torch.isfinite(hidden.grad).all()
    alone = make(3, 3, 4, 6, 0)
    ctc_loss(*alone[:3], targets, torch.tensor([3, 3, 2]), torch.tensor([4, 3, 2]), blank=BLANK)[0][1].backward()
    torch.testing.assert_close(weight.grad, alone[1].grad, rtol=0, atol=0)


def test_a_batch_of_infeasible_rows_only_gives_zero_and_zero_gradients():
    hidden, weight, bias, targets = make(2, 1, 4, 6, 3)
    loss, feasible = ctc_loss(hidden, weight, bias, targets, torch.tensor([1, 1]), torch.tensor([3, 3]), blank=BLANK)
    loss.sum().backward()
    assert not feasible.any()
    assert loss.sum() == 0
    assert weight.grad.abs().max() == 0


def test_a_target_that_holds_the_blank_is_infeasible():
    hidden, weight, bias, _ = make(1, 5, 4, 6, 0)
    loss, feasible = ctc_loss(
        hidden, weight, bias, torch.tensor([[2, BLANK]]), torch.tensor([5]), torch.tensor([2]), blank=BLANK
    )
    assert not feasible
    assert loss == 0


def test_padding_changes_neither_loss_nor_gradient():
    hidden, weight, bias, targets = make(2, 6, 4, 9, 3)
    lengths = torch.tensor([6, 5]), torch.tensor([3, 2])
    loss, _ = ctc_loss(hidden, weight, bias, targets, *lengths, blank=BLANK)
    expected = torch.autograd.grad(loss.sum(), [hidden, weight, bias])
    padded = F.pad(hidden.detach(), (0, 0, 0, 3), value=7.0).requires_grad_()
    garbage = F.pad(targets, (0, 2), value=5)
    padded_loss, _ = ctc_loss(padded, weight, bias, garbage, *lengths, blank=BLANK)
    torch.testing.assert_close(padded_loss, loss, rtol=0, atol=1e-12)
    got = torch.autograd.grad(padded_loss.sum(), [padded, weight, bias])
    torch.testing.assert_close(got[0][:, :6], expected[0], rtol=0, atol=1e-12)
    assert got[0][:, 6:].abs().max() == 0
    for mine, theirs in zip(got[1:], expected[1:], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-11)


def test_rows_do_not_depend_on_their_batch():
    hidden, weight, bias, targets = make(5, 7, 4, 9, 3)
    lengths = torch.tensor([7, 6, 5, 4, 3]), torch.tensor([3, 3, 2, 1, 0])
    together, _ = ctc_loss(hidden, weight, bias, targets, *lengths, blank=BLANK)
    for i in range(5):
        alone, _ = ctc_loss(
            hidden[i : i + 1], weight, bias, targets[i : i + 1], *(n[i : i + 1] for n in lengths), blank=BLANK
        )
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-12)


def test_empty_batch():
    loss, feasible = ctc_loss(
        torch.zeros(0, 4, 3), torch.zeros(5, 3), None, torch.zeros(0, 2, dtype=torch.int64),
        torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), blank=BLANK,
    )  # fmt: skip
    assert loss.shape == feasible.shape == (0,)


@given(st.lists(st.lists(st.integers(0, 4), max_size=7), min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_collapse_is_groupby_and_drop(rows):
    width = max(map(len, rows))
    labels = torch.tensor([row + [3] * (width - len(row)) for row in rows], dtype=torch.int64).reshape(len(rows), width)
    tokens, lengths = collapse(labels, torch.tensor([len(r) for r in rows]), blank=BLANK, pad=PAD)
    got = [tuple(row[:n]) for row, n in zip(tokens.tolist(), lengths.tolist(), strict=True)]
    assert got == [merge(row, BLANK) for row in rows]
    assert tokens.size(1) == max(map(len, got))
    assert all(set(row[n:]) <= {PAD} for row, n in zip(tokens.tolist(), lengths.tolist(), strict=True))


def test_emitting_positions_are_the_starts_of_runs():
    labels = torch.tensor([[2, 2, 0, 2, 3, 3]])
    assert emitting_positions(labels, torch.tensor([5]), blank=0).tolist() == [[True, False, False, True, True, False]]


def best_path_by_brute_force(log_probs, target, blank):
    paths = all_alignments(target, log_probs.size(0), log_probs.size(1), blank)
    return max(paths, key=lambda path: sum(log_probs[t, k].item() for t, k in enumerate(path)))


@pytest.mark.parametrize("target", [(1,), (1, 2), (1, 1), (2, 1, 2)])
@pytest.mark.parametrize("seed", range(6))
def test_viterbi_alignment_is_the_best_of_all_paths(target, seed):
    log_probs = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)).double().log_softmax(-1)
    path = best_path_by_brute_force(log_probs, target, BLANK)
    runs, place = [], 0
    for label, group in itertools.groupby(path):
        n = len(list(group))
        if label != BLANK:
            runs.append(max(range(place, place + n), key=lambda t, k=label: log_probs[t, k].item()))
        place += n
    # A batch with padding on both sides, whose content must not matter.
    padded = torch.cat([log_probs, torch.full((2, 3), 9.0, dtype=log_probs.dtype)])[None].repeat(2, 1, 1)
    targets = torch.tensor([[*target, 2, 2]] * 2)
    got = viterbi_alignment(padded, targets, torch.tensor([5, 1]), torch.tensor([len(target), 3]), blank=BLANK)
    assert got[0].tolist() == [*runs, -1, -1]
    assert got[1].tolist() == [-1] * (len(target) + 2)


def test_viterbi_of_empty_targets():
    log_probs = torch.zeros(2, 4, 3).log_softmax(-1)
    none = torch.zeros(2, dtype=torch.int64)
    targets = torch.ones(2, 2, dtype=torch.int64)
    assert viterbi_alignment(log_probs, targets, torch.tensor([4, 0]), none, blank=0).tolist() == [[-1, -1]] * 2
    assert viterbi_alignment(log_probs, targets[:, :0], torch.tensor([4, 4]), none, blank=0).shape == (2, 0)

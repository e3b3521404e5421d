import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from nat_plugin.decoding import vocabulary
from nat_plugin.decoding.vocabulary import best_labels, rows_of_a_block, top_labels, with_blank_penalty

D, V, BLANK = 6, 37, 5


def case(rows: int, models: int, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], list, Tensor]:
    """``(states, projections, mean log-probabilities [N, V])`` by a dense log-softmax."""
    torch.manual_seed(rows + models)
    states = [torch.randn(rows, D, dtype=dtype) for _ in range(models)]
    weights = [torch.randn(V, D, dtype=dtype) * 2 for _ in range(models)]
    biases = [torch.randn(V, dtype=dtype) for _ in range(models)]
    projections = [lambda own, w=w, b=b: linear(own, w, b) for w, b in zip(weights, biases, strict=True)]
    logits = [project(own).float() for project, own in zip(projections, states, strict=True)]
    return states, projections, torch.stack([own.log_softmax(-1) for own in logits]).mean(0)


@pytest.fixture(params=[1, 4, 1000])
def block_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Rows of a block: each its own, a ragged last block, all in one."""
    monkeypatch.setattr(vocabulary, "_LEAST_ROWS", request.param)
    monkeypatch.setattr(vocabulary, "_BLOCK_ELEMENTS", {"cpu": 0, "cuda": 0})
    assert rows_of_a_block(V, "cpu") == request.param
    return request.param


@pytest.mark.parametrize("models", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_best_label_is_the_dense_ones(block_rows: int, models: int, dtype: torch.dtype) -> None:
    states, projections, dense = case(10, models, dtype)
    labels, log_probs = best_labels(states, projections, symbols=V, with_scores=True)
    assert log_probs.dtype == torch.float32
    best, expected = dense.max(-1)
    assert labels.tolist() == expected.tolist()
    torch.testing.assert_close(log_probs, best, rtol=0, atol=1e-5)
    unscored, zeros = best_labels(states, projections, symbols=V, with_scores=False)
    assert unscored.tolist() == expected.tolist()
    assert zeros.tolist() == [0.0] * 10


@pytest.mark.parametrize("models", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 4, 100])
def test_the_top_labels_are_the_dense_ones(block_rows: int, models: int, dtype: torch.dtype, count: int) -> None:
    states, projections, dense = case(10, models, dtype)
    log_probs, labels, blanks = top_labels(states, projections, symbols=V, count=count, blank=BLANK)
    expected = dense.topk(min(count, V))
    torch.testing.assert_close(log_probs, expected.values, rtol=0, atol=1e-5)
    torch.testing.assert_close(dense.gather(1, labels), expected.values, rtol=0, atol=1e-5)
    torch.testing.assert_close(blanks, dense[:, BLANK], rtol=0, atol=1e-5)


@pytest.mark.parametrize("penalty", [-2.0, 0.0, 1.5, 50.0])
def test_a_penalty_is_another_bias_of_the_blank(block_rows: int, penalty: float) -> None:
    states, (project,), _ = case(10, 1)
    lowered = with_blank_penalty(project, blank=BLANK, penalty=penalty)
    bias = torch.zeros(V)
    bias[BLANK] = penalty
    dense = (project(states[0]) - bias).log_softmax(-1)
    labels, log_probs = best_labels(states, [lowered], symbols=V, with_scores=True)
    assert labels.tolist() == dense.argmax(-1).tolist()
    torch.testing.assert_close(log_probs, dense.amax(-1), rtol=0, atol=1e-5)
    _, _, blanks = top_labels(states, [lowered], symbols=V, count=3, blank=BLANK)
    torch.testing.assert_close(blanks, dense[:, BLANK], rtol=0, atol=1e-5)


def test_no_rows() -> None:
    states, projections, _ = case(0, 1)
    labels, log_probs = best_labels(states, projections, symbols=V, with_scores=True)
    assert (labels.shape, log_probs.shape) == ((0,), (0,))
    top, labels, blanks = top_labels(states, projections, symbols=V, count=3, blank=BLANK)
    assert (top.shape, labels.shape, blanks.shape) == ((0, 3), (0, 3), (0,))


def test_a_block_is_bounded_but_not_tiny() -> None:
    """Each block reads the projection once from memory, whatever the vocabulary."""
    assert rows_of_a_block(32_000, "cpu") == 65
    assert rows_of_a_block(250_002, "cpu") == 64
    assert rows_of_a_block(32_000, "cuda") == 2097

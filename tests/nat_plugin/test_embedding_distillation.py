"""Alignments by enumeration, distances by their definitions, gradients."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nat_plugin.ctc import local_log_probs
from nat_plugin.embedding_distillation import (
    Projection,
    align,
    at_positions,
    cosine_distance,
    kl_divergence,
    mean_squared_distance,
)

METHODS = ("argmax", "viterbi", "assignment")
every_method = pytest.mark.parametrize("method", METHODS)


def problem(
    positions: list[int], targets: list[list[int]], *, symbols: int = 7, seed: int = 0, pad: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``(log_probs [B, T, 1 + L], targets, hidden_lengths, target_lengths)`` of a random model; the blank is 0."""
    torch.manual_seed(seed)
    longest = max(map(len, targets))
    padded = torch.tensor([[*target, *[pad] * (longest - len(target))] for target in targets], dtype=torch.int64)
    padded = padded.reshape(len(targets), longest)
    hidden = 2 * torch.randn(len(targets), max(positions), 5, dtype=torch.float64)
    weight = torch.randn(symbols, 5, dtype=torch.float64)
    lengths = torch.tensor(positions), torch.tensor([len(target) for target in targets])
    return local_log_probs(hidden, weight, None, padded, *lengths, blank=0), padded, *lengths


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    targets = draw(st.lists(st.lists(st.integers(2, 6), max_size=3), min_size=1, max_size=3))
    positions = [draw(st.integers(min(len(target) * 2, 5), 5)) for target in targets]
    return problem(positions, targets, seed=draw(st.integers(0, 99)))


@settings(deadline=None, max_examples=60)
@given(problems())
def test_argmax_takes_each_tokens_best_position(given_problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    log_probs, targets, hidden_lengths, target_lengths = given_problem
    found = align("argmax", *given_problem)
    for row, tokens in enumerate(target_lengths.tolist()):
        real = int(hidden_lengths[row])
        for j in range(targets.size(1)):
            expected = -1 if j >= tokens or real == 0 else int(log_probs[row, :real, j + 1].argmax())
            assert found[row, j] == expected


@settings(deadline=None, max_examples=60)
@given(problems())
def test_assignment_is_the_best_of_all_one_to_one_choices(given_problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    log_probs, _, hidden_lengths, target_lengths = given_problem
    found = align("assignment", *given_problem)
    for row, tokens in enumerate(target_lengths.tolist()):
        scores = log_probs[row, :, 1:].tolist()
        choices = itertools.permutations(range(int(hidden_lengths[row])), tokens)
        best = max(sum(scores[t][j] for j, t in enumerate(choice)) for choice in choices)
        chosen = found[row, :tokens].tolist()
        assert len(set(chosen)) == tokens
        assert sum(scores[t][j] for j, t in enumerate(chosen)) == pytest.approx(best)
        assert (found[row, tokens:] == -1).all()


@settings(deadline=None, max_examples=60)
@given(problems())
def test_viterbi_follows_the_best_of_all_paths(given_problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    log_probs, targets, hidden_lengths, target_lengths = given_problem
    found = align("viterbi", *given_problem)
    for row, tokens in enumerate(target_lengths.tolist()):
        target = targets[row, :tokens].tolist()
        column = {0: 0} | {label: target.index(label) + 1 for label in target}
        scores = log_probs[row].tolist()
        paths = itertools.product(sorted(column), repeat=int(hidden_lengths[row]))
        right = [path for path in paths if [k for k, _ in itertools.groupby(path) if k] == target]
        if not right:
            assert (found[row] == -1).all()
            continue
        best = max(right, key=lambda path: sum(scores[t][column[k]] for t, k in enumerate(path)))
        runs = emitted_runs(best)
        assert found[row, :tokens].tolist() == [
            max(run, key=lambda t, k=best[run[0]]: scores[t][column[k]]) for run in runs
        ]


def emitted_runs(path: tuple[int, ...]) -> list[list[int]]:
    """The positions of each run of equal labels that are not the blank."""
    runs: list[list[int]] = []
    for t, label in enumerate(path):
        if t and label == path[t - 1]:
            if label:
                runs[-1].append(t)
        elif label:
            runs.append([t])
    return runs


@every_method
def test_padding_changes_nothing(method: str) -> None:
    together = problem([7, 4, 6], [[2, 3, 3], [4], [5, 6]])
    found = align(method, *together)  # type: ignore[arg-type]
    log_probs, targets, hidden_lengths, target_lengths = together
    for row in range(3):
        width, length = int(hidden_lengths[row]), int(target_lengths[row])
        alone = align(
            method,  # type: ignore[arg-type]
            log_probs[row : row + 1, :width, : 1 + length],
            targets[row : row + 1, :length],
            hidden_lengths[row : row + 1],
            target_lengths[row : row + 1],
        )
        assert alone[0].tolist() == found[row, :length].tolist()
        assert (found[row, length:] == -1).all()


@every_method
def test_nothing_to_align(method: str) -> None:
    for targets, positions in (([[]], [4]), ([[], []], [0, 3]), ([[], [2]], [0, 2])):
        found = align(method, *problem(positions, targets))  # type: ignore[arg-type]
        assert found.shape == (len(targets), max(map(len, targets)))
        assert (found >= 0).sum() == sum(map(len, targets))
    none = align(method, torch.zeros(0, 3, 2), *(torch.zeros(s, dtype=torch.int64) for s in ((0, 1), (0,), (0,))))  # type: ignore[arg-type]
    assert none.shape == (0, 1)


def test_more_tokens_than_positions() -> None:
    log_probs, targets, hidden_lengths, target_lengths = problem([2], [[2, 3, 4]])
    log_probs = torch.randn_like(log_probs)  # an infeasible sentence has no probabilities
    rest = (targets, hidden_lengths, target_lengths)
    assert align("viterbi", log_probs, *rest).tolist() == [[-1, -1, -1]]
    assert align("assignment", log_probs, *rest).tolist() == [[-1, -1, -1]]
    assert (align("argmax", log_probs, *rest) >= 0).all()


def test_equal_tokens_share_a_position_only_by_argmax() -> None:
    given_problem = problem([9], [[3, 5, 3]], seed=3)
    assert len(set(align("argmax", *given_problem)[0].tolist())) == 2
    assert align("viterbi", *given_problem)[0].tolist() == sorted(set(align("viterbi", *given_problem)[0].tolist()))
    assert len(set(align("assignment", *given_problem)[0].tolist())) == 3


@every_method
def test_improbable_labels_do_not_break_it(method: str) -> None:
    log_probs, *rest = problem([6, 6], [[2, 3], [4, 4]])
    log_probs = log_probs.float()
    log_probs[0, :, 1] = -torch.inf
    found = align(method, log_probs, *rest)  # type: ignore[arg-type]
    assert (found[1] >= 0).all()
    assert found.shape == (2, 2)


def test_states_are_taken_sentence_by_sentence() -> None:
    states = torch.arange(24.0).reshape(2, 4, 3)
    taken = at_positions(states, torch.tensor([[2, -1, 0], [3, 3, -1]]))
    assert torch.equal(taken, torch.stack([states[0, 2], states[0, 0], states[1, 3], states[1, 3]]))


def test_cosine_and_squared_distance() -> None:
    student = torch.tensor([[1.0, 0], [3, 4], [1, 1], [-2, 0]])
    teacher = torch.tensor([[2.0, 0], [3, 4], [1, -1], [1, 0]])
    torch.testing.assert_close(cosine_distance(student, teacher), torch.tensor([0.0, 0, 1, 2]))
    torch.testing.assert_close(mean_squared_distance(student, teacher), torch.tensor([0.5, 0, 2, 4.5]))


@pytest.mark.parametrize("distance", [cosine_distance, mean_squared_distance])
def test_low_precision_is_widened_and_gradients_reach_the_student(distance) -> None:
    torch.manual_seed(0)
    student, teacher = (torch.randn(5, 8).bfloat16().requires_grad_() for _ in range(2))
    value = distance(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, distance(student.float(), teacher.float()), rtol=0, atol=0)
    double = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: distance(x, teacher.detach().double()), (double,))


@pytest.mark.parametrize("block", [1, 1 << 24])
def test_kl_is_that_of_the_whole_distributions(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nat_plugin.embedding_distillation._KL_BLOCK_ELEMENTS", block)
    torch.manual_seed(0)
    make = lambda *shape: torch.randn(*shape, dtype=torch.float64)  # noqa: E731
    hidden, weight, bias = make(4, 3).requires_grad_(), make(9, 3).requires_grad_(), make(9).requires_grad_()
    teacher = Projection(make(4, 5), make(9, 5), make(9))
    ours = kl_divergence(Projection(hidden, weight, bias), teacher)
    goal = F.linear(*teacher).softmax(-1)
    plain = (goal * (goal.log() - F.linear(hidden, weight, bias).log_softmax(-1))).sum(-1)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    upstream = make(4)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (hidden, weight, bias), upstream),
        torch.autograd.grad(plain, (hidden, weight, bias), upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_kl_of_nothing_and_of_itself() -> None:
    weight = torch.randn(6, 3)
    assert kl_divergence(*[Projection(torch.zeros(0, 3), weight, None)] * 2).shape == (0,)
    same = Projection(torch.randn(4, 3), weight, None)
    torch.testing.assert_close(kl_divergence(same, same), torch.zeros(4), rtol=0, atol=1e-6)

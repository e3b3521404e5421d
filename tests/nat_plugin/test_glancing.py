import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import nat_plugin.glancing as glancing
from nat_plugin.glancing import (
    GlancingSchedule,
    choose,
    is_wrong,
    path_of_target,
    random_numbers_again,
    revealed_labels,
    scores_under_best,
)

BLANK, PAD, LABELS = 0, 1, 7


# ---- the best path, against enumeration -----------------------------------------------------------------------------


def collapsed(labels: tuple[int, ...]) -> list[int]:
    return [label for label, _ in itertools.groupby(labels) if label != BLANK]


def best_by_enumeration(log_probs: Tensor, target: list[int]) -> tuple[float, tuple[int, ...]] | None:
    """Score and labels of the best of all labellings that collapse to the target."""
    ways = [way for way in itertools.product({BLANK, *target}, repeat=len(log_probs)) if collapsed(way) == target]
    scored = [(sum(float(log_probs[t, label]) for t, label in enumerate(way)), way) for way in ways]
    return max(scored, default=None)


def told_by(path: tuple[int, ...], added: list[bool], t: int) -> int | None:
    """The position whose token position ``t`` may be told."""
    if not added[t]:
        return None
    if path[t] != BLANK:
        return t
    free = t > 0 and not added[t - 1] and path[t - 1] != BLANK
    return t - 1 if free and path[t - 1 : t] != path[t + 1 : t + 2] else None


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, list[int], list[list[int]]]:
    """States, lengths and targets of up to three sentences, some of them infeasible."""
    count = draw(st.integers(1, 3))
    lengths = draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    target = st.lists(st.integers(0, 5).filter(lambda label: label != PAD), max_size=3)  # 0 is the blank itself
    targets = draw(st.lists(target, min_size=count, max_size=count))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    hidden = torch.randn(count, max(lengths), 4, generator=generator, dtype=torch.float64)
    return hidden, lengths, targets


def padded(rows: list[list[int]], fill: int = 3) -> Tensor:
    """``fill`` is a label: what stands past a row's length must not matter."""
    width = max(map(len, rows))
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows], dtype=torch.int64).reshape(len(rows), -1)


def lengths_of(rows: list[list[int]]) -> Tensor:
    return torch.tensor([len(row) for row in rows])


WEIGHT = torch.randn(LABELS, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
BIAS = torch.randn(LABELS, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def scores_of(hidden: Tensor, targets: list[list[int]], bias: Tensor | None = BIAS) -> Tensor:
    return scores_under_best(hidden, WEIGHT, bias, padded(targets), lengths_of(targets), blank=BLANK)


@settings(max_examples=150, deadline=None)
@given(problems(), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 99))
def test_what_is_revealed_is_on_the_best_path_and_as_much_as_the_share_says(
    problem: tuple[Tensor, list[int], list[list[int]]], share: float, seed: int
) -> None:
    hidden, lengths, targets = problem
    logits = hidden @ WEIGHT.t() + BIAS
    generator = torch.Generator().manual_seed(seed)
    added = torch.rand(hidden.shape[:2], generator=generator) < 0.6
    torch.manual_seed(seed)
    scores = scores_of(hidden, targets)
    revealed = revealed_labels(
        scores, padded(targets), torch.tensor(lengths), lengths_of(targets), added, blank=BLANK, share=share
    )
    assert revealed.shape == hidden.shape[:2]
    for row, (length, target) in enumerate(zip(lengths, targets, strict=True)):
        given_labels = revealed[row].tolist()
        best = None if BLANK in target else best_by_enumeration(logits[row, :length].log_softmax(-1), target)
        if best is None:
            assert set(given_labels) <= {-1}, "an infeasible sentence reveals nothing"
            continue
        candidates = {
            t: where for t in range(length) if (where := told_by(best[1], added[row].tolist(), t)) is not None
        }
        wrong = [t for t, where in candidates.items() if int(logits[row, where].argmax()) != best[1][where]]
        places = [t for t, label in enumerate(given_labels) if label != -1]
        assert set(places) <= set(candidates)
        assert [given_labels[t] for t in places] == [best[1][candidates[t]] for t in places]
        told = [best[1][candidates.get(t, t)] for t in range(length)]
        assert collapsed(tuple(told)) == target, "what may be told is a path of the target"
        assert len(places) in (math.floor(share * len(wrong)), math.ceil(share * len(wrong)))


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("rows_at_a_time", [1, 5, 1000])
def test_scores_are_log_probabilities_up_to_a_constant_and_zero_for_the_best_label(
    monkeypatch: pytest.MonkeyPatch, rows_at_a_time: int, with_bias: bool
) -> None:
    monkeypatch.setattr(glancing, "default_chunk_rows", lambda labels, device: rows_at_a_time)
    hidden = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    targets, bias = [[3, 4, 3], [5], []], BIAS if with_bias else None
    scores = scores_of(hidden, targets, bias)
    logits = torch.nn.functional.linear(hidden, WEIGHT, bias)
    columns = torch.tensor([[0, 3, 4, 3], [0, 5, 0, 0], [0, 0, 0, 0]])[:, None].expand(-1, 4, -1)
    log_probs = logits.log_softmax(-1)
    constant = log_probs.amax(-1, keepdim=True)
    torch.testing.assert_close(scores + constant, log_probs.gather(2, columns), rtol=1e-12, atol=1e-12)
    assert torch.equal(scores == 0, columns == logits.argmax(-1, keepdim=True))
    assert not scores.requires_grad


def test_bfloat16_states_give_float32_scores() -> None:
    hidden = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1)).bfloat16()
    scores = scores_under_best(
        hidden, WEIGHT.bfloat16(), BIAS.bfloat16(), torch.tensor([[3], [4]]), torch.tensor([1, 1]), blank=BLANK
    )
    assert scores.dtype == torch.float32
    assert bool((scores <= 0).all())


def test_nothing_to_read_or_to_say() -> None:
    for batch, positions, tokens in itertools.product((0, 2), (0, 3), (0, 2)):
        hidden = torch.zeros(batch, positions, 4, dtype=torch.float64)
        targets = torch.full((batch, tokens), 3)
        none = torch.zeros(batch, dtype=torch.int64)
        scores = scores_under_best(hidden, WEIGHT, BIAS, targets, none, blank=BLANK)
        added = torch.ones(batch, positions, dtype=torch.bool)
        revealed = revealed_labels(scores, targets, none + positions, none, added, blank=BLANK, share=1.0)
        assert revealed.shape == (batch, positions)
        assert bool((revealed == -1).all())


@settings(max_examples=50, deadline=None)
@given(problems())
def test_padding_changes_neither_paths_nor_what_is_wrong(problem: tuple[Tensor, list[int], list[list[int]]]) -> None:
    hidden, lengths, targets = problem

    added = torch.rand(hidden.shape[:2], generator=torch.Generator().manual_seed(len(lengths))) < 0.5

    def judged(hidden: Tensor, targets: Tensor, added: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        target_lengths = lengths_of(problem[2])
        scores = scores_under_best(hidden, WEIGHT, BIAS, targets, target_lengths, blank=BLANK)
        path = path_of_target(scores, targets, torch.tensor(lengths), target_lengths, blank=BLANK)
        all_wrong = scores - 1
        revealed = revealed_labels(
            all_wrong,
            targets,
            torch.tensor(lengths),
            target_lengths,
            added,
            blank=BLANK,
            share=1,
        )
        return path, is_wrong(scores, path), revealed

    path, wrong, revealed = judged(hidden, padded(targets), added)
    more = torch.cat([hidden, torch.full((len(lengths), 2, 4), 9.0, dtype=torch.float64)], dim=1)
    longer = torch.cat([padded(targets), torch.full((len(lengths), 3), 4)], dim=1)
    padded_path, padded_wrong, padded_revealed = judged(
        more, longer, torch.cat([added, torch.ones(len(lengths), 2) > 0], dim=1)
    )
    real = torch.arange(path.size(1)) < torch.tensor(lengths)[:, None]
    assert torch.equal(padded_path[:, : path.size(1)], path)
    assert bool((padded_path[:, path.size(1) :] == -1).all())
    assert torch.equal(padded_wrong[:, : path.size(1)] & real, wrong & real)
    assert torch.equal(padded_revealed[:, : path.size(1)], revealed), "with everything wrong and share 1: all there is"
    assert bool((padded_revealed[:, path.size(1) :] == -1).all())
    assert bool((revealed >= 0)[(path >= 0) & added].all())


# ---- the choice -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(0, 9), st.integers(0, 10_000))
def test_the_choice_takes_the_candidates_with_the_least_noise(batch: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    candidates = torch.rand(batch, width, generator=generator) < 0.5
    noise = torch.rand(batch, width, generator=generator)
    counts = torch.randint(0, width + 2, (batch,), generator=generator)
    chosen = choose(candidates, counts, noise)
    for row in range(batch):
        ranked = sorted((float(noise[row, t]), t) for t in range(width) if candidates[row, t])
        assert {t for t in range(width) if chosen[row, t]} == {t for _, t in ranked[: int(counts[row])]}
    wider = torch.nn.functional.pad(candidates, (0, 3)), torch.nn.functional.pad(noise, (0, 3))
    assert torch.equal(choose(wider[0], counts, wider[1])[:, :width], chosen)


def test_each_candidate_is_as_likely_and_fractions_are_right_on_average() -> None:
    """Five tokens with no choice of where to go, three wrong; share 0.5 reveals one or two, 1.5 on average."""
    rows, wrong = 4000, torch.tensor([True, True, False, True, False])
    targets = torch.tensor([[3, 4, 5, 3, 4]]).expand(rows, -1)
    scores = torch.full((rows, 5, 6), -9.0)
    for t in range(5):
        scores[:, t, t + 1] = -1.0 if wrong[t] else 0.0
    lengths = torch.full((rows,), 5)
    torch.manual_seed(3)
    revealed = revealed_labels(
        scores, targets, lengths, lengths, torch.ones(rows, 5, dtype=torch.bool), blank=BLANK, share=0.5
    )
    counts = (revealed >= 0).sum(dim=1)
    assert set(counts.tolist()) == {1, 2}
    assert float(counts.double().mean()) == pytest.approx(1.5, abs=0.04)
    assert (revealed >= 0).double().mean(dim=0).tolist() == pytest.approx([0.3] * 5, abs=0.04), "right ones, too"
    assert torch.equal(revealed[revealed >= 0], targets[revealed >= 0])


# ---- the schedule ---------------------------------------------------------------------------------------------------


def test_the_share_goes_in_a_straight_line_from_the_first_to_the_last_update() -> None:
    schedule = GlancingSchedule(0.5, 0.3, 101)
    assert [schedule.share(update) for update in (0, 50, 100, 200)] == pytest.approx([0.5, 0.4, 0.3, 0.3])
    assert GlancingSchedule(0.5, 0.0, 101).share(100) == 0
    assert [GlancingSchedule(0.5, 0.3, 1).share(update) for update in (0, 1)] == [0.5, 0.5]
    assert GlancingSchedule(0.4, 0.4).share(12345) == 0.4
    assert GlancingSchedule().share(0) == GlancingSchedule(max_update=9).share(3) == 0


def test_options_that_make_no_sense_are_all_named() -> None:
    assert [*GlancingSchedule(0.5, 0.5).problems(), *GlancingSchedule(1, 0, 5).problems()] == []
    found = list(GlancingSchedule(-0.1, math.nan, 5).problems())
    assert [message.split(":")[0] for message in found] == ["--glancing-start -0.1", "--glancing-end nan"]
    (message,) = GlancingSchedule(0.5, 0.3).problems()
    assert "--max-update" in message


def test_the_same_random_numbers_come_again() -> None:
    torch.manual_seed(1)
    with random_numbers_again(torch.device("cpu")):
        inside = torch.rand(5)
    assert torch.equal(torch.rand(5), inside)

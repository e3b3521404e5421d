from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nat_plugin import ctc
from nat_plugin.export.batches import RUN_COST, emitting_positions, plan_runs, split_rows, within

BLANK, PAD = 0, 1


def cost(lengths: list[int], runs: list[list[int]]) -> int:
    return sum(len(run) * max(lengths[place] for place in run) + RUN_COST for run in runs)


@given(st.lists(st.integers(0, 60), max_size=40), st.integers(1, 200))
def test_every_sentence_runs_once_within_the_bound(lengths: list[int], most: int) -> None:
    runs = [run.tolist() for run in plan_runs(np.array(lengths, dtype=np.int64), most)]
    assert sorted(place for run in runs for place in run) == [k for k, length in enumerate(lengths) if length]
    assert all(len(run) == 1 or len(run) * max(lengths[place] for place in run) <= most for run in runs)
    longest_first = [lengths[place] for run in runs for place in run]
    assert longest_first == sorted(longest_first, reverse=True)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(20, 200))
def test_no_other_cut_of_the_sorted_sentences_costs_less(lengths: list[int], most: int) -> None:
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    best = min(
        cost(lengths, runs)
        for count in range(len(order))
        for cuts in combinations(range(1, len(order)), count)
        for runs in [[order[a:b] for a, b in zip((0, *cuts), (*cuts, len(order)), strict=True)]]
        if all(len(run) == 1 or len(run) * lengths[run[-1]] <= most for run in runs)
    )
    assert cost(lengths, [run.tolist() for run in plan_runs(np.array(lengths), most)]) == best


def test_little_padding_for_mixed_lengths() -> None:
    lengths = np.random.default_rng(1).integers(4, 120, 256)
    padded = sum(len(run) * lengths[run].max() for run in plan_runs(lengths, 400))
    assert padded <= 1.05 * lengths.sum()


labels_and_lengths = st.tuples(st.integers(0, 5), st.integers(0, 12)).flatmap(
    lambda shape: st.tuples(
        st.lists(
            st.lists(st.integers(0, 3), min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
        ),
        st.lists(st.integers(0, shape[1]), min_size=shape[0], max_size=shape[0]),
        st.just(shape),
    )
)


@given(labels_and_lengths)
def test_collapse_is_that_of_the_plugin(made: tuple[list[list[int]], list[int], tuple[int, int]]) -> None:
    rows, lengths, shape = made
    labels = np.array(rows, dtype=np.int64).reshape(shape)
    found = split_rows(labels, emitting_positions(labels, np.array(lengths, dtype=np.int64), blank=BLANK))
    tokens, counts = ctc.collapse(
        torch.tensor(rows, dtype=torch.int64).reshape(shape),
        torch.tensor(lengths, dtype=torch.int64),
        blank=BLANK,
        pad=PAD,
    )
    wanted = [row[:count].tolist() for row, count in zip(tokens, counts.tolist(), strict=True)]
    assert [row.tolist() for row in found] == wanted


def test_collapse_by_hand() -> None:
    labels = np.array([[5, 5, 0, 5, 6, 6], [0, 7, 7, 9, 9, 9]])
    emits = emitting_positions(labels, np.array([6, 3]), blank=BLANK)
    assert [row.tolist() for row in split_rows(labels, emits)] == [[5, 5, 6], [7]]
    scores = np.arange(12).reshape(2, 6)
    assert [row.tolist() for row in split_rows(scores, emits)] == [[0, 3, 4], [7]]


@pytest.mark.parametrize(("lengths", "width"), [([0, 2, 3], 3), ([], 4)])
def test_within(lengths: list[int], width: int) -> None:
    wanted = [[place < length for place in range(width)] for length in lengths]
    assert within(np.array(lengths, dtype=np.int64), width).tolist() == wanted

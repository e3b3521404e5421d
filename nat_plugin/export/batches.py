"""Sentences of unequal length in few runs of a model, and labels back to tokens; numpy alone."""

import numpy as np

RUN_COST = 16
"""What starting a run costs, in positions: measured for a base-sized Transformer on a CPU, about 13."""


def plan_runs(lengths: np.ndarray, most_positions: int) -> list[np.ndarray]:
    """Which sentences run together: neighbours by length, cut into the runs that cost least.

    A run costs its sentences × the longest of them, padding included, and ``RUN_COST``.

    Args:
        lengths: ``[N]`` positions of each sentence; those of length 0 need no run and are in none.
        most_positions: sentences × longest length of a run stay within it; a longer sentence runs alone.

    Returns:
        for each run, places in ``lengths``; the longest sentences first.
    """
    order = np.argsort(lengths, kind="stable")[np.count_nonzero(lengths == 0) :]
    cost = np.zeros(len(order) + 1)  # of the first n sentences at best; the last run of these starts at start[n]
    start = np.zeros(len(order) + 1, dtype=np.int64)
    for n, longest in enumerate(lengths[order].tolist(), start=1):
        first = n - min(n, max(1, most_positions // longest))
        costs = cost[first:n] + np.arange(n - first, 0, -1) * longest
        best = int(costs.argmin())
        cost[n], start[n] = costs[best] + RUN_COST, first + best
    runs = []
    end = len(order)
    while end:
        runs.append(order[start[end] : end][::-1])
        end = int(start[end])
    return runs


def emitting_positions(labels: np.ndarray, lengths: np.ndarray, *, blank: int) -> np.ndarray:
    """``[B, T]`` bool: the first position of each run of equal labels that are not the blank.

    Args:
        labels: ``[B, T]`` the label of each position; lengths: ``[B]`` real positions.
    """
    emits = (labels != blank) & within(lengths, labels.shape[1])
    emits[:, 1:] &= labels[:, 1:] != labels[:, :-1]
    return emits


def split_rows(values: np.ndarray, chosen: np.ndarray) -> list[np.ndarray]:
    """The chosen values of each row: ``values [B, T]``, ``chosen [B, T]`` bool → B arrays."""
    ends = chosen.sum(axis=1).cumsum()
    return np.split(values[chosen], ends[:-1])[: len(values)]


def within(lengths: np.ndarray, width: int) -> np.ndarray:
    """``[B, width]`` bool: which positions are real."""
    real: np.ndarray = np.arange(width) < lengths[:, None]
    return real

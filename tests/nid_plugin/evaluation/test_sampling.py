"""Sampling by rows: the distribution, the seeds, temperature 0."""

import numpy as np
import torch
from scipy.stats import chisquare

from nid_plugin.evaluation.sampling import RowSampling, seed_of

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -torch.inf], dtype=torch.float64)


def drawn(temperature: float, number: int, top_p: float = 1.0) -> np.ndarray:
    rows = RowSampling([temperature] * number, list(range(number)), top_p)
    chosen = rows(torch.zeros(number, 1, dtype=torch.int64), LOGITS.expand(number, -1)).argmax(-1)
    return np.bincount(chosen.numpy(), minlength=5)


def test_draws_follow_the_softmax() -> None:
    for temperature in (0.7, 1.0, 2.0):
        expected = torch.softmax(LOGITS / temperature, -1).numpy()
        counts = drawn(temperature, 8000)
        assert counts[4] == 0
        assert chisquare(counts[:4], 8000 * expected[:4] / expected[:4].sum()).pvalue > 1e-4


def test_top_p_leaves_the_most_probable() -> None:
    kept = torch.softmax(LOGITS[:2], -1).numpy()  # 0.64 and 0.24 of the mass reach 0.8
    counts = drawn(1.0, 4000, 0.8)
    assert counts[2:].sum() == 0 and chisquare(counts[:2], 4000 * kept / kept.sum()).pvalue > 1e-4
    assert drawn(1.0, 200, 1e-9)[0] == 200  # never nothing


def test_rows_of_temperature_0_stay_as_they_are() -> None:
    scores = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    changed = RowSampling([0, 1, 0], [1, 2, 3])(torch.zeros(3, 1, dtype=torch.int64), scores)
    assert torch.equal(changed[[0, 2]], scores[[0, 2]]) and not torch.equal(changed[1], scores[1])


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    scores = torch.randn(4, 3, 9, generator=torch.Generator().manual_seed(0))  # 4 steps of 3 rows
    ids = torch.zeros(3, 1, dtype=torch.int64)
    whole = RowSampling([1, 0.7, 0.7], [5, 6, 7])
    alone = RowSampling([0.7], [6])
    for step in scores:
        assert torch.equal(whole(ids, step)[1], alone(ids[:1], step[1:2])[0])


def test_seeds_of_requests_differ() -> None:
    seeds = {seed_of(seed, f"{number:032x}") for seed in range(3) for number in range(100)}
    assert len(seeds) == 300 and all(0 <= seed < 2**63 for seed in seeds)

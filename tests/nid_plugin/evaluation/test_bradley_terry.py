"""Bradley–Terry: against brute force, closed forms and simulated games whose truth is known."""

import numpy as np
import pytest
from scipy.optimize import minimize

from nid_plugin.evaluation.bradley_terry import RIDGE, Battles, fit, scaled, shares, style_differences, win_rates


def sigma(x: np.ndarray | float) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x, dtype=np.float64)))


def battles(
    strength: list[float], questions: int, seed: int, gamma: list[float] | None = None, lean: float = 0.0
) -> Battles:
    """Two games a question and model, drawn from the model itself; ``lean`` is how much longer models answer."""
    rng = np.random.default_rng(seed)
    models = len(strength)
    question = np.repeat(np.arange(questions), 2 * models)
    model = np.tile(np.repeat(np.arange(models), 2), questions)
    style = rng.normal(lean, 1, (len(question), len(gamma or [])))
    logit = np.array(strength)[model] + style @ np.array(gamma or [])
    points = (rng.random(len(question)) < sigma(logit)).astype(np.float64)
    return Battles(question, model, points, rng.choice([1.0, 3.0], len(question)), style)


def test_the_fit_is_where_brute_force_finds_the_maximum() -> None:
    some = battles([0.5, -1.0], 30, 0, [0.7])
    points = some.points.copy()
    points[::7] = 0.5
    some = Battles(some.question, some.model, points, some.weight, some.style)

    def loss(x: np.ndarray) -> float:
        chance = sigma(x[some.model] + some.style @ x[2:])
        likelihood = points * np.log(chance) + (1 - points) * np.log(1 - chance)
        return float(-(some.weight * likelihood).sum() + RIDGE / 2 * (x**2).sum())

    best = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 10**5})
    np.testing.assert_allclose(fit(some, some.weight, 2), best.x, atol=1e-5)


def test_without_style_the_fit_is_the_share_of_points() -> None:
    some = battles([1.0, -0.3, 0.0], 200, 1)
    np.testing.assert_allclose(sigma(fit(some, some.weight, 3)), shares(some, some.weight, 3), atol=1e-5)
    rates = win_rates(some, 3, rounds=20, seed=0)
    np.testing.assert_array_equal(rates.rate, shares(some, some.weight, 3))
    assert rates.coefficients.shape == (0,)


def test_strengths_and_style_are_recovered() -> None:
    truth, gamma = [1.0, -0.5], [0.8, 0.0]
    found = fit(some := battles(truth, 4000, 2, gamma), some.weight, 2)
    np.testing.assert_allclose(found, truth + gamma, atol=0.08)


def test_style_control_takes_the_advantage_of_length_away() -> None:
    some = battles([0.0], 3000, 3, [1.0], lean=1.0)
    raw = Battles(some.question, some.model, some.points, some.weight, some.style[:, :0])
    assert win_rates(raw, 1, rounds=2, seed=0).rate[0] > 0.65
    assert abs(win_rates(some, 1, rounds=2, seed=0).rate[0] - 0.5) < 0.03
    centred = Battles(
        some.question, some.model, some.points, some.weight, scaled(some.style, some.weight, centred=True)
    )
    assert win_rates(centred, 1, rounds=2, seed=0).rate[0] > 0.65  # the mean difference is taken for equal style


def test_intervals_of_a_coin_hold_the_half_as_often_as_they_say() -> None:
    hits = 0
    for seed in range(60):
        rates = win_rates(battles([0.0], 100, seed), 1, rounds=200, seed=seed)
        hits += rates.low[0] <= 0.5 <= rates.high[0]
    assert hits >= 50  # of 60; 57 are expected


def test_games_of_a_question_are_drawn_together() -> None:
    def width(copies: int) -> float:
        one = battles([0.0], 50, 5)
        columns = [np.repeat(column, copies, axis=0) for column in (one.question, one.model, one.points, one.weight)]
        some = Battles(*columns, np.repeat(one.style, copies, axis=0))
        rates = win_rates(some, 1, rounds=400, seed=0)
        return float(rates.high[0] - rates.low[0])

    assert width(4) == pytest.approx(width(1))  # copies of games bring no certainty


def test_the_seed_decides() -> None:
    some = battles([0.2], 40, 6)
    first, again, other = (win_rates(some, 1, rounds=50, seed=seed) for seed in (1, 1, 2))
    assert first.low == again.low and first.high == again.high
    assert (first.low, first.high) != (other.low, other.high)


def test_a_model_that_wins_all_or_played_nothing() -> None:
    style = np.random.default_rng(0).normal(size=(6, 1))
    won = Battles(np.arange(6), np.zeros(6, np.int64), np.ones(6), np.ones(6), style)
    assert 0.9 < win_rates(won, 1, rounds=5, seed=0).rate[0] <= 1
    rates = win_rates(Battles(won.question, won.model, won.points, won.weight, style[:, :0]), 2, rounds=5, seed=0)
    assert rates.rate[0] == rates.low[0] == 1 and np.isnan(rates.rate[1]) and np.isnan(rates.low[1])
    nothing = Battles(*(np.zeros(0, kind) for kind in (np.int64, np.int64, np.float64, np.float64)), np.zeros((0, 4)))
    assert win_rates(nothing, 1, rounds=2, seed=0).rate.shape == (1,)


def test_style_differences_by_hand() -> None:
    own, other = np.array([[300.0, 3, 0, 6]]), np.array([[100.0, 0, 2, 6]])
    expected = [200 / 400, (0.01 - 0) / 1.01, (0 - 0.02) / 1.02, (0.02 - 0.06) / 1.08]
    np.testing.assert_allclose(style_differences(own, other), [expected])
    np.testing.assert_allclose(style_differences(other, own), [[-one for one in expected]])
    assert np.isfinite(style_differences(np.zeros((1, 4)), np.zeros((1, 4)))).all()  # two empty answers


def test_scaling() -> None:
    differences = np.array([[1.0, 5.0], [3.0, 5.0], [3.0, 5.0]])
    weight = np.array([2.0, 1.0, 1.0])
    centred = scaled(differences, weight, centred=True)
    np.testing.assert_allclose(centred[:, 0], [-1, 1, 1])
    np.testing.assert_array_equal(centred[:, 1], 0)  # what never varies says nothing
    np.testing.assert_allclose(scaled(differences, weight, centred=False)[:, 0], [1, 3, 3])


def test_rounds_without_a_game_of_a_model_do_not_count_for_it() -> None:
    # Model 1 wins its only question; in a third of the rounds it is not drawn, and the ridge alone would say a half
    question, model = np.array([0, 1, 2, 1]), np.array([0, 0, 0, 1])
    points, style = np.array([1.0, 0.0, 1.0, 1.0]), np.array([[0.5], [-0.5], [0.1], [0.2]])
    found = win_rates(Battles(question, model, points, np.ones(4), style), 3, rounds=60, seed=1)
    assert found.low[1] > 0.9 and found.high[1] <= 1
    assert np.isnan(found.rate[2]) and np.isnan(found.low[2])  # no game at all

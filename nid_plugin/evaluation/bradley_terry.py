"""The Bradley–Terry model against one baseline, with style as further regressors (natural logarithms throughout).

P(model m beats the baseline in game i) = σ(β_m + γ · z_i), where z_i is the difference of styles. Without style the
maximum of the likelihood is where σ(β_m) is m's weighted share of the points, so that nothing has to be iterated.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_STEPS, _HALVINGS = 100, 40
_TOLERANCE = 1e-10
RIDGE = 1e-3
"""Of the squared coefficients, halved: keeps them finite where a model wins or loses every game."""


@dataclass(frozen=True)
class Battles:
    """Games of models against the baseline.

    Attributes:
        question: [N] number of the question, from 0: games of one are drawn together by the bootstrap.
        model: [N] number of the model, from 0.
        points: [N] what the model got: 1, 0.5 or 0.
        weight: [N] how often the game counts.
        style: [N, S] difference of styles, model's minus baseline's, scaled; S may be 0.
    """

    question: Ints
    model: Ints
    points: Floats
    weight: Floats
    style: Floats


def shares(battles: Battles, weight: Floats, models: int) -> Floats:
    """[M] weighted share of the points of each model; NaN where it has no game."""
    total = np.bincount(battles.model, weight, models)
    won = np.bincount(battles.model, weight * battles.points, models)
    with np.errstate(invalid="ignore", divide="ignore"):
        return won / total


def fit(battles: Battles, weight: Floats, models: int, start: Floats | None = None) -> Floats:
    """[M + S] β and γ that maximise Σ w [y log σ(η) + (1 - y) log σ(-η)] - RIDGE / 2 · |coefficients|².

    Newton's method, each step halved until the objective falls.

    Args:
        battles: the games.
        weight: [N] in place of the battles' own.
        models: M.
        start: where to begin; zeros by default.
    """
    coefficients = np.zeros(models + battles.style.shape[1]) if start is None else start.copy()
    loss = _loss(battles, weight, coefficients, models)
    for _ in range(_STEPS):
        step = np.linalg.solve(*_newton_system(battles, weight, coefficients, models))
        for _ in range(_HALVINGS):
            moved = coefficients - step
            new = _loss(battles, weight, moved, models)
            if new <= loss:
                break
            step = step / 2
        else:
            return coefficients
        done = np.abs(step).max(initial=0.0) < _TOLERANCE
        coefficients, loss = moved, new
        if done:
            break
    return coefficients


def _logits(battles: Battles, coefficients: Floats, models: int) -> Floats:
    return coefficients[:models][battles.model] + battles.style @ coefficients[models:]


def _loss(battles: Battles, weight: Floats, coefficients: Floats, models: int) -> float:
    logits = _logits(battles, coefficients, models)
    likelihood = weight @ (np.logaddexp(0, logits) - battles.points * logits)
    return float(likelihood + RIDGE / 2 * coefficients @ coefficients)


def _newton_system(battles: Battles, weight: Floats, coefficients: Floats, models: int) -> tuple[Floats, Floats]:
    """Hessian and gradient. A game has one model, so that the models' part of the Hessian is diagonal."""
    chance = _chance(_logits(battles, coefficients, models))
    error, spread = weight * (chance - battles.points), weight * chance * (1 - chance)
    gradient = np.concatenate([np.bincount(battles.model, error, models), battles.style.T @ error])
    styled = battles.style * spread[:, None]
    mixed = np.array([np.bincount(battles.model, column, models) for column in styled.T]).reshape(-1, models)
    hessian = np.block(
        [[np.diag(np.bincount(battles.model, spread, models)), mixed.T], [mixed, styled.T @ battles.style]]
    )
    return hessian + RIDGE * np.eye(len(coefficients)), gradient + RIDGE * coefficients


@dataclass(frozen=True)
class WinRates:
    """Chances against the baseline, 0 to 1.

    Attributes:
        rate: [M] at equal style (or at the mean style, where the differences were centred).
        low, high: [M] ends of the 95 % interval.
        coefficients: [S] γ; empty without style.
    """

    rate: Floats
    low: Floats
    high: Floats
    coefficients: Floats


def win_rates(battles: Battles, models: int, *, rounds: int, seed: int) -> WinRates:
    """Each model's chance to beat the baseline, with percentile intervals of a bootstrap over questions.

    Args:
        battles: the games of M models.
        models: M.
        rounds: of the bootstrap.
        seed: of it.
    """
    if battles.style.shape[1] == 0:
        drawn = np.array([shares(battles, weight, models) for weight in _resampled(battles, rounds, seed)])
        return _rates(shares(battles, battles.weight, models), drawn, np.zeros(0))
    best = fit(battles, battles.weight, models)
    drawn = np.array([_styled_rates(battles, weight, models, best) for weight in _resampled(battles, rounds, seed)])
    return _rates(_styled_rates(battles, battles.weight, models, best), drawn, best[models:])


def _styled_rates(battles: Battles, weight: Floats, models: int, start: Floats) -> Floats:
    """[M] chance of each model at style 0; NaN where it has no game, of which the ridge alone would make a half."""
    played = np.bincount(battles.model, weight, models) > 0
    return np.where(played, _chance(fit(battles, weight, models, start)[:models]), np.nan)


def _rates(rate: Floats, drawn: Floats, coefficients: Floats) -> WinRates:
    low, high = percentile_interval(drawn) if len(drawn) else (rate, rate)
    return WinRates(rate, low, high, coefficients)


def percentile_interval(drawn: Floats) -> tuple[Floats, Floats]:
    """The 2.5th and 97.5th percentile of each column of [rounds, M]; NaN values (nothing was drawn) are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column of NaN alone: its ends are NaN
        low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    return low, high


def _resampled(battles: Battles, rounds: int, seed: int) -> Iterator[Floats]:
    """Weights [N] in which each question counts as often as it was drawn."""
    rng = np.random.default_rng(seed)
    count = int(battles.question.max(initial=-1)) + 1
    for _ in range(rounds):
        times = np.bincount(rng.integers(0, count, count), minlength=count)
        yield battles.weight * times[battles.question]


def _chance(strength: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(strength, -500, 500)))


def style_differences(own: Floats, other: Floats) -> Floats:
    """[N, 4] style of the model against the baseline's, from counts [N, 4] of tokens, headings, list items, bold text.

    As arena-hard-auto defines it: lengths as (a - b) / (a + b); the others for each token, as (a - b) / (a + b + 1).
    """
    length, other_length = np.maximum(own[:, :1], 1), np.maximum(other[:, :1], 1)
    density, other_density = own[:, 1:] / length, other[:, 1:] / other_length
    return np.concatenate(
        [(length - other_length) / (length + other_length), (density - other_density) / (density + other_density + 1)],
        axis=1,
    )


def scaled(differences: Floats, weight: Floats, *, centred: bool) -> Floats:
    """Differences divided by their weighted standard deviation (columns that never vary become 0).

    Args:
        differences: [N, S].
        weight: [N].
        centred: subtract the mean first, as arena-hard-auto does; then 0 stands for the mean difference in style, not
            for equal style.
    """
    if not len(differences):
        return differences
    mean = np.average(differences, axis=0, weights=weight)
    deviation = np.sqrt(np.average((differences - mean) ** 2, axis=0, weights=weight))
    varies = deviation > 1e-12
    return np.where(varies, (differences - mean * centred) / np.where(varies, deviation, 1.0), 0.0)

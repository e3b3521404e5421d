"""Shares with their uncertainty, quantiles, and agreement of two raters."""

import math

_Z = 1.959963984540054  # two-sided 95 %


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson, 1927); 0 and 1 without trials.

    Raises:
        ValueError: more hits than trials, or a negative number.
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits in {trials} trials")
    if trials == 0:
        return 0.0, 1.0
    share, z2 = hits / trials, _Z * _Z
    middle = share + z2 / (2 * trials)
    spread = _Z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    low, high = ((middle + sign * spread) / (1 + z2 / trials) for sign in (-1, 1))
    return (0.0 if hits == 0 else low), (1.0 if hits == trials else high)


def quantile_rank(percent: int, count: int) -> int:
    """The place (from 1) in ``count`` sorted values of the smallest one that ``percent`` of them do not exceed."""
    return max(1, -(-count * percent // 100))


def kappa(both: int, only_first: int, only_second: int, neither: int) -> float | None:
    """Cohen's kappa of two raters who said yes or no: (observed - expected agreement) / (1 - expected).

    None where it is not defined: no cases, or both raters always said the same one thing.
    """
    total = both + only_first + only_second + neither
    if total == 0:
        return None
    first, second = (both + only_first) / total, (both + only_second) / total
    expected = first * second + (1 - first) * (1 - second)
    return None if expected == 1 else ((both + neither) / total - expected) / (1 - expected)

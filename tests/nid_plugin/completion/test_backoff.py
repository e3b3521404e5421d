"""Waits between attempts."""

import pytest
import tenacity

from nid_plugin.completion.backoff import seconds_to_wait
from nid_plugin.completion.teacher import Again


def wait(attempt: int, retry_after: float | None, reason: str = "http 429") -> float:
    """The longest of many waits after so many attempts."""

    async def nothing() -> None:
        pass

    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), nothing, (), {})
    state.attempt_number = attempt
    error = Again(reason, "slow down", retry_after=retry_after)
    state.set_exception((Again, error, None))
    return max(seconds_to_wait(state) for _ in range(200))


@pytest.mark.parametrize(("attempt", "longest"), [(1, 0.1), (2, 0.2), (4, 0.8), (20, 60)])
def test_waits_grow(attempt: int, longest: float) -> None:
    assert 0.8 * longest < wait(attempt, None, "connection broken") <= longest
    assert 0.8 * min(60, 5 * longest) < wait(attempt, None, "http 503") <= min(60, 5 * longest)


def test_what_the_endpoint_asks_for_is_the_least() -> None:
    assert 30 < wait(1, 30) <= 31


def test_an_endpoint_that_asks_for_nothing_is_not_hammered() -> None:
    assert wait(6, 0) > 4

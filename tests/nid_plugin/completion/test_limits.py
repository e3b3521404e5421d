"""Requests and tokens a minute, in the time of an event loop that jumps instead of waiting."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

import pytest

from nid_plugin.completion.limits import RateLimits
from nid_plugin.completion.settings import Connection


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            # A little more than the timer says, as with a real clock: sums of fractions fall short of it.
            self.now = max(self.now, self._scheduled[0].when()) + 1e-9  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def simulated(main: Coroutine[Any, Any, None]) -> None:
    loop = JumpingLoop()
    try:
        loop.run_until_complete(main)
    finally:
        loop.close()


def times_of(connection: Connection, sizes: list[int]) -> list[float]:
    """When each of so many requests, all wanted at once, is let through, in seconds."""
    times: list[float] = []

    async def main() -> None:
        limits = RateLimits(connection)

        async def one(size: int) -> None:
            await limits.wait(size)
            times.append(asyncio.get_running_loop().time())

        await asyncio.gather(*map(one, sizes))

    simulated(main())
    return times


@pytest.mark.parametrize("per_minute", [2, 10, 60, 500])
def test_no_minute_sees_more_requests_than_allowed_and_hardly_fewer(per_minute: int) -> None:
    times = times_of(Connection(requests_per_minute=per_minute), [1] * (3 * per_minute))
    most = max(sum(start <= other < start + 60 for other in times) for start in times)
    assert most <= per_minute
    assert times[-1] < 3 * 60 * 1.7 + 60


@pytest.mark.parametrize("per_minute", [1000, 90_000])
def test_no_minute_sees_more_tokens_than_allowed(per_minute: int) -> None:
    sizes = [per_minute // 7] * 40
    times = times_of(Connection(tokens_per_minute=per_minute), sizes)
    for start in times:
        assert sum(size for size, time in zip(sizes, times, strict=True) if start < time < start + 60) <= per_minute
    assert times[-1] < 60 * 40 / 7 * 1.2


def test_a_request_larger_than_the_limit_of_a_minute_goes_through_in_the_end() -> None:
    assert len(times_of(Connection(tokens_per_minute=100), [1000, 10])) == 2


def test_no_limits_no_waiting() -> None:
    assert times_of(Connection(), [10**9] * 5) == [0.0] * 5

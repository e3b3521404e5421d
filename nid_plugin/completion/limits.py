"""Requests and tokens a minute."""

import asyncio

from aiolimiter import AsyncLimiter

from nid_plugin.completion.settings import Connection


class RateLimits:
    """Lets requests through so that the endpoint's limits a minute hold.

    A leaky bucket that holds a second's worth; what it holds and what leaks in a minute are together the limit, so that
    no minute sees more.
    """

    def __init__(self, connection: Connection) -> None:
        self._requests = _bucket(connection.requests_per_minute)
        self._tokens = _bucket(connection.tokens_per_minute)
        self._turn = asyncio.Lock()

    async def wait_unless(self, stop: asyncio.Event, tokens: int) -> bool:
        """Like :meth:`wait`; False, at once, when ``stop`` is set before that is over."""
        if self._requests is None and self._tokens is None:
            return True
        waiting, stopped = asyncio.ensure_future(self.wait(tokens)), asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((waiting, stopped), return_when=asyncio.FIRST_COMPLETED)
            return waiting.done() and not stop.is_set()
        finally:
            waiting.cancel()
            stopped.cancel()

    async def wait(self, tokens: int) -> None:
        """Wait until one more request of so many tokens (prompt and longest answer) may be sent."""
        if self._requests is not None:
            await self._requests.acquire()
        if self._tokens is not None:
            left = float(tokens)
            async with self._turn:  # else all that wait would share what leaks, and end together
                while left > 0:
                    part = min(left, self._tokens.max_rate)
                    await self._tokens.acquire(part)
                    left -= part


def _bucket(per_minute: int | None) -> AsyncLimiter | None:
    if per_minute is None:
        return None
    holds = max(1.0, per_minute / 61)
    leaks = max(per_minute - holds, per_minute / 2) / 60  # a second
    return AsyncLimiter(holds, holds / leaks)

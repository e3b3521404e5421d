"""How long to wait before a request is sent again."""

import random

import tenacity

from nid_plugin.completion.teacher import Again

BUSY = ("http 429", "http 503", "http 529")
"""Reasons by which an endpoint says that it has too much to do."""

_after_busy = tenacity.wait_random_exponential(multiplier=0.5, max=60)
_after_fault = tenacity.wait_random_exponential(multiplier=0.1, max=60)


def seconds_to_wait(state: tenacity.RetryCallState) -> float:
    """A random time below a tenth of a second, doubled after each attempt, at most a minute, or what is asked for.

    Five times as long where the endpoint is busy: what failed by accident may be sent again soon, but requests that are
    refused for their number count towards it. What the endpoint asks for gets up to a tenth (0.1 to 1 second) more, so
    that not all come back at once. It may ask for next to nothing again and again: without the growing time all
    attempts would be over in a second.
    """
    error = state.outcome.exception() if state.outcome else None
    busy = isinstance(error, Again) and error.reason in BUSY
    own = float((_after_busy if busy else _after_fault)(state))
    if isinstance(error, Again) and error.retry_after is not None:
        return max(own, error.retry_after + random.uniform(0, min(1.0, 0.1 + error.retry_after / 10)))
    return own

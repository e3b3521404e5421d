"""How long to wait before a request is sent again."""

import random

import tenacity

from nid_plugin.completion.teacher import Again

_exponential = tenacity.wait_random_exponential(multiplier=0.5, max=60)


def seconds_to_wait(state: tenacity.RetryCallState) -> float:
    """What the endpoint asks for and up to a tenth (0.1 to 1 second) more, so that not all come back at once.

    Where it does not ask: a random time below half a second, doubled after each attempt, at most a minute.
    """
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, Again) and error.retry_after is not None:
        return error.retry_after + random.uniform(0, min(1.0, 0.1 + error.retry_after / 10))
    return float(_exponential(state))

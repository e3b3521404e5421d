import os
import signal

import pytest

from plugin_common.errors import UserError
from plugin_common.ordered_pool import ordered_map


def square(number: int) -> int:
    return number * number


def fail_at_three(number: int) -> int:
    if number == 3:
        raise UserError("three")
    return number


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [1, 3])
def test_results_in_order(workers):
    assert list(ordered_map(square, range(50), workers)) == [number * number for number in range(50)]


def test_input_is_read_only_a_little_ahead():
    read = []
    results = ordered_map(square, (read.append(number) or number for number in range(1000)), 2)
    assert next(results) == 0
    assert len(read) <= 7
    results.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_come_through(workers):
    with pytest.raises(UserError, match="three"):
        list(ordered_map(fail_at_three, range(10), workers))


def test_killed_worker_is_told():
    with pytest.raises(UserError, match=r"a worker process was killed.*fewer: --workers 1"):
        list(ordered_map(die_at_three, range(10), 2))

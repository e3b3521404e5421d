import threading
import time

import pytest

from nid_plugin.documents.prefetching import prefetched


def test_the_same_items_in_the_same_order():
    assert list(prefetched(iter(range(1000)))) == list(range(1000))
    assert list(prefetched(iter(()))) == []
    assert list(prefetched(iter([None, None]))) == [None, None]


def test_errors_come_where_they_would_have_come():
    def items():
        yield 1
        yield 2
        raise ValueError("broken")

    stream = prefetched(items())
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(ValueError, match="broken"):
        next(stream)


def test_one_item_is_fetched_ahead():
    asked = []

    def items():
        for number in range(5):
            asked.append(number)
            yield number

    stream = prefetched(items())
    assert next(stream) == 0
    deadline = time.monotonic() + 10
    while asked != [0, 1] and time.monotonic() < deadline:
        time.sleep(0.001)
    assert asked == [0, 1]
    assert list(stream) == [1, 2, 3, 4]


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    stream = prefetched(iter(range(10)))
    assert next(stream) == 0
    stream.close()
    assert threading.active_count() == before

import errno
import random
from collections import Counter
from hashlib import sha256

import pytest

from nid_plugin.documents import sampling
from nid_plugin.documents.sampling import Sample
from plugin_common.errors import UserError


def digest(number: int) -> bytes:
    return sha256(str(number).encode()).digest()[:16]


def draw(numbers, size, seed) -> list[int]:
    sample = Sample(size, seed)
    for number in numbers:
        sample.add(digest(number), str(number).encode())
    return [int(record) for record in sample.records()]


def test_the_same_documents_in_any_order_given_in_stream_order():
    numbers = list(range(500))
    expected = draw(numbers, 40, seed=3)
    assert len(expected) == 40
    assert expected == sorted(expected)
    random.Random(1).shuffle(numbers)
    assert sorted(draw(numbers, 40, seed=3)) == expected
    assert draw(range(500), 40, seed=4) != expected


def test_equal_documents_are_drawn_once():
    assert draw([*range(10), *range(10)], 10, seed=1) == list(range(10))
    assert draw([1, 1, 1, 2], 3, seed=1) == [1, 2]


def test_every_document_is_equally_likely():
    drawn = Counter(number for seed in range(2000) for number in draw(range(10), 3, seed))
    assert all(abs(drawn[number] - 600) < 5 * (2000 * 0.3 * 0.7) ** 0.5 for number in range(10))


def test_may_draw_tells_early_what_add_would_leave_out():
    sample = Sample(5, seed=1)
    for number in range(300):
        expected = sample.may_draw(digest(number))
        before = {entry[0] for entry in sample._drawn}
        sample.add(digest(number), b"x")
        assert ({entry[0] for entry in sample._drawn} != before) == expected


def test_negative_seeds_work():
    assert draw(range(100), 5, seed=-7) == draw(range(100), 5, seed=-7)


def test_the_temporary_file_stays_small(monkeypatch):
    monkeypatch.setattr(sampling, "_LEAST_GARBAGE_BYTES", 0)
    numbers = list(range(3000))
    sample, largest = Sample(20, seed=1), 0
    for number in numbers:
        sample.add(digest(number), str(number).encode() * 10)
        largest = max(largest, sample._end)
    assert [int(record[: len(record) // 10]) for record in sample.records()] == draw(numbers, 20, seed=1)
    assert largest <= 3 * 20 * 50


def test_a_full_disk_is_explained(monkeypatch):
    sample = Sample(2, seed=1)

    class Full:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sample, "_file", Full())
    with pytest.raises(UserError, match=r"No space left.*TMPDIR"):
        sample.add(digest(1), b"x")

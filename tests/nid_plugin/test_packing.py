"""Packing: every document once, within the limits, nearly full, quick, the same again."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nid_plugin import packing
from nid_plugin.packing import pack
from plugin_common.errors import UserError

Indices = NDArray[np.int64]


def _indices(values: list[int]) -> Indices:
    return np.asarray(values, dtype=np.int64)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_every_place_once_within_both_limits(data: st.DataObject) -> None:
    lengths = _indices(data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=120)))
    order = _indices(data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=200)))
    max_tokens = data.draw(st.one_of(st.none(), st.integers(int(lengths.max()), 90)))
    max_sentences = data.draw(st.one_of(st.integers(1, 9), *([st.none()] if max_tokens else [])))
    batches = pack(lengths, order, max_tokens=max_tokens, max_sentences=max_sentences)
    assert sorted(index for batch in batches for index in batch) == sorted(order)
    assert all(len(batch) for batch in batches)
    if max_tokens is not None:
        assert max((lengths[batch].sum() for batch in batches), default=0) <= max_tokens
    if max_sentences is not None:
        assert max(map(len, batches), default=0) <= max_sentences
    again = pack(lengths, order, max_tokens=max_tokens, max_sentences=max_sentences)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def _fewest(sizes: list[int], rooms: list[int], max_tokens: int) -> int:
    """The smallest number of batches, by trying all."""
    if not sizes:
        return len(rooms)
    first, rest = sizes[0], sizes[1:]
    tried = [
        _fewest(rest, [*rooms[:row], room - first, *rooms[row + 1 :]], max_tokens)
        for row, room in enumerate(rooms)
        if room >= first and room not in rooms[:row]
    ]
    return min([*tried, _fewest(rest, [*rooms, max_tokens - first], max_tokens)])


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=7))
def test_few_documents_take_no_more_batches_than_best_fit_may(sizes: list[int]) -> None:
    batches = pack(_indices(sizes), np.arange(len(sizes)), max_tokens=12, max_sentences=None)
    fewest = _fewest(sizes, [], 12)
    assert fewest <= len(batches) <= int(1.7 * fewest)  # the known bound of best fit


def test_a_document_goes_where_it_leaves_least_room() -> None:
    batches = pack(_indices([6, 7, 5, 3, 4]), np.arange(5), max_tokens=10, max_sentences=None)
    assert sorted(map(sorted, (batch.tolist() for batch in batches))) == [[0, 4], [1, 3], [2]]


def test_what_is_open_at_the_end_is_packed_again() -> None:
    sizes = [4, 4, 4, 6, 6, 6]  # online: 4 + 4, 4 + 6, 6, 6
    batches = pack(_indices(sizes), np.arange(6), max_tokens=10, max_sentences=None)
    assert [sum(sizes[index] for index in batch) for batch in batches] == [10, 10, 10]


@pytest.mark.parametrize(("cut_at", "max_tokens"), [(512, 2048), (1024, 2048), (2048, 4096), (2048, 8192)])
def test_real_lengths_fill_batches(cut_at: int, max_tokens: int) -> None:
    source = np.random.default_rng(0)
    lengths = np.clip(source.lognormal(np.log(420), 0.6, 20_000), 5, cut_at).astype(np.int64)
    batches = pack(lengths, source.permutation(len(lengths)), max_tokens=max_tokens, max_sentences=None)
    assert lengths.sum() / (len(batches) * max_tokens) >= 0.97


def test_batches_stay_random() -> None:
    source = np.random.default_rng(0)
    lengths = np.clip(source.lognormal(np.log(420), 0.6, 20_000), 5, 2048).astype(np.int64)
    order = source.permutation(len(lengths))
    batches = pack(lengths, order, max_tokens=4096, max_sentences=None)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    spread = [np.ptp(place[batch]) for batch in batches]
    assert np.median(spread) < packing.OPEN_BATCHES  # neighbours in the given order, not documents of like length
    tenths = np.array_split(np.array([lengths[batch].mean() for batch in batches]), 10)
    assert max(map(np.mean, tenths)) / min(map(np.mean, tenths)) < 1.25


def test_a_million_documents_take_seconds() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(6, 0.8, 1_000_000), 5, 2048).astype(np.int64)
    start = time.process_time()
    batches = pack(lengths, np.arange(len(lengths)), max_tokens=8192, max_sentences=None)
    assert time.process_time() - start < 10
    assert sum(map(len, batches)) == len(lengths)


def test_nothing_to_pack() -> None:
    assert pack(_indices([3]), _indices([]), max_tokens=5, max_sentences=None) == []


@pytest.mark.parametrize(
    ("max_tokens", "max_sentences", "message"),
    [
        (None, None, "neither `--max-tokens` nor `--batch-size` is given"),
        (0, None, "`--max-tokens` must be at least 1, found 0"),
        (9, 0, "`--batch-size` must be at least 1, found 0"),
        (6, None, r"a pair of 7 tokens does not fit into `--max-tokens 6`; raise it, or let `--tokens-per-pair 6`"),
    ],
)
def test_limits_that_cannot_be_kept(max_tokens: int | None, max_sentences: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pack(_indices([5, 7]), _indices([0, 1]), max_tokens=max_tokens, max_sentences=max_sentences)

"""Up-sampling by its definition, on cases that can be checked by eye and on random ones."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nat_plugin.upsampling import (
    duplicate_tokens,
    exact_ratio,
    insert_masks,
    strip_last,
    upsampled_lengths,
    upsampled_width,
)

MASK, PAD, M = 99, 1, 99
ROWS = [[11, 12, 13], [21], [], [31, 32]]


def batch(rows):
    width = max(map(len, rows), default=0)
    tokens = torch.tensor([r + [PAD] * (width - len(r)) for r in rows], dtype=torch.int64).reshape(len(rows), width)
    return tokens, torch.tensor([len(r) for r in rows], dtype=torch.int64)


def unbatch(tokens, lengths):
    rows = [row[:n] for row, n in zip(tokens.tolist(), lengths.tolist(), strict=True)]
    assert tokens.size(1) == max(map(len, rows), default=0)
    assert all(set(row[n:]) <= {PAD} for row, n in zip(tokens.tolist(), lengths.tolist(), strict=True))
    return rows


@pytest.mark.parametrize(
    ("ratio", "placement", "expected"),
    [
        (1.0, "uniform", ROWS),
        (2.0, "uniform", [[11, M, 12, M, 13, M], [21, M], [], [31, M, 32, M]]),
        (3.0, "uniform", [[11, M, M, 12, M, M, 13, M, M], [21, M, M], [], [31, M, M, 32, M, M]]),
        (2.5, "uniform", [[11, M, M, 12, M, 13, M, M], [21, M, M], [], [31, M, M, 32, M]]),
        (2.0, "right", [[11, 12, 13, M, M, M], [21, M], [], [31, 32, M, M]]),
        (2.0, "left", [[M, M, M, 11, 12, 13], [M, 21], [], [M, M, 31, 32]]),
    ],
)
def test_mask_insertion_by_eye(ratio, placement, expected):
    assert unbatch(*insert_masks(*batch(ROWS), ratio, mask=MASK, pad=PAD, placement=placement)) == expected


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (1.0, ROWS),
        (2.0, [[11, 11, 12, 12, 13, 13], [21, 21], [], [31, 31, 32, 32]]),
        (1.5, [[11, 11, 12, 13, 13], [21, 21], [], [31, 31, 32]]),
    ],
)
def test_token_duplication_by_eye(ratio, expected):
    assert unbatch(*duplicate_tokens(*batch(ROWS), ratio, pad=PAD)) == expected


ratios = st.integers(100, 700).map(lambda n: n / 100)


@given(st.lists(st.lists(st.integers(2, 50), max_size=9), min_size=1, max_size=4), ratios, st.integers(9, 30))
def test_every_token_stays_in_order_and_nothing_passes_the_positions(rows, ratio, max_length):
    tokens, lengths = batch(rows)
    expected = [min(math.ceil(Fraction(str(ratio)) * len(r)), max_length) for r in rows]
    for placement in ("uniform", "right", "left"):
        got = unbatch(
            *insert_masks(tokens, lengths, ratio, mask=MASK, pad=PAD, placement=placement, max_length=max_length)
        )
        assert [[t for t in row if t != MASK] for row in got] == rows
        assert [len(row) for row in got] == expected
    doubled = unbatch(*duplicate_tokens(tokens, lengths, ratio, pad=PAD, max_length=max_length))
    assert [len(row) for row in doubled] == expected
    for row, source in zip(doubled, rows, strict=True):
        masked = unbatch(*insert_masks(*batch([source]), ratio, mask=MASK, pad=PAD, max_length=max_length))[0]
        last_token_before: list[int] = []
        for label in masked:
            last_token_before.append(last_token_before[-1] if label == MASK else label)
        assert row == last_token_before


@given(st.lists(st.integers(2, 50), min_size=1, max_size=9), ratios)
def test_uniform_places_are_the_nearest(row, ratio):
    (got,) = unbatch(*insert_masks(*batch([row]), ratio, mask=MASK, pad=PAD))
    places = [t for t, label in enumerate(got) if label != MASK]
    assert places == [math.floor(i * Fraction(str(ratio)) + Fraction(1, 2)) for i in range(len(row))]


def test_ratios_written_with_many_digits_do_not_overflow():
    """5/3 as a float prints 17 digits; products of these with positions would pass 64 bits."""
    row = list(range(2, 302))
    (got,) = unbatch(*insert_masks(*batch([row]), 5 / 3, mask=1000, pad=PAD, max_length=511))
    assert len(got) == 500
    assert [t for t, label in enumerate(got) if label != 1000] == [(10 * i + 3) // 6 for i in range(300)]


def test_a_row_does_not_depend_on_its_batch():
    together = unbatch(*insert_masks(*batch(ROWS), 2.5, mask=MASK, pad=PAD, max_length=6))
    alone = [unbatch(*insert_masks(*batch([r]), 2.5, mask=MASK, pad=PAD, max_length=6))[0] for r in ROWS]
    assert together == alone


def test_lengths_are_exact_where_floats_are_not():
    lengths = torch.arange(1, 200)
    assert upsampled_lengths(lengths, 2.2).tolist() == [-(-n * 11 // 5) for n in range(1, 200)]


@pytest.mark.parametrize("ratio", [0.99, 0.0, -2.0, float("inf"), float("nan")])
def test_ratios_under_one_are_refused(ratio):
    with pytest.raises(ValueError, match="at least 1"):
        exact_ratio(ratio)


def test_strip_last():
    tokens, lengths = batch([[5, 6, 2], [5, 2, 6], [2], []])
    stripped, new_lengths = strip_last(tokens, lengths, symbol=2, pad=PAD)
    assert [row[:n] for row, n in zip(stripped.tolist(), new_lengths.tolist(), strict=True)] == [
        [5, 6],
        [5, 2, 6],
        [],
        [],
    ]
    assert stripped[0].tolist() == [5, 6, PAD]


@given(
    rows=st.lists(st.lists(st.integers(10, 20), max_size=6), min_size=1, max_size=4),
    ratio=st.sampled_from([1.0, 1.5, 2.0, 2.7]),
    most=st.sampled_from([None, 6, 9]),
    placement=st.sampled_from(["uniform", "left", "right", "duplicate"]),
)
def test_a_width_known_beforehand_only_adds_padding(rows, ratio, most, placement):
    tokens, lengths = batch(rows)

    def up(**width):
        if placement == "duplicate":
            return duplicate_tokens(tokens, lengths, ratio, pad=PAD, max_length=most, **width)
        return insert_masks(tokens, lengths, ratio, mask=MASK, pad=PAD, placement=placement, max_length=most, **width)

    width = upsampled_width(tokens.size(1) + 1, ratio, most)
    (tight, tight_lengths), (wide, wide_lengths) = up(), up(width=width)
    assert wide_lengths.tolist() == tight_lengths.tolist()
    if tokens.size(1):
        assert wide.shape == (len(rows), width)
    assert torch.equal(wide[:, : tight.size(1)], tight)
    assert wide[:, tight.size(1) :].eq(PAD).all()


@given(length=st.integers(0, 600), ratio=st.sampled_from([1.0, 1.5, 2.0, 2.2, 5 / 3]), most=st.sampled_from([None, 99]))
def test_the_hosts_width_is_the_devices(length, ratio, most):
    assert upsampled_width(length, ratio, most) == int(upsampled_lengths(torch.tensor([length]), ratio, most))

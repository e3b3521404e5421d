from typing import Any

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, LanguagePairDataset
from hypothesis import given
from hypothesis import strategies as st

from plugin_common.batching import batch_every_sentence


def pairs(sizes: list[int]) -> LanguagePairDataset:
    sources = [torch.full((size,), 5) for size in sizes]
    return LanguagePairDataset(sources, np.array(sizes), Dictionary(), shuffle=False)


def flat(batches: list[Any]) -> list[int]:
    return [int(index) for batch in batches for index in batch]


def batched(sizes: list[int], max_tokens: int | None, max_sentences: int | None, multiple: int) -> list[Any]:
    return batch_every_sentence(
        pairs(sizes).batch_by_size,
        np.arange(len(sizes)),
        max_tokens=max_tokens,
        max_sentences=max_sentences,
        required_batch_size_multiple=multiple,
    )


@pytest.mark.parametrize("count", [1, 7, 8, 9, 508])
def test_fairseq_drops_what_is_kept_here(count: int) -> None:
    own = pairs([3] * count).batch_by_size(np.arange(count), max_sentences=16, required_batch_size_multiple=8)
    assert len(flat(own)) == count - count % 8, "fairseq has mended its batch_by_size: this module can go"
    assert flat(batched([3] * count, None, 16, 8)) == list(range(count))


@given(
    sizes=st.lists(st.integers(1, 30), max_size=70),
    max_tokens=st.none() | st.integers(30, 200),
    max_sentences=st.none() | st.integers(1, 20),
    multiple=st.integers(1, 16),
)
def test_each_sentence_once_in_order_and_within_the_limits(
    sizes: list[int], max_tokens: int | None, max_sentences: int | None, multiple: int
) -> None:
    batches = batched(sizes, max_tokens, max_sentences, multiple)
    assert flat(batches) == list(range(len(sizes)))
    for batch in batches:
        assert max_tokens is None or len(batch) * max(sizes[i] for i in batch) <= max_tokens
        # fairseq takes the larger of --batch-size and the multiple that it rounds up to
        assert max_sentences is None or len(batch) <= max(max_sentences, multiple)


def test_nothing_to_batch() -> None:
    assert batched([], 100, None, 8) == []

"""No sentence is dropped at the end of a batch list."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

BatchBySize = Callable[..., list[Any]]


def batch_every_sentence(
    batch_by_size: BatchBySize,
    indices: NDArray[np.int64],
    *,
    max_tokens: int | None,
    max_sentences: int | None,
    required_batch_size_multiple: int,
) -> list[Any]:
    """Batches that hold each of ``indices`` once, in order.

    fairseq's ``batch_by_size`` drops the last batch if its size is no multiple of ``required_batch_size_multiple``
    (whose default is 8): up to 7 sentences, or all of a small set. What it leaves out is batched again, with
    multiple 1.

    Args:
        batch_by_size: a ``FairseqDataset.batch_by_size``.
        indices: ``[N]`` the sentences in the order of batching.

    Returns:
        a list of lists of indices.
    """
    if len(indices) == 0:
        return []

    def batches_of(part: NDArray[np.int64], multiple: int) -> list[Any]:
        return list(
            batch_by_size(
                part,
                max_tokens=max_tokens,
                max_sentences=max_sentences,
                required_batch_size_multiple=multiple,
            )
        )

    batches = batches_of(indices, required_batch_size_multiple)
    batched = sum(len(batch) for batch in batches)
    if batched < len(indices):
        batches += batches_of(indices[batched:], 1)
    return batches

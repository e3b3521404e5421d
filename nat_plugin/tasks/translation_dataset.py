"""Parallel sentences, right-padded, each in a batch exactly once."""

import logging
from typing import Any

import numpy as np
from fairseq.data import AppendTokenDataset, LanguagePairDataset, StripTokenDataset, TruncateDataset
from numpy.typing import NDArray

from plugin_common.batching import batch_every_sentence

logger = logging.getLogger(__name__)


class TranslationDataset(LanguagePairDataset):
    """fairseq's pair dataset without its end-of-list drop and without decoder inputs.

    Batches are made anew for each epoch, from seed and epoch alone: a resumed run sees the same ones.
    """

    can_reuse_epoch_itr_across_epochs = False
    first_line = 1
    """Where sentence 0 stands in the user's text."""
    interactive = False
    """Whether these are lines that somebody types, each of which must get its answer."""

    @classmethod
    def from_pairs(cls, pairs: LanguagePairDataset, *, max_source: int) -> "TranslationDataset":
        """The same sentences; sources cut to ``max_source`` tokens, ``</s>`` included."""
        return cls(
            truncate(pairs.src, max_source, pairs.src_dict.eos()),
            np.minimum(pairs.src_sizes, max_source),
            pairs.src_dict,
            pairs.tgt,
            pairs.tgt_sizes,
            pairs.tgt_dict,
            left_pad_source=False,
            left_pad_target=False,
            shuffle=pairs.shuffle,
            input_feeding=False,
            num_buckets=0,
            pad_to_multiple=pairs.pad_to_multiple,
        )

    def batch_by_size(
        self,
        indices: NDArray[np.int64],
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[Any]:
        """Batches that hold every one of ``indices``."""
        return batch_every_sentence(
            super().batch_by_size,
            indices,
            max_tokens=max_tokens,
            max_sentences=max_sentences,
            required_batch_size_multiple=required_batch_size_multiple,
        )


def truncate(dataset: Any, max_length: int, eos: int) -> Any:
    """Cut sentences that are longer than ``max_length`` tokens; they still end in ``</s>``."""
    if not len(dataset) or int(np.max(dataset.sizes)) <= max_length:
        return dataset
    return AppendTokenDataset(TruncateDataset(StripTokenDataset(dataset, eos), max_length - 1), eos)


def line_list(indices: NDArray[np.int64], first_line: int = 1, most: int = 10) -> str:
    """``lines 3, 17, 204 and 5 more`` for 0-based ``indices``."""
    shown = ", ".join(str(i + first_line) for i in indices[:most].tolist())
    rest = len(indices) - most
    return f"line{'s' if len(indices) > 1 else ''} {shown}" + (f" and {rest} more" if rest > 0 else "")

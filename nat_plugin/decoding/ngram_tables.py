"""An n-gram back-off model as plain tables: what is read from, estimated for and written to ARPA files."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOS, EOS, UNK = "<s>", "</s>", "<unk>"
NEVER = -99.0
"""The base-10 logarithm that ARPA files give to what is never predicted, such as ``<s>``."""


@dataclass(frozen=True)
class NgramTable:
    """The n-grams of one order n, each once.

    Attributes:
        words: [m, n] int32, places in the model's vocabulary, oldest word first.
        log10_probs: [m] float32, of the last word after the others.
        log10_backoffs: [m] float32, of the n-gram as a context; 0 at the highest order.
    """

    words: NDArray[np.int32]
    log10_probs: NDArray[np.float32]
    log10_backoffs: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True)
class NgramTables:
    """A back-off model: its vocabulary and one table for each order, from 1.

    The n-gram in row i of the first table is vocabulary word i. All but the last word of any n-gram is an n-gram too.
    """

    vocabulary: Sequence[str]
    orders: Sequence[NgramTable]

    @property
    def order(self) -> int:
        """The length of the longest n-grams."""
        return len(self.orders)

    def text(self, n: int, row: int) -> str:
        """An n-gram in words."""
        return " ".join(self.vocabulary[word] for word in self.orders[n - 1].words[row])

"""Batches of few sizes, for a CPU.

oneDNN generates machine code for each number of rows that it multiplies, some 0.3 MiB for each shape of weights, and
keeps it for good, whatever the capacity of its cache of primitives. Packed batches have nearly as many numbers of rows
as tokens fit into them: a long training would grow by all of these. (Labels are fewer, and multiplied with one matrix
only.) So a batch is rounded up to one of 16 sizes an octave by a document of its own, which nothing looks at.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_SIZES_AN_OCTAVE = 16


def rounded_up(size: int) -> int:
    """The next of 16 sizes between a power of two and its double: by less than 1/16 more, and as it is up to 32."""
    step = max(1, (1 << max(0, size - 1).bit_length()) // (2 * _SIZES_AN_OCTAVE))
    return -(-size // step) * step


def fill_up(
    tokens: Tensor, position_ids: Tensor, document_lengths: Sequence[int]
) -> tuple[Tensor, Tensor, Sequence[int]]:
    """The same documents (``tokens [N]``, ``position_ids [N]``) and one more, of the symbol 0, if N is to grow."""
    more = rounded_up(len(tokens)) - len(tokens)
    if more == 0:
        return tokens, position_ids, document_lengths
    return (
        torch.cat([tokens, tokens.new_zeros(more)]),
        # Position 0 throughout: one beyond those of the documents could lie outside of what the model knows.
        torch.cat([position_ids, position_ids.new_zeros(more)]),
        [*document_lengths, more],
    )

"""The prefixes that a CTC beam search keeps, as arrays over the sentences of a batch and the slots of their beams."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

NO_TOKEN = -1
IMPOSSIBLE = -np.inf
# A free slot of the beam: no prefix extends it and it extends none (its two hashes differ).
_FREE_HASH, _FREE_PARENT_HASH, _ROOT_PARENT_HASH, _ROOT_HASH = (np.uint64(number) for number in (1, 2, 3, 4))


@dataclass
class PrefixBeams:
    """Every array is [B, beam]."""

    blank_end: Floats  # log-probability of the alignments that end in blank; impossible in a free slot
    label_end: Floats  # the same of those that end in the last label
    total: Floats  # logaddexp of the two
    extra: Floats  # lm_weight * log p_lm + token_bonus * tokens
    last: Ints  # last label; NO_TOKEN for the empty prefix
    state: Ints  # of the language model
    size: Ints  # tokens
    hash: Hashes  # of the prefix: 64 bits stand for its identity
    parent_hash: Hashes  # of the prefix without its last token

    @classmethod
    def start(cls, batch: int, beam: int) -> "PrefixBeams":
        """The empty prefix in each sentence's first slot, the others free; states are 0."""
        shape = (batch, beam)
        beams = cls(
            blank_end=np.full(shape, IMPOSSIBLE),
            label_end=np.full(shape, IMPOSSIBLE),
            total=np.full(shape, IMPOSSIBLE),
            extra=np.zeros(shape),
            last=np.full(shape, NO_TOKEN, dtype=np.int64),
            state=np.zeros(shape, dtype=np.int64),
            size=np.zeros(shape, dtype=np.int64),
            hash=np.full(shape, _FREE_HASH, dtype=np.uint64),
            parent_hash=np.full(shape, _FREE_PARENT_HASH, dtype=np.uint64),
        )
        beams.blank_end[:, 0] = beams.total[:, 0] = 0.0
        beams.hash[:, 0], beams.parent_hash[:, 0] = _ROOT_HASH, _ROOT_PARENT_HASH
        return beams

    def first(self, rows: int) -> "PrefixBeams":
        """The first ``rows`` sentences; what is written there is written here."""
        return PrefixBeams(*(getattr(self, field.name)[:rows] for field in fields(self)))

    def move(self, rows: Ints, source: Ints) -> None:
        """Put the prefixes of the slots ``source`` [rows, beam] into the slots 0, 1, … of ``rows``."""
        for field in fields(self):
            array = getattr(self, field.name)
            array[rows] = array[rows[:, None], source]

    def extend(self, target: tuple[Ints, Ints], token: Ints, log_prob: Floats, extra: Floats, state: Ints) -> None:
        """Add ``token`` to the prefixes in the slots ``target``, where they have just been moved."""
        self.blank_end[target] = IMPOSSIBLE
        self.label_end[target] = self.total[target] = log_prob
        self.extra[target], self.state[target], self.last[target] = extra, state, token
        self.size[target] += 1
        self.parent_hash[target] = self.hash[target]
        self.hash[target] = _longer(self.hash[target], token)

    def free(self, target: tuple[Ints, Ints]) -> None:
        """Empty the slots ``target``."""
        self.blank_end[target] = self.label_end[target] = self.total[target] = IMPOSSIBLE
        self.hash[target], self.parent_hash[target] = _FREE_HASH, _FREE_PARENT_HASH


def _longer(parent: Hashes, token: Ints) -> Hashes:
    """Hashes of prefixes made longer by a token (a 64-bit finalizer's shifts and products; overflow is meant)."""
    mixed = (parent ^ (token.astype(np.uint64) + np.uint64(5))) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xD6E8FEB86659FD93)
    return mixed ^ (mixed >> np.uint64(32))

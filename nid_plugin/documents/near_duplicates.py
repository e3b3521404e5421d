"""Near-duplicates in a stream, in memory that grows by some bytes a document.

MinHash signatures of the word 5-grams are cut into bands; two documents that agree in all of a band are candidates
(locality-sensitive hashing). The bands of earlier documents stand in Bloom filters instead of an index (LSHBloom,
arXiv 2411.04257), so candidates are taken for near-duplicates without a further check.
"""

from itertools import pairwise

import rbloom
import rensa
import xxhash

from nid_plugin.documents.words import words

HASHES = 128
SHINGLE_WORDS = 5
WRONG_DROPS = 1e-4
"""Bound on the share of documents that a Bloom filter takes for near-duplicates by mistake."""

_SEED = 1
_FIRST_CAPACITY = 100_000


class NearDuplicates:
    """Remembers documents, and tells whether a new one is much like one of them.

    Two documents whose sets of word 5-grams have Jaccard similarity s agree in a band with probability
    1 - (1 - s**rows)**bands; ``bands`` and ``rows`` are chosen so that this rises at ``threshold``. The result is the
    same on every run.

    Args:
        threshold: Jaccard similarity from 0.3 to 0.99.
    """

    def __init__(self, threshold: float) -> None:
        self.bands, self.rows = best_bands(threshold)
        self._bands_seen = GrowingBloomFilter(_FIRST_CAPACITY * self.bands, WRONG_DROPS / self.bands)

    def add(self, text: str) -> bool:
        """Remember the document unless it is much like an earlier one; False if it is."""
        keys = self._band_keys(text)
        if any(key in self._bands_seen for key in keys):
            return False
        for key in keys:
            self._bands_seen.add(key)
        return True

    def _band_keys(self, text: str) -> list[int]:
        signature = rensa.RMinHash(HASHES, _SEED)
        signature.update(shingles(text))
        digest = signature.digest()
        cuts = range(0, self.bands * self.rows + 1, self.rows)
        # 60 bits: below the modulus of Python's hash of integers, so that the hash is the number itself.
        return [
            xxhash.xxh3_64_intdigest(str(digest[start:end]).encode(), seed=band) >> 4
            for band, (start, end) in enumerate(pairwise(cuts))
        ]


def shingles(text: str) -> set[str]:
    """The sequences of five words, in lower case; all words as one where there are fewer."""
    listed = words(text.lower())
    if len(listed) <= SHINGLE_WORDS:
        return {" ".join(listed)}
    return {" ".join(group) for group in zip(*(listed[start:] for start in range(SHINGLE_WORDS)), strict=False)}


def best_bands(threshold: float) -> tuple[int, int]:
    """Bands and rows a band of at most ``HASHES`` hashes, with the least error at the threshold.

    The error is the area above the curve 1 - (1 - s**rows)**bands for similarities s over the threshold plus the area
    below it for s under the threshold.
    """

    def error(bands: int, rows: int) -> float:
        steps = [(step + 0.5) / 200 for step in range(200)]
        caught = [1 - (1 - s**rows) ** bands for s in steps]
        return sum(1 - c if s > threshold else c for s, c in zip(steps, caught, strict=True))

    choices = [(HASHES // rows, rows) for rows in range(1, HASHES + 1)]
    return min(choices, key=lambda choice: error(*choice))


class GrowingBloomFilter:
    """Bloom filters, each for twice as many members and half the errors of the one before.

    Args:
        capacity: members of the first one.
        wrong: bound on the probability that a value which is no member is taken for one.
    """

    def __init__(self, capacity: int, wrong: float) -> None:
        self._capacity, self._wrong = capacity, wrong / 2
        self._filters = [rbloom.Bloom(capacity, self._wrong)]
        self._room = capacity

    def __contains__(self, value: int) -> bool:
        return any(value in bloom for bloom in self._filters)

    def add(self, value: int) -> None:
        """Add a member; a non-negative integer below 2**60."""
        if self._room == 0:
            self._capacity *= 2
            self._wrong /= 2
            self._filters.append(rbloom.Bloom(self._capacity, self._wrong))
            self._room = self._capacity
        self._filters[-1].add(value)
        self._room -= 1

    @property
    def bytes(self) -> int:
        """Memory of the filters."""
        return sum(bloom.size_in_bits for bloom in self._filters) // 8

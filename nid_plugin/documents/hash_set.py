"""A set of 64-bit hashes in little memory."""

from array import array

_LARGEST_LOAD = 0.6


class HashSet:
    """A set of integers from 0 to 2**64 - 1, held in one flat table: 13 to 27 bytes for each of many members.

    Python's own set takes about 90. Open addressing with linear probing; the members must be evenly spread already,
    as hashes are.
    """

    def __init__(self) -> None:
        self._has_zero = False
        self._resize(2**10)
        self._count = 0

    def __len__(self) -> int:
        return self._count + self._has_zero

    def __contains__(self, value: int) -> bool:
        return self._has_zero if value == 0 else self._table[self._slot(value)] == value

    def add(self, value: int) -> bool:
        """Add a member; False if it was one before."""
        if value == 0:  # marks a free place in the table
            added, self._has_zero = not self._has_zero, True
            return added
        slot = self._slot(value)
        if self._table[slot] == value:
            return False
        self._table[slot] = value
        self._count += 1
        if self._count > _LARGEST_LOAD * len(self._table):
            self._resize(2 * len(self._table))
        return True

    def _slot(self, value: int) -> int:
        """Where the value stands, or the free place where it would."""
        table, mask = self._table, self._mask
        slot = value & mask
        while (there := table[slot]) and there != value:
            slot = (slot + 1) & mask
        return slot

    def _resize(self, size: int) -> None:
        old = getattr(self, "_table", array("Q"))
        self._table = array("Q", bytes(8 * size))
        self._mask = size - 1
        for value in old:
            if value:
                self._table[self._slot(value)] = value

"""What was spent: a journal of what was sent and what it came to, so that a limit holds across kills.

A request that was sent and never heard of again (a kill, a timeout, half a response) may have been billed. It counts at
the most that it can have cost, apart from what is known: ``spent`` is known, ``uncertain`` is not.

One line for sending (``s NAME DOLLARS``) and one for its end (``e NAME DOLLARS``; 0 where the endpoint refused it). A
name without an end is uncertain.
"""

import asyncio
import math
import os
from pathlib import Path

from nid_plugin.completion.durable_file import DurableFile
from nid_plugin.completion.ledger import Ledger
from nid_plugin.completion.prices import Price


class SpendingLimit(Exception):
    """The next request could pass the limit, and nothing in flight can change that; the message is for the user."""


class Spending:
    """US dollars spent, uncertain and reserved, with an optional limit on their sum.

    Args:
        path: of the journal; None keeps none (nothing is paid, or prices are unknown).
        limit: US dollars that the sum never passes.
        read_only: only look what there is.
        unjournaled: US dollars known to be spent of which the journal does not tell; part of ``spent``.

    Attributes:
        unsettled: what earlier runs sent and never heard of, dollars by name; part of ``uncertain``.
    """

    def __init__(
        self, path: Path | None, limit: float | None = None, *, read_only: bool = False, unjournaled: float = 0.0
    ) -> None:
        self.spent, self.uncertain, self.reserved = unjournaled, 0.0, 0.0
        self.limit = limit
        self._open: dict[str, float] = {}
        self.unsettled: dict[str, float] = {}
        self._run = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._count = 0
        self._changed = asyncio.Event()
        self._file = None if path is None else DurableFile(path, read_only=read_only)
        if self._file is not None:
            self._load(self._file)

    async def reserve(self, dollars: float) -> str:
        """Set the most that a request can cost aside, before it is sent; returns its name for :meth:`settle`.

        Waits for requests in flight where the limit leaves no room.

        Raises:
            SpendingLimit: there is no room, and nothing in flight.
            OSError: the journal cannot be written.
        """
        while self.limit is not None and self.total + dollars > self.limit + 1e-9:
            if self.reserved <= 1e-12:
                raise SpendingLimit(
                    f"the limit of {_shown(self.limit)} dollars leaves no room for the next request: "
                    f"{_shown(self.spent)} are spent, {_shown(self.uncertain)} more may be, and the request could cost "
                    f"{_shown(dollars)}"
                )
            self._changed.clear()
            await self._changed.wait()
        return self.reserve_now(dollars)

    def reserve_now(self, dollars: float, name: str | None = None) -> str:
        """Like :meth:`reserve`, whatever the limit.

        Args:
            dollars: the most that it can cost.
            name: one without blanks that was never used before, for what a later run may settle; None makes one.
        """
        self._count += 1
        name = name or f"{self._run}-{self._count}"
        if self._file is not None:
            self._file.append(f"s {name} {dollars:.9f}\n".encode(), sync=False)
        self._open[name] = dollars
        self.reserved += dollars
        return name

    def settle(self, name: str, dollars: float | None) -> None:
        """Tell what a request came to: dollars, 0 where it was not billed, None where nobody knows.

        ``name`` may be one that an earlier run reserved (see :attr:`unsettled`).

        Raises:
            OSError: the journal cannot be written. This run counts right all the same; later ones count the most that
                it can have cost.
        """
        if name in self.unsettled:  # of an earlier run
            reserved = self.unsettled.pop(name)
            self.uncertain -= reserved
        else:
            reserved = self._open.pop(name)
            self.reserved = self.reserved - reserved if self._open else 0.0
        if dollars is None:
            self.uncertain += reserved
        else:
            self.spent += dollars
        self._changed.set()
        if dollars is not None and self._file is not None:
            self._file.append(f"e {name} {dollars:.9f}\n".encode(), sync=False)

    def holds(self, name: str) -> bool:
        """Whether something is reserved under this name and not settled, by this run or an earlier one."""
        return name in self._open or name in self.unsettled

    @property
    def total(self) -> float:
        """What was spent, what may have been, and what requests in flight may cost."""
        return self.spent + self.uncertain + self.reserved

    def sync(self) -> None:
        """Wait until the journal is on the disk."""
        if self._file is not None:
            self._file.sync()

    def close(self) -> None:
        """Close the journal."""
        if self._file is not None:
            self._file.close()

    def _load(self, journal: DurableFile) -> None:
        sent: dict[str, float] = {}
        for _, line in journal.lines():
            kind, _, rest = line.decode("ascii", "replace").strip().partition(" ")
            name, _, number = rest.partition(" ")
            try:
                dollars = float(number)
            except ValueError:
                continue  # zeros after a power cut
            if not (math.isfinite(dollars) and dollars >= 0):
                continue  # one such number, and no limit would hold
            if kind == "s":
                sent[name] = dollars
            elif kind == "e":
                sent.pop(name, None)
                self.spent += dollars
        self.unsettled = sent
        self.uncertain = sum(sent.values())


def _shown(dollars: float) -> str:
    return f"{dollars:,.2f}" if dollars >= 0.1 or dollars < 1e-9 else f"{dollars:.2g}"


def spending_of(ledger: Ledger, price: Price | None, limit: float | None) -> Spending:
    """The spending of a ledger: a journal only where something is paid.

    Results that came while the price was not known count at the price as it is now.
    """
    if price is None or price.free:
        return Spending(None, limit)
    earlier = price.of(ledger.uncounted["prompt_tokens"], ledger.uncounted["completion_tokens"])
    return Spending(ledger.folder / "spending.log", limit, unjournaled=earlier)

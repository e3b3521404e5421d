"""The journal of what was spent: a limit holds across kills."""

import asyncio
from pathlib import Path

import pytest

from nid_plugin.completion.spending import Spending, SpendingLimit


def test_what_is_known_and_what_is_not(tmp_path: Path) -> None:
    journal = tmp_path / "log"
    first = Spending(journal)
    names = [first.reserve_now(1.0) for _ in range(4)]
    first.settle(names[0], 0.25)  # answered
    first.settle(names[1], 0.0)  # refused
    first.settle(names[2], None)  # timed out
    assert (first.spent, first.uncertain, first.reserved) == (0.25, 1.0, 1.0)
    # … and the fourth was in flight when the process was killed: no close().
    second = Spending(journal)
    assert (second.spent, second.uncertain, second.reserved) == (0.25, 2.0, 0.0)
    assert second.total == 2.25


def test_half_a_line_and_zeros_do_not_hurt(tmp_path: Path) -> None:
    journal = tmp_path / "log"
    first = Spending(journal)
    first.settle(first.reserve_now(1.0), 0.5)
    first.reserve_now(2.0)
    with journal.open("ab") as stream:
        stream.write(b"\0\0\0\0\ne x")
    second = Spending(journal)
    assert (second.spent, second.uncertain) == (0.5, 2.0)


def test_the_limit_is_never_passed_and_waits_for_what_is_in_flight() -> None:
    async def run() -> tuple[float, int]:
        spending = Spending(None, limit=1.0)
        most, refused = 0.0, 0

        async def one(real: float) -> None:
            nonlocal most, refused
            try:
                name = await spending.reserve(0.3)
            except SpendingLimit:
                refused += 1
                return
            most = max(most, spending.total)
            await asyncio.sleep(0.001)
            spending.settle(name, real)

        await asyncio.gather(*(one(0.05) for _ in range(40)))
        assert spending.spent == pytest.approx(0.75)  # one more could have come to 1.05
        return most, refused

    most, refused = asyncio.run(run())
    assert most <= 1.0
    assert refused == 25


def test_the_limit_counts_earlier_runs(tmp_path: Path) -> None:
    journal = tmp_path / "log"
    earlier = Spending(journal)
    earlier.settle(earlier.reserve_now(0.9), 0.9)
    with pytest.raises(SpendingLimit, match=r"limit of 1\.00 dollars.*0\.90 are spent.*could cost 0\.20"):
        asyncio.run(Spending(journal, limit=1.0).reserve(0.2))


def test_without_a_journal_nothing_is_written(tmp_path: Path) -> None:
    spending = Spending(None)
    spending.settle(spending.reserve_now(1.0), 1.0)
    spending.sync()
    spending.close()
    assert not list(tmp_path.iterdir())


def test_looking_changes_nothing(tmp_path: Path) -> None:
    journal = tmp_path / "log"
    journal.write_bytes(b"s a 1.0\ne a 0.5\ns b 2")
    spending = Spending(journal, read_only=True)
    assert spending.spent == 0.5
    assert journal.read_bytes() == b"s a 1.0\ne a 0.5\ns b 2"

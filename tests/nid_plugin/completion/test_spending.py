"""The journal of what was spent: a limit holds across kills."""

import asyncio
from pathlib import Path

import pytest

from nid_plugin.completion.durable_file import DurableFile
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


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "-5"])
def test_numbers_that_no_limit_would_survive(tmp_path: Path, number: str) -> None:
    journal = tmp_path / "log"
    journal.write_text(f"s a 1.0\ne a 0.5\ns b {number}\ne c {number}\n")
    spending = Spending(journal, limit=1.0)
    assert (spending.spent, spending.uncertain) == (0.5, 0.0)
    with pytest.raises(SpendingLimit, match=r"0.50 are spent.*could cost 0.60"):
        asyncio.run(spending.reserve(0.6))


def test_a_small_limit_is_shown_as_it_is() -> None:
    with pytest.raises(SpendingLimit, match=r"limit of 0.001 dollars.*could cost 0.0025"):
        asyncio.run(Spending(None, limit=0.001).reserve(0.0025))


def test_what_came_of_a_request_counts_though_the_journal_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: DurableFile, data: bytes, *, sync: bool = True) -> int:
        raise OSError(28, "No space left on device")

    spending = Spending(tmp_path / "log", limit=1.0)
    name = spending.reserve_now(0.9)
    monkeypatch.setattr(DurableFile, "append", full)
    with pytest.raises(OSError, match="No space"):
        spending.settle(name, 0.1)
    assert (spending.spent, spending.reserved) == (0.1, 0.0)
    assert Spending(tmp_path / "log", read_only=True).uncertain == 0.9, "the next run counts it at its most"

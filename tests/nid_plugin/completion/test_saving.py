"""Saving: those that wait hear of it whatever happens, and answers come before the journal of what they cost."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from nid_plugin.completion.durable_file import DurableFile
from nid_plugin.completion.ledger import Ledger
from nid_plugin.completion.results import Result
from nid_plugin.completion.saving import Saver
from nid_plugin.completion.spending import Spending


def result(number: int, **changes: Any) -> Result:
    return Result(**{"id": f"{number:032x}", "status": "done", "completion": "x", "finish_reason": "stop"} | changes)


def save(folder: Path, *records: Result) -> tuple[list[BaseException | None], list[str]]:
    """Save the records at once, then one more: what each came to, and why the run was told to stop."""
    ledger, spending, stopped = Ledger(folder), Spending(folder / "spending.log"), list[str]()

    async def run() -> list[BaseException | None]:
        async with Saver(ledger, spending, stopped.append) as saver, asyncio.timeout(20):
            ends = await asyncio.gather(*(saver.save(record) for record in records), return_exceptions=True)
            return [*ends, *await asyncio.gather(saver.save(result(99)), return_exceptions=True)]

    try:
        return asyncio.run(run()), stopped
    finally:
        ledger.close()
        spending.close()


def test_an_unforeseen_error_reaches_those_that_wait(tmp_path: Path) -> None:
    (error, later), _ = save(tmp_path, result(1, id="no number"))
    assert isinstance(error, ValueError) and later is None


def test_answers_are_saved_though_the_journal_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: DurableFile) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DurableFile, "sync", full)
    ends, stopped = save(tmp_path, result(1), result(2))
    assert ends == [None, None, None]
    assert len(Ledger(tmp_path, read_only=True)) == 3
    assert "No space left on device" in stopped[0]


def test_a_cancelled_wait_does_not_hinder_the_others(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)

    async def run() -> None:
        async with Saver(ledger, Spending(None), lambda why: None) as saver, asyncio.timeout(20):
            waiting = [asyncio.create_task(saver.save(result(number))) for number in range(3)]
            await asyncio.sleep(0)
            waiting[1].cancel()
            await asyncio.gather(waiting[0], waiting[2])
            await saver.save(result(3))

    asyncio.run(run())
    assert len(ledger) == 4
    ledger.close()

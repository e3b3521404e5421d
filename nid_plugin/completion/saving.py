"""Save results as they come: many share one wait for the disk, and each counts only after it."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from nid_plugin.completion.ledger import Ledger
from nid_plugin.completion.results import Failure, Result
from nid_plugin.completion.spending import Spending


class Saver:
    """Writes to the ledger in a thread, so that requests go on while the disk is waited for.

    Used as an asynchronous context manager; leaving it waits for what is still unsaved.

    Args:
        ledger: gets the results.
        spending: its journal is on the disk before the results that it paid for count.
        stop: called with the reason when nothing more should be asked.
    """

    def __init__(self, ledger: Ledger, spending: Spending, stop: Callable[[str], None]) -> None:
        self._ledger, self._spending, self._stop = ledger, spending, stop
        self._waiting: list[tuple[Result | Failure, asyncio.Future[None]]] = []
        self._some = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Saver":
        self._task = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._closed = True
        self._some.set()
        if self._task is not None:
            await self._task

    async def save(self, record: Result | Failure) -> None:
        """Return when the record is on the disk.

        Raises:
            OSError: it cannot be written.
        """
        saved = asyncio.get_running_loop().create_future()
        self._waiting.append((record, saved))
        self._some.set()
        await saved

    async def _write(self) -> None:
        while self._waiting or not self._closed:
            await self._some.wait()
            self._some.clear()
            batch, self._waiting = self._waiting, []
            if not batch:
                continue
            try:
                trouble = await asyncio.to_thread(self._put, [record for record, _ in batch])
            except Exception as error:  # whatever it is, those that wait must hear of it
                _tell(batch, error)
                continue
            _tell(batch, None)
            if trouble:
                self._stop(trouble)

    def _put(self, records: list[Result | Failure]) -> str | None:
        """Save them; why nothing more should be asked, None where all is well."""
        trouble = None
        try:
            self._spending.sync()
        except OSError as error:  # no reason to lose answers: without their ends requests count at their most
            trouble = cannot_be_written(error, self._ledger.folder)
        results = [record for record in records if isinstance(record, Result)]
        failures = [record for record in records if isinstance(record, Failure)]
        if self._ledger.append(results, failures):
            trouble = (
                f"{self._ledger.folder}: the disk is full; every answer so far is saved. "
                "Free some space and run the same command again"
            )
        return trouble


def _tell(batch: Sequence[tuple[Result | Failure, asyncio.Future[None]]], error: Exception | None) -> None:
    """Let those that wait go on, save those that were cancelled meanwhile (by a second Ctrl-C)."""
    for _, saved in batch:
        if saved.done():
            continue
        if error is None:
            saved.set_result(None)
        else:
            saved.set_exception(error)


def cannot_be_written(error: OSError, folder: Path) -> str:
    """What to tell the user about a ledger's file that cannot be written."""
    return (
        f"{error.filename or folder}: cannot be written ({error.strerror or error}); "
        "free some space and run the same command again: what is there stays"
    )

"""Join ledgers of the same settings: documents, answers and what was spent."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from nid_plugin.completion.batch_parts import open_requests
from nid_plugin.completion.changes import differences
from nid_plugin.completion.ledger import Ledger, locked, read_ledger, read_settings, write_settings
from nid_plugin.completion.pairs_file import pairs_problems
from nid_plugin.completion.selection import Selection, Size, digest, each_once, read_selection, write_selection
from nid_plugin.completion.spending import Spending
from nid_plugin.completion.status import pairs_of, request_settings, status_lines
from nid_plugin.halving import write_halves
from nid_plugin.pairs import write_pairs
from plugin_common.errors import UserError, raise_all
from plugin_common.whole_folder import whole_folder

_AT_A_TIME = 256

Item = TypeVar("Item")


def merge(ledgers: Sequence[str], into: str, pairs: str | None = None) -> list[str]:
    """Make one ledger of several; those stay as they are.

    Documents come in the order of the ledgers; of what several hold, the first counts.

    Args:
        ledgers: folders of ledgers, made with the same request settings.
        into: the new ledger; must not be there.
        pairs: where the pairs go; None is ``pairs.jsonl`` in the new ledger.

    Returns:
        what the new ledger holds, lines for a reader.

    Raises:
        UserError: a folder is no ledger or a run works on it, the settings differ, a batch is under way, ``into``
            is there.
    """
    if Path(into).exists():
        raise UserError(f"--into {into}: is there already; give a new folder")
    target = pairs or str(Path(into) / "pairs.jsonl")
    settings = read_settings(Path(ledgers[0]))
    raise_all([*_problems(ledgers, settings), *pairs_problems(pairs, [*ledgers, into])])
    with contextlib.ExitStack() as stack:
        for folder in ledgers:
            stack.enter_context(locked(Path(folder)))
        selections = [_selection(folder) for folder in ledgers]
        with whole_folder(into, marker="settings.json") as made:
            size = Size()
            halves = (half for selection in selections for half in selection.halves())
            write_halves(str(made / "halves.jsonl"), each_once(halves, size))
            write_selection(made, {"halves": digest(made / "halves.jsonl")}, size, [])
            _join_results(ledgers, made)
            _join_spending(ledgers, made)
            write_settings(made, settings)
    request = request_settings(settings, ledgers[0])
    with read_ledger(into) as ledger:
        written = write_pairs(target, pairs_of(_selection(into), request, ledger))
        status = list(status_lines(into, ledger))
    repeated = [f"{size.repeated:,} documents were in several ledgers; each counts once"] if size.repeated else []
    return [*repeated, *status, f"{written:,} pairs written to {target}"]


def _problems(ledgers: Sequence[str], settings: object) -> Iterator[str]:
    if len({Path(folder).resolve() for folder in ledgers}) < len(ledgers):
        yield "a ledger is named twice"
    for folder in ledgers:
        if batches := open_requests(Path(folder))[0]:
            yield f"{folder}: {batches} batches are under way; let `nid complete --batch` collect them first"
    for folder in ledgers[1:]:
        for difference in differences(settings, read_settings(Path(folder))):
            yield f"{folder}: other settings than {ledgers[0]}: {difference}"


def _selection(folder: str) -> Selection:
    selection = read_selection(Path(folder))
    if selection is None:
        raise UserError(f"{folder}: has no documents yet; run `nid complete` on it first")
    return selection


def _join_results(ledgers: Sequence[str], made: Path) -> None:
    joined = Ledger(made)
    try:
        for folder in ledgers:
            with read_ledger(folder) as ledger:
                for results in _batched(ledger.results(), _AT_A_TIME):
                    joined.append(results)
                for failures in _batched(ledger.failed(), _AT_A_TIME):
                    joined.append([], failures)
    finally:
        joined.close()


def _join_spending(ledgers: Sequence[str], made: Path) -> None:
    there = [Path(folder) / "spending.log" for folder in ledgers if (Path(folder) / "spending.log").exists()]
    if not there:
        return
    joined = Spending(made / "spending.log")
    for journal in there:
        with contextlib.closing(Spending(journal, read_only=True)) as spending:
            joined.settle(joined.reserve_now(spending.spent), spending.spent)
            joined.reserve_now(spending.uncertain)  # never settled: it stays uncertain
    joined.sync()
    joined.close()


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    stream = iter(items)
    while some := list(islice(stream, size)):
        yield some

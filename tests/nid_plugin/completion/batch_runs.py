"""Runs of the Batch API's part of the command against ``batch_server.py``, and what has to be there afterwards."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nid_plugin.completion.asking import Outcome
from nid_plugin.completion.batch import complete_in_batches
from nid_plugin.completion.batch_options import BatchOptions
from nid_plugin.completion.batch_parts import open_requests
from nid_plugin.completion.ledger import Ledger, open_ledger
from nid_plugin.completion.options import TeacherSettings
from nid_plugin.completion.prices import Price
from nid_plugin.completion.settings import Connection, Request, RequestIds, RequestSettings
from nid_plugin.completion.spending import Spending
from tests.nid_plugin.completion.batch_server import BatchServer, answer

SETTINGS = RequestSettings("teacher", max_tokens=64, system="Go on.")
PRICE = Price(10, 30, batch=0.5)
COST = (10 * 10 + 20 * 30) / 1e6 / 2
OPTIONS = BatchOptions(requests=4, poll=0.0)


def anew(server: BatchServer) -> None:
    """Forget all that was."""
    vars(server).update({name: value for name, value in vars(BatchServer()).items() if name not in ("url", "lock")})


def requests(count: int, settings: RequestSettings = SETTINGS) -> list[Request]:
    """Requests whose prompts differ."""
    ids = RequestIds(settings)
    return [Request(ids(str(n), f"prompt {n} é"), f"prompt {n} é") for n in range(count)]


@contextmanager
def ledger_in(folder: Path) -> Iterator[Ledger]:
    """The ledger of the tests."""
    with open_ledger(str(folder / "ledger"), {}) as ledger:
        yield ledger


def run(
    server: BatchServer,
    folder: Path,
    count: int = 10,
    options: BatchOptions = OPTIONS,
    max_cost: float | None = None,
    settings: RequestSettings = SETTINGS,
    key: str | None = None,
) -> Outcome:
    """One run of the command's middle part."""
    connection = Connection(base_url=server.url, api_key=key or server.key, timeout=10)
    teacher = TeacherSettings(settings, connection, PRICE, max_cost)
    with ledger_in(folder) as ledger:

        def pending() -> Iterator[Request]:
            skipped = ("done", "empty", "refused", "failed for good")
            return (request for request in requests(count, settings) if ledger.state(request.id) not in skipped)

        return complete_in_batches(pending, teacher, ledger, total=sum(1 for _ in pending()), options=options)


def results(folder: Path) -> dict[str, Any]:
    """The ledger's results, by id; each id has one."""
    lines = [json.loads(line) for line in (folder / "ledger" / "results.jsonl").read_text().splitlines()]
    found = {line["id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def spent(folder: Path) -> tuple[float, float]:
    """Dollars spent, and those that may have been."""
    spending = Spending(folder / "ledger" / "spending.log", read_only=True)
    spending.close()
    return round(spending.spent, 9), round(spending.uncertain, 9)


def check_all_there(server: BatchServer, folder: Path, count: int = 10) -> None:
    """One result for each request, each run and paid once, nothing left under way."""
    found = results(folder)
    assert {name: found[name]["completion"] for name in found} == {r.id: answer(r.text) for r in requests(count)}
    assert server.run == Counter(list(found))
    assert spent(folder) == (round(count * COST, 9), 0)
    assert open_requests(folder / "ledger") == (0, set())
    assert not list((folder / "ledger" / "batches").iterdir())

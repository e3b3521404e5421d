"""The Batch API: one result each and nothing paid twice, wherever a run is killed."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nid_plugin.completion.batch_client import BatchClient
from nid_plugin.completion.batch_parts import Parts
from nid_plugin.completion.ledger import Ledger
from nid_plugin.completion.spending import Spending
from tests.nid_plugin.completion.batch_runs import (
    OPTIONS,
    anew,
    check_all_there,
    run,
)
from tests.nid_plugin.completion.batch_server import BatchServer, Plan


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Let the process die at one of the moments before and after everything that changes a disk or the endpoint."""
    places = Counter[str]()

    def step_over(where: str) -> None:
        places[where] += 1
        if sum(places.values()) >= step:  # also what `finally` blocks would do comes to nothing
            raise Killed(where)

    def wrap(owner: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            step_over(f"before {name}")
            found = real(*args, **options)
            step_over(f"after {name}")
            return found

        patch.setattr(owner, name, wrapped)

    with monkeypatch.context() as patch:
        for owner, names in (
            (Parts, ("write", "note", "_remove_leftovers")),
            (BatchClient, ("upload", "create", "find", "look", "download")),
            (Ledger, ("append",)),
            (Spending, ("reserve_now", "settle", "sync")),
        ):
            for name in names:
                wrap(owner, name)
        yield places


def test_a_kill_at_every_step(server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = set()
    for step in range(1, 1000):
        anew(server)
        server.plans = [Plan(looks=1), Plan("expired", run=0.5, looks=0), Plan(looks=0)]
        folder = tmp_path / str(step)
        with killed_at(step, monkeypatch):
            try:
                run(server, folder, 6, replace(OPTIONS, requests=3))
                break
            except Killed as error:
                where.add(str(error))
        outcome = run(server, folder, 6, replace(OPTIONS, requests=3))
        assert outcome.stopped is None, (step, outcome)
        check_all_there(server, folder, 6)
        assert len(server.batches) == 3, step
    assert step > 40 and {"after create", "before note", "after append", "after settle", "after download"} <= where


@pytest.mark.parametrize("seed", range(8))
def test_many_kills_of_one_run(seed: int, server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, kills = random.Random(seed), 0
    server.plans = [Plan(looks=2), Plan("expired", run=0.5), Plan("cancelled", run=0), Plan()]
    while True:
        with killed_at(draw.randint(1, 25), monkeypatch):
            try:
                run(server, tmp_path, 14)
                break
            except Killed:
                kills += 1
    assert kills > 3
    check_all_there(server, tmp_path, 14)

"""The Batch API: one result each and nothing paid twice, wherever a run is killed and whatever a batch brings."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nid_plugin.completion import batch_client
from nid_plugin.completion.asking import Outcome
from nid_plugin.completion.batch import complete_in_batches
from nid_plugin.completion.batch_client import BatchClient
from nid_plugin.completion.batch_input import input_line
from nid_plugin.completion.batch_options import BatchOptions
from nid_plugin.completion.batch_parts import Parts, open_requests
from nid_plugin.completion.ledger import Ledger, open_ledger
from nid_plugin.completion.options import TeacherSettings
from nid_plugin.completion.prices import Price
from nid_plugin.completion.settings import Connection, Request, RequestIds, RequestSettings
from nid_plugin.completion.spending import Spending
from tests.nid_plugin.completion.batch_server import BatchServer, Plan, answer, batch_server, http_error

SETTINGS = RequestSettings("teacher", max_tokens=64, system="Go on.")
PRICE = Price(10, 30, batch=0.5)
COST = (10 * 10 + 20 * 30) / 1e6 / 2
OPTIONS = BatchOptions(requests=4, poll=0.0)


@pytest.fixture(scope="module")
def started() -> Iterator[BatchServer]:
    """One server for all."""
    with batch_server() as server:
        yield server


@pytest.fixture
def server(started: BatchServer, monkeypatch: pytest.MonkeyPatch) -> BatchServer:
    """The server, as if new."""
    monkeypatch.setattr(batch_client, "RETRIES", 0)
    monkeypatch.setattr("os.fsync", lambda fd: None)  # processes are killed here, machines are not
    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", lambda *words, **named: None)  # slow, not needed
    anew(started)
    return started


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


def test_all_goes_well(server: BatchServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(server, tmp_path)
    assert outcome == Outcome(answered=Counter(done=10))
    check_all_there(server, tmp_path)
    assert [len(server.requests(batch["input_file_id"])) for batch in server.batches.values()] == [4, 4, 2]
    first = server.requests("file-1")[0]
    assert first["url"] == "/v1/chat/completions"
    assert first["body"] == {
        "model": "teacher", "max_tokens": 64,
        "messages": [{"role": "system", "content": "Go on."}, {"role": "user", "content": "prompt 0 é"}],
    }  # fmt: skip
    result = results(tmp_path)[first["custom_id"]]
    assert result["batch"] in server.batches and result["cost"] == COST and result["usage"]["completion_tokens"] == 20
    assert all(
        server.names[b["input_file_id"]] == f"{b['metadata']['nid_part']}.jsonl" for b in server.batches.values()
    )
    assert "answered in this run: 10 done" in capsys.readouterr().err
    assert run(server, tmp_path) == Outcome()
    assert len(server.batches) == 3


def test_completions(server: BatchServer, tmp_path: Path) -> None:
    settings = RequestSettings("teacher", api="completions", max_tokens=64)
    run(server, tmp_path, settings=settings)
    assert {line["completion"] for line in results(tmp_path).values()} == {answer(r.text) for r in requests(10)}
    assert all(batch["endpoint"] == "/v1/completions" for batch in server.batches.values())


def test_size_of_a_file_in_bytes(server: BatchServer, tmp_path: Path) -> None:
    line = len(input_line(SETTINGS, requests(1)[0])[0])
    run(server, tmp_path, options=replace(OPTIONS, requests=100, size=3 * line))
    sizes = [len(server.files[batch["input_file_id"]]) for batch in server.batches.values()]
    assert sizes == [3 * line, 3 * line, 3 * line, line]
    check_all_there(server, tmp_path)


def test_a_request_too_long_for_a_file_is_a_failure(server: BatchServer, tmp_path: Path) -> None:
    outcome = run(server, tmp_path, options=replace(OPTIONS, size=100))
    assert outcome.failed == {"too long for a batch": 10} and not server.batches


def test_expired_and_cancelled_batches_are_asked_again(server: BatchServer, tmp_path: Path) -> None:
    server.plans = [Plan("expired", run=0.5), Plan("cancelled", run=0.25), Plan("expired", run=0), Plan()]
    outcome = run(server, tmp_path)
    assert outcome.answered == {"done": 10} and outcome.stopped is None
    assert outcome.retried == {"batch_expired": 4, "batch_cancelled": 3}
    check_all_there(server, tmp_path)


def test_a_round_that_brings_nothing_ends_the_run(server: BatchServer, tmp_path: Path) -> None:
    server.plans = [Plan("failed", run=0, errors=(("token_limit_exceeded", "Enqueued token limit reached"),))]
    outcome = run(server, tmp_path)
    assert outcome.stopped is not None and "Enqueued token limit reached" in outcome.stopped
    assert len(server.batches) == 3 and not server.run and spent(tmp_path) == (0, 0)
    server.plans = [Plan()]
    run(server, tmp_path)
    check_all_there(server, tmp_path)


def test_lines_that_are_wrong_in_every_way(server: BatchServer, tmp_path: Path, capsys: Any) -> None:
    def spoil(lines: list[str]) -> list[str]:
        strange = json.dumps(json.loads(lines[0]) | {"custom_id": "f" * 32})
        no_id = json.dumps({"response": None})
        return [lines[1], lines[0][:-9], lines[1], strange, "", "[]", no_id, *lines[2:], lines[1]]

    server.plans = [Plan(spoil=spoil), Plan()]
    outcome = run(server, tmp_path, options=replace(OPTIONS, requests=50))
    assert outcome.answered == {"done": 10} and outcome.retried == {"missing in the batch": 1}
    found = results(tmp_path)
    assert {line["completion"] for line in found.values()} == {answer(r.text) for r in requests(10)}
    assert sorted(server.run.values()) == [1] * 9 + [2], "what could not be read had to be asked again"
    total, uncertain = spent(tmp_path)
    assert uncertain == 0 and total > round(10 * COST, 9), "the unreadable one counts at the most it can have cost"
    log = capsys.readouterr().err
    assert "3 unreadable lines passed over" in log and "1 lines of no request of ours passed over" in log


def test_refused_and_failed_requests(server: BatchServer, tmp_path: Path) -> None:
    def first_time(prompt: str) -> dict[str, Any] | None:
        number = int(prompt.split()[1])
        if number == 3:
            return http_error(500, "the server had an error")
        if number == 4:
            return {"error": {"code": "strange", "message": "unheard of"}}
        return later(prompt)

    def later(prompt: str) -> dict[str, Any] | None:
        return http_error(400, "this prompt is not allowed") if prompt.startswith(("prompt 1 ", "prompt 2 ")) else None

    server.plans = [Plan(lines=first_time)] * 3 + [Plan(lines=later)]
    outcome = run(server, tmp_path)
    assert outcome.answered == {"done": 8} and outcome.failed == {"http 400": 2}
    assert outcome.retried == {"http 500": 1, "strange": 1}
    failures = [json.loads(x) for x in (tmp_path / "ledger" / "failures.jsonl").read_text().splitlines()]
    assert [f["message"] for f in failures if f["permanent"]] == ["HTTP 400: this prompt is not allowed"] * 2
    assert len(server.batches) == 4


def test_without_waiting(server: BatchServer, tmp_path: Path) -> None:
    leave = replace(OPTIONS, wait=False)
    assert run(server, tmp_path, options=leave) == Outcome()
    assert len(server.batches) == 3 and not server.run
    batches, under_way = open_requests(tmp_path / "ledger")
    assert batches == 3 and under_way == {int(request.id, 16) for request in requests(10)}
    for _ in range(4):
        run(server, tmp_path, options=leave)
    assert len(server.batches) == 3
    check_all_there(server, tmp_path)


def test_at_most_so_many_at_once(server: BatchServer, tmp_path: Path) -> None:
    most = 0

    def watch(call: str, moment: str) -> None:
        nonlocal most
        most = max(most, sum(batch["status"] not in ("completed",) for batch in server.batches.values()))

    server.fault = watch
    run(server, tmp_path, options=replace(OPTIONS, requests=2, at_once=2))
    assert most == 2 and len(server.batches) == 5
    check_all_there(server, tmp_path)


def test_the_limit_on_cost(server: BatchServer, tmp_path: Path) -> None:
    outcome = run(server, tmp_path, max_cost=0.0030)  # a request can cost 0.0014 or so, and comes to 0.00035
    assert outcome.stopped is not None and "--max-cost" in outcome.stopped
    total, uncertain = spent(tmp_path)
    assert 0 < len(results(tmp_path)) < 10 and total == round(len(results(tmp_path)) * COST, 9) and uncertain == 0
    assert len(server.batches) > 1, "what the first batch left of the money is used"
    assert total + 0.0014 > 0.0030 - 0.0005
    run(server, tmp_path)
    check_all_there(server, tmp_path)


def test_no_money_for_a_single_request(server: BatchServer, tmp_path: Path) -> None:
    outcome = run(server, tmp_path, max_cost=0.0001)
    assert outcome.stopped is not None and not server.calls["POST files"]


@pytest.mark.parametrize("call", ["POST files", "POST batches", "GET batches/ID", "GET files/ID/content"])
@pytest.mark.parametrize("status", [500, 0])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_call_that_fails_now_and_then(call: str, status: int, when: str, server: BatchServer, tmp_path: Path) -> None:
    seen = Counter[str]()

    def fault(this: str, moment: str) -> int | None:
        seen[this] += moment == when
        return status if (this, moment) == (call, when) and seen[this] % 2 else None

    server.fault = fault
    outcome = run(server, tmp_path)
    assert outcome.stopped is None
    assert seen[call] > 1 and sum(outcome.retried.values()) > 0
    check_all_there(server, tmp_path)
    assert len(server.batches) == 3, "none is created twice"


def test_an_endpoint_that_is_gone_for_long(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fault = lambda call, moment: 503 if call == "GET batches/ID" else None
    outcome = run(server, tmp_path)
    assert outcome.stopped is not None and "the same command goes on from here" in outcome.stopped
    server.fault = lambda call, moment: None
    run(server, tmp_path)
    check_all_there(server, tmp_path)


def test_a_wrong_key_and_a_batch_of_others(server: BatchServer, tmp_path: Path) -> None:
    wrong = "sk-wrong-key-9876543210"
    outcome = run(server, tmp_path, key=wrong)
    assert outcome.stopped is not None and "does not accept the API key" in outcome.stopped
    assert wrong[:8] not in outcome.stopped and wrong[-4:] not in outcome.stopped
    run(server, tmp_path, options=replace(OPTIONS, wait=False))
    kept = dict(server.batches)
    server.batches.clear()
    outcome = run(server, tmp_path)
    assert outcome.stopped is not None and "--forget-batches" in outcome.stopped
    server.batches.update(kept)
    run(server, tmp_path)
    check_all_there(server, tmp_path)
    assert all(wrong.encode() not in f.read_bytes() for f in (tmp_path / "ledger").iterdir() if f.is_file())


def test_batches_that_are_given_up_are_asked_again(server: BatchServer, tmp_path: Path) -> None:
    run(server, tmp_path, options=replace(OPTIONS, wait=False))
    outcome = run(server, tmp_path, options=replace(OPTIONS, forget=True))
    assert outcome.answered == {"done": 10} and len(server.batches) == 6
    total, uncertain = spent(tmp_path)
    assert total == round(10 * COST, 9) and uncertain > 0, "what the forgotten ones may cost is not forgotten"


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

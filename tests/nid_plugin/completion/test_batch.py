"""The Batch API: one result each and nothing paid twice, whatever a batch brings."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nid_plugin.completion.asking import Outcome
from nid_plugin.completion.batch_input import input_line
from nid_plugin.completion.batch_parts import open_requests
from nid_plugin.completion.settings import RequestSettings
from tests.nid_plugin.completion.batch_runs import (
    COST,
    OPTIONS,
    SETTINGS,
    check_all_there,
    requests,
    results,
    run,
    spent,
)
from tests.nid_plugin.completion.batch_server import BatchServer, Plan, answer, http_error


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

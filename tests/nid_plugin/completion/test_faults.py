"""Requests against a server with faults: one result each, whatever happens to server, process and disk."""

import json
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tenacity

from nid_plugin.completion import backoff
from nid_plugin.completion.asking import Outcome, ask, reserve_bytes
from nid_plugin.completion.ledger import Ledger, open_ledger
from nid_plugin.completion.prices import Price
from nid_plugin.completion.results import Failure, Result, to_line
from nid_plugin.completion.settings import Connection, Request, RequestIds, RequestSettings
from plugin_common.errors import UserError
from scripts.benchmarks.completion import write_halves
from scripts.benchmarks.completion_kills import kill_again_and_again
from scripts.benchmarks.fault_server import RunningServer, running_server
from scripts.benchmarks.faults import TRANSIENT, ServerSettings, answer_text, prompt_key

SETTINGS = RequestSettings("teacher", max_tokens=64)
PRICE = Price(10, 30)
Serve = Callable[[ServerSettings], RunningServer]
LATENCY, PATIENCE = 0.005, 20.0
KEY = "sk-secret-0123456789"

REASONS = {
    "429 with Retry-After": "http 429",
    "429": "http 429",
    "500": "http 500",
    "502 without JSON": "http 502",
    "no answer": "timeout",
    "half an answer": "connection broken",
    "malformed JSON": "malformed answer",
    "error in the answer": "error in the answer",
    "empty choices": "no choices",
    "stall": "timeout",
    "reset": "connection broken",
}


@pytest.fixture(scope="module")
def started() -> Iterator[RunningServer]:
    """A server for all tests of this file, one after the other."""
    with running_server(ServerSettings()) as server:
        yield server


@pytest.fixture
def serve(started: RunningServer) -> Callable[[ServerSettings], RunningServer]:
    """``serve(settings)``: a server as if new."""

    def change(settings: ServerSettings) -> RunningServer:
        started.change(settings)
        return started

    return change


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts in milliseconds."""
    for name in ("_after_busy", "_after_fault"):
        monkeypatch.setattr(backoff, name, tenacity.wait_random_exponential(multiplier=0.01, max=0.1))


def requests(count: int, settings: RequestSettings = SETTINGS, characters: int = 40) -> list[Request]:
    """Requests whose prompts differ."""
    ids = RequestIds(settings)
    prompts = [f"prompt {number} ".ljust(characters, "é") for number in range(count)]
    return [Request(ids(str(number), prompt), prompt) for number, prompt in enumerate(prompts)]


def run(
    server: RunningServer,
    ledger: Ledger,
    asked: list[Request],
    settings: RequestSettings = SETTINGS,
    timeout: float = PATIENCE,
) -> Outcome:
    """Ask the server."""
    connection = Connection(base_url=server.url, api_key=KEY, concurrency=16, timeout=timeout)
    return ask(asked, settings, connection, ledger, price=PRICE)


@contextmanager
def ledger_in(folder: Path, reserve: int = 0) -> Iterator[Ledger]:
    """The ledger of the tests."""
    with open_ledger(str(folder / "ledger"), {"request": SETTINGS.as_dict()}, reserve_bytes=reserve) as ledger:
        yield ledger


def lines(folder: Path, name: str = "results.jsonl") -> list[dict[str, object]]:
    """What a file of the ledger holds, read without its own code."""
    return [json.loads(line) for line in (folder / "ledger" / name).read_text().splitlines()]


def test_all_faults_at_once(tmp_path: Path, serve: Serve) -> None:
    asked = requests(300)
    settings = ServerSettings(LATENCY, dict.fromkeys(TRANSIENT, 0.02), retry_after=0, seed=3)
    server = serve(settings)
    with ledger_in(tmp_path) as ledger:
        outcome = run(server, ledger, asked, timeout=1.5)
        record = server.record()
    found = {str(line["id"]): line["completion"] for line in lines(tmp_path)}
    assert len(lines(tmp_path)) == 300
    assert found == {request.id: answer_text(request.text) for request in asked}
    assert set(record.outcomes) == {"answered", *TRANSIENT}, "each fault has to come"
    assert record.most_in_flight <= 16
    assert outcome.answered == {"done": 300} and not outcome.failed and outcome.stopped is None
    expected = {reason: sum(record.outcomes[fault] for fault in REASONS if REASONS[fault] == reason)
                for reason in set(REASONS.values())}  # fmt: skip
    assert outcome.retried == expected
    assert set(record.answered.values()) == {1}, "nothing is asked again after its answer came"
    assert sum(line["attempts"] for line in lines(tmp_path)) == sum(record.asked.values())  # type: ignore[misc]


@pytest.mark.parametrize("fault", TRANSIENT)
def test_one_fault(fault: str, tmp_path: Path, serve: Serve) -> None:
    settings = ServerSettings(LATENCY, {fault: 0.5}, retry_after=0.01)
    server = serve(settings)
    with ledger_in(tmp_path) as ledger:
        outcome = run(server, ledger, requests(12), timeout=0.4 if REASONS[fault] == "timeout" else PATIENCE)
        record = server.record()
    assert record.outcomes[fault] > 3
    assert outcome.retried == {REASONS[fault]: record.outcomes[fault]}
    assert outcome.answered == {"done": 12}
    assert len(lines(tmp_path)) == 12


def test_refused_prompts_are_failures_and_asked_once(tmp_path: Path, serve: Serve) -> None:
    asked = requests(40)
    server = serve(ServerSettings(LATENCY, refused=0.3))
    with ledger_in(tmp_path) as ledger:
        outcome = run(server, ledger, asked)
        record = server.record()
    refused = record.outcomes["400"]
    assert 3 < refused < 30
    assert outcome.failed == {"http 400": refused} and outcome.answered == {"done": 40 - refused}
    failures = lines(tmp_path, "failures.jsonl")
    assert len(failures) == refused and all(line["permanent"] for line in failures)
    assert "the prompt cannot be answered" in str(failures[0]["message"])
    assert set(record.asked.values()) == {1}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (ServerSettings(LATENCY, api_key="sk-another-key-000"), "does not accept the API key"),
        (ServerSettings(LATENCY, model="another"), "does not know the model 'teacher'"),
    ],
)
def test_what_no_request_can_survive_is_tried_once(
    settings: ServerSettings, says: str, tmp_path: Path, serve: Serve
) -> None:
    server = serve(settings)
    with ledger_in(tmp_path) as ledger:
        outcome = run(server, ledger, requests(100))
        record = server.record()
    assert outcome.stopped is not None and says in outcome.stopped
    assert KEY not in outcome.stopped
    assert sum(record.asked.values()) == 1
    assert all(KEY.encode() not in file.read_bytes() for file in (tmp_path / "ledger").iterdir())


def test_answers_cut_by_length_are_marked_and_continued_if_asked(tmp_path: Path, serve: Serve) -> None:
    asked = requests(60)
    server = serve(ServerSettings(LATENCY, cut=0.4))
    with ledger_in(tmp_path) as ledger:
        run(server, ledger, asked)
        cut = ledger.finish_reasons["length"]
    assert 10 < cut < 40 and len(server.record().asked) == 60
    server.change(ServerSettings(LATENCY, cut=0.4))
    longer = RequestSettings("teacher", max_tokens=64, continue_length=1)
    with open_ledger(str(tmp_path / "longer"), {}) as ledger:
        run(server, ledger, requests(60, longer), longer)
        continued = [result for result in ledger.results() if result.requests == 2]
    assert len(continued) == cut and sum(server.record().asked.values()) == 60 + cut
    texts = {request.id: request.text for request in requests(60, longer)}
    for result in continued:
        first = answer_text(texts[result.id])
        assert result.completion == first + answer_text(texts[result.id] + first)


def results(count: int) -> list[Result]:
    """Results with texts of several bytes a character."""
    return [
        Result(
            f"{number:032x}", "done", f"téxt {number} “…”\n\u2028", "stop", {"prompt_tokens": 3, "completion_tokens": 4}
        )
        for number in range(count)
    ]


def test_a_power_cut_at_every_byte_of_the_last_two_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda fd: None)  # what is on the disk is decided here
    whole = results(4)
    with ledger_in(tmp_path) as ledger:
        ledger.append(whole, [Failure("f" * 32, "timeout", "…", False)])
    file = tmp_path / "ledger" / "results.jsonl"
    data = file.read_bytes()
    ends = [len(b"".join(map(to_line, whole[:count]))) for count in range(5)]
    assert ends[4] == len(data)
    for cut in range(ends[2], len(data) + 1):
        file.write_bytes(data[:cut])
        complete = max(count for count in range(5) if ends[count] - 1 <= cut)  # the newline alone may be missing
        with ledger_in(tmp_path) as ledger:
            assert list(ledger.results()) == whole[:complete], cut
            assert bool(ledger.notes) == (cut not in (ends[complete] - 1, ends[complete])), cut
            ledger.append([result for result in whole if result.id not in ledger])
        assert file.read_bytes() == data, cut


@pytest.mark.parametrize("zeros", [1, 50, 4096])
@pytest.mark.parametrize("extended", [False, True])
def test_a_power_cut_that_leaves_zeros(zeros: int, extended: bool, tmp_path: Path) -> None:
    whole = results(100)
    with ledger_in(tmp_path) as ledger:
        ledger.append(whole)
    file = tmp_path / "ledger" / "results.jsonl"
    data = file.read_bytes()
    file.write_bytes((data if extended else data[:-zeros]) + bytes(zeros))
    with ledger_in(tmp_path) as ledger:
        there = list(ledger.results())
        assert there == whole[: len(there)]
        assert len(there) == (100 if extended else data[:-zeros].count(b"\n"))
        ledger.append(whole)
    with ledger_in(tmp_path) as ledger:
        assert list(ledger.results()) == whole and not ledger.notes


def test_zeros_between_lines_cost_the_lines_they_hit_alone(tmp_path: Path) -> None:
    whole = results(5)
    parts = [to_line(result) for result in whole]
    with ledger_in(tmp_path) as ledger:
        ledger.append(whole)
    parts[2] = bytes(len(parts[2]))
    (tmp_path / "ledger" / "results.jsonl").write_bytes(b"".join(parts))
    with ledger_in(tmp_path) as ledger:  # the zeros and line 3 are one line now
        assert list(ledger.results()) == [whole[0], whole[1], whole[4]]
        assert ledger.notes == ["1 unreadable lines passed over; what they were for is asked again"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """``small_disk("1m")``: a file system of that size, made or resized."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(size: str) -> Path:
        options = f"{'remount,' if disk.is_mount() else ''}size={size}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", disk], check=True)


def test_a_full_disk_loses_no_answer(small_disk: Callable[[str], Path], serve: Serve) -> None:
    disk, asked = small_disk("1m"), requests(400, characters=1000)
    connection = Connection(concurrency=16)
    reserve = reserve_bytes(RequestSettings("teacher", max_tokens=130), connection)  # 130 × 16 bytes hold an answer
    assert reserve < 700_000
    server = serve(ServerSettings(LATENCY))
    with ledger_in(disk, reserve) as ledger:
        outcome = run(server, ledger, asked)
        saved = len(ledger)
    assert outcome.stopped is not None and "the disk is full; every answer so far is saved" in outcome.stopped
    record = server.record()
    assert 0 < saved < 400 and saved == len(record.answered) == len(lines(disk))
    small_disk("16m")
    with ledger_in(disk, reserve) as ledger:
        assert not ledger.notes and len(ledger) == saved
        assert run(server, ledger, asked).stopped is None
    record = server.record()
    assert set(record.answered.values()) == {1} and len(record.answered) == 400
    assert {line["completion"] for line in lines(disk)} == {answer_text(request.text) for request in asked}


def test_a_file_that_may_not_grow_ends_the_run_with_an_error(tmp_path: Path, serve: Serve) -> None:
    asked = requests(60, characters=2000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    server = serve(ServerSettings(LATENCY))
    with ledger_in(tmp_path) as ledger:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
        try:
            with pytest.raises(UserError, match=r"results\.jsonl: cannot be written \(File too large\)"):
                run(server, ledger, asked)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    saved = {str(line["completion"]).split()[0] for line in lines(tmp_path)}
    before = server.record().asked
    assert 0 < len(saved) < 60
    with ledger_in(tmp_path) as ledger:
        assert not ledger.notes
        run(server, ledger, asked)
    after = server.record().asked
    assert {str(line["completion"]).split()[0] for line in lines(tmp_path)} == {prompt_key(r.text) for r in asked}
    assert len(lines(tmp_path)) == 60
    assert all(after[key] == before[key] for key in saved), "what was saved is not asked again"


@pytest.mark.slow
@pytest.mark.parametrize(("count", "kills"), [(600, 4), (10_000, 20)])
def test_kills_at_random_moments_change_nothing(count: int, kills: int, tmp_path: Path) -> None:
    write_halves(tmp_path / "halves.jsonl", count, seed=1)
    faults = dict.fromkeys(TRANSIENT, 0.01)
    found = kill_again_and_again(tmp_path, ServerSettings(0.05, faults, cut=0.1), 64, kills, seed=count)
    assert found.kills == kills, "the run was over before the last kill"
    assert found.lines == found.ids == count
    assert found.differing == 0
    assert found.asked_after_saved == 0
    assert found.answered_again <= kills * 2 * 64, "only what was in flight or not yet saved is asked twice"
    assert len(set(found.saved)) > kills // 2, "the kills came at different moments"

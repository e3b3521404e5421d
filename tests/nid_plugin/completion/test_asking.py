"""Asking many requests: each ends with one result, and what stops a run stops it cleanly."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nid_plugin.completion.asking import FAILURES_IN_A_ROW, Outcome, ask
from nid_plugin.completion.durable_file import DurableFile
from nid_plugin.completion.ledger import open_ledger
from nid_plugin.completion.prices import Price
from nid_plugin.completion.results import Result
from nid_plugin.completion.settings import Connection, Request, RequestIds, RequestSettings
from nid_plugin.completion.spending import Spending
from plugin_common.errors import UserError
from tests.toy_teacher import Asked, Reply, ToyTeacher, answer, completion_of, error, toy_teacher

SETTINGS = RequestSettings(model="toy", max_tokens=20)
PRICE = Price(1000, 1000)  # the toy's answer (10 + 5 tokens) costs 0.015 dollars


def requests(number: int, settings: RequestSettings = SETTINGS) -> list[Request]:
    ids = RequestIds(settings)
    return [Request(ids(str(i), f"text {i}"), f"text {i}") for i in range(number)]


def run(
    teacher: ToyTeacher | str, folder: Path, number: int = 20, settings: RequestSettings = SETTINGS, **options: Any
) -> tuple[Outcome, dict[str, Result]]:
    """Ask so many requests; the outcome, and the results by text."""
    url = teacher if isinstance(teacher, str) else teacher.base_url
    limits = {name: options.pop(name) for name in ("attempts", "timeout", "longest_wait") if name in options}
    asked = requests(number, settings)
    with open_ledger(str(folder), {"request": settings.as_dict()}, reserve_bytes=1000) as ledger:
        outcome = ask(asked, settings, Connection(base_url=url, concurrency=4, **limits), ledger, **options)
        found = {request.text: ledger.result(request.id) for request in asked}
    return outcome, {text: result for text, result in found.items() if result is not None}


def test_each_request_gets_its_answer_and_is_asked_once(tmp_path: Path) -> None:
    saved: list[Any] = []
    with toy_teacher() as teacher:
        outcome, results = run(teacher, tmp_path, progress=saved.append)
        again, _ = run(teacher, tmp_path)
    assert outcome.answered == {"done": 20} and outcome.stopped is None
    assert {text: result.completion for text, result in results.items()} == {
        f"text {i}": completion_of(f"text {i}") for i in range(20)
    }
    assert set(teacher.times().values()) == {1}
    assert again.answered == {}
    assert sorted(result.id for result in saved) == sorted(result.id for result in results.values())
    one = results["text 3"]
    assert (one.model, one.usage) == ("toy-2026-01-01", {"prompt_tokens": 10, "completion_tokens": 5})
    assert (one.attempts, one.requests, one.cost) == (1, 1, None)
    assert one.at.endswith("+00:00") and one.seconds > 0


def faulty(*replies: Reply) -> Any:
    """The first attempts at each text get these replies, later ones a good answer."""
    seen: Counter[str] = Counter()

    def reply(asked: Asked) -> Reply:
        seen[asked.text] += 1
        number = seen[asked.text] - 1
        return replies[number] if number < len(replies) else answer(completion_of(asked.text))

    return reply


def test_what_fails_for_a_while_is_asked_again(tmp_path: Path) -> None:
    faults = (error(500, "oops"), error(429, "slow down", retry_after="0.05"), (200, {}, b"{"))
    with toy_teacher(faulty(*faults)) as teacher:
        outcome, results = run(teacher, tmp_path, 8)
    assert len(results) == 8
    assert outcome.retried == {"http 500": 8, "http 429": 8, "malformed answer": 8}
    assert {result.attempts for result in results.values()} == {4}


def test_retry_after_is_honoured(tmp_path: Path) -> None:
    begun = time.monotonic()
    with toy_teacher(faulty(error(429, "slow down", retry_after="0.7"))) as teacher:
        run(teacher, tmp_path, 1)
    assert time.monotonic() - begun >= 0.7


def test_a_request_that_fails_too_often_is_given_up_and_asked_again_by_the_next_run(tmp_path: Path) -> None:
    ill = {"text 2", "text 5"}
    with toy_teacher(lambda asked: error(503, "ill") if asked.text in ill else answer("fine")) as teacher:
        outcome, results = run(teacher, tmp_path, 8, attempts=2)
        assert outcome.failed == {"http 503": 2} and outcome.stopped is None
        assert len(results) == 6
        ill.clear()
        outcome, results = run(teacher, tmp_path, 8, attempts=2)
    assert outcome.answered == {"done": 2} and len(results) == 8
    assert teacher.times()["text 1"] == 1 and teacher.times()["text 2"] == 3


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(401, "Incorrect API key"), "does not accept the API key"),
        (error(404, "no such model", "model_not_found"), "does not know the model 'toy'"),
        (error(429, "come back tomorrow", retry_after="90000"), "asks to wait 90,000 seconds"),
    ],
)
def test_what_concerns_all_stops_after_one_request(tmp_path: Path, reply: Reply, words: str) -> None:
    with toy_teacher(lambda asked: reply) as teacher:
        outcome, results = run(teacher, tmp_path)
    assert outcome.stopped is not None and words in outcome.stopped
    assert len(teacher.asked) == 1 and not results


def test_nobody_there_stops_after_one_request(tmp_path: Path) -> None:
    outcome, _ = run("http://127.0.0.1:9/v1", tmp_path, attempts=2)
    assert outcome.stopped is not None and "does not answer" in outcome.stopped
    assert outcome.failed == {"unreachable": 1}


def test_an_endpoint_that_refuses_everything_stops_the_run(tmp_path: Path) -> None:
    with toy_teacher(lambda asked: error(400, "unknown parameter")) as teacher:
        outcome, _ = run(teacher, tmp_path, 200)
    assert outcome.stopped is not None and "in a row" in outcome.stopped and "unknown parameter" in outcome.stopped
    assert FAILURES_IN_A_ROW <= len(teacher.asked) <= FAILURES_IN_A_ROW + 20  # those that had begun


def test_empty_and_refused_answers_are_results_of_their_own(tmp_path: Path) -> None:
    kinds = {"text 0": answer(""), "text 1": answer("no", refusal="I cannot"), "text 2": answer(" \n")}
    with toy_teacher(lambda asked: kinds.get(asked.text, answer("fine"))) as teacher:
        outcome, results = run(teacher, tmp_path, 4)
    assert outcome.answered == {"empty": 2, "refused": 1, "done": 1}
    assert [results[f"text {i}"].status for i in range(4)] == ["empty", "refused", "empty", "done"]


def test_a_cut_answer_is_continued_from_where_it_stopped(tmp_path: Path) -> None:
    story = ["one ", "two ", "three ", "four "]

    def reply(asked: Asked) -> Reply:
        done = sum(part in asked.text for part in story)
        return answer(story[done], finish_reason="stop" if done == 2 else "length")

    settings = RequestSettings(model="toy", continue_length=5)
    with toy_teacher(reply) as teacher:
        _, results = run(teacher, tmp_path, 1, settings, price=PRICE)
    (result,) = results.values()
    assert (result.completion, result.finish_reason, result.requests) == ("one two three ", "stop", 3)
    assert result.usage == {"prompt_tokens": 30, "completion_tokens": 15}
    assert result.cost == pytest.approx(0.045)
    assert [asked.text for asked in teacher.asked] == ["text 0", "text 0one ", "text 0one two "]


def test_a_continued_answer_ends_at_the_limit(tmp_path: Path) -> None:
    settings = RequestSettings(model="toy", continue_length=2)
    with toy_teacher(lambda asked: answer("x", finish_reason="length")) as teacher:
        _, results = run(teacher, tmp_path, 1, settings)
    assert results["text 0"].completion == "xxx" and results["text 0"].finish_reason == "length"


def test_the_cost_stays_below_its_limit_over_several_runs(tmp_path: Path) -> None:
    """Each answer costs 0.015 dollars, but a request could cost up to 0.074: the last ones are not sent."""
    with toy_teacher() as teacher:
        outcome, results = run(teacher, tmp_path, 100, price=PRICE, max_cost=0.5)
        assert outcome.stopped is not None and "limit of 0.50 dollars" in outcome.stopped
        spent = 0.015 * len(teacher.asked)
        assert 0.5 - 0.1 < spent <= 0.5 and len(results) == len(teacher.asked)
        more, results = run(teacher, tmp_path, 100, price=PRICE, max_cost=0.8)
    assert 0.8 - 0.1 < 0.015 * len(teacher.asked) <= 0.8
    assert len(results) == len(teacher.asked) and more.stopped is not None
    assert Spending(tmp_path / "spending.log", read_only=True).spent == pytest.approx(0.015 * len(results))


def test_what_may_have_been_billed_counts_at_its_worst(tmp_path: Path) -> None:
    with toy_teacher(faulty((200, {}, b"{"))) as teacher:
        _, results = run(teacher, tmp_path, 2, price=PRICE)
    spending = Spending(tmp_path / "spending.log", read_only=True)
    assert len(results) == 2 and spending.spent == pytest.approx(0.03)
    # 6 bytes of text and 32 for the template at most, 20 tokens of answer: 0.058 dollars, twice
    assert spending.uncertain == pytest.approx(2 * 0.058)


def test_an_endpoint_that_does_not_count_tokens_is_taken_at_its_worst(tmp_path: Path) -> None:
    with toy_teacher(lambda asked: answer("fine", usage={})) as teacher:
        _, results = run(teacher, tmp_path, 1, price=PRICE)
    assert results["text 0"].usage == {} and results["text 0"].cost == pytest.approx(0.058)


def test_a_limit_without_a_price_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--max-cost needs the model's price"):
        run("http://127.0.0.1:9/v1", tmp_path, max_cost=1.0)


def test_an_answer_that_cannot_be_continued_stays_as_it_is(tmp_path: Path) -> None:
    """Its first part was paid for; the second request is too long for the endpoint."""
    settings = RequestSettings(model="toy", continue_length=3)

    def reply(asked: Asked) -> Reply:
        return answer("one ", finish_reason="length") if "one" not in asked.text else error(400, "too long")

    with toy_teacher(reply) as teacher:
        outcome, results = run(teacher, tmp_path, 3, settings, price=PRICE)
    assert outcome.answered == {"done": 3} and outcome.left_cut == {"http 400": 3} and not outcome.failed
    assert {(r.completion, r.finish_reason, r.requests, r.attempts) for r in results.values()} == {
        ("one ", "length", 1, 2)
    }


def test_the_limit_of_cost_keeps_what_was_answered_before_it(tmp_path: Path) -> None:
    settings = RequestSettings(model="toy", max_tokens=20, continue_length=9)
    with toy_teacher(lambda asked: answer("x", finish_reason="length")) as teacher:
        outcome, results = run(teacher, tmp_path, 1, settings, price=PRICE, max_cost=0.1)
    assert outcome.stopped is not None and "limit of 0.10 dollars" in outcome.stopped
    assert results["text 0"].requests == len(teacher.asked) == 3 and results["text 0"].cost == pytest.approx(0.045)


def test_a_key_revoked_in_the_middle_is_one_error(tmp_path: Path) -> None:
    count = iter(range(1000))
    with toy_teacher(lambda asked: answer("fine") if next(count) < 10 else error(401, "revoked")) as teacher:
        outcome, results = run(teacher, tmp_path, 100)
    assert outcome.stopped is not None and "does not accept the API key" in outcome.stopped
    assert len(results) == 10 and not outcome.failed and len(teacher.asked) <= 14


def test_one_forbidden_prompt_does_not_stop_the_rest(tmp_path: Path) -> None:
    with toy_teacher(lambda asked: error(403, "flagged") if asked.text == "text 5" else answer("fine")) as teacher:
        outcome, results = run(teacher, tmp_path, 20)
    assert outcome.stopped is None and outcome.failed == {"http 403": 1} and len(results) == 19


def test_answers_in_hand_are_saved_when_the_journal_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, ends = DurableFile.append, Counter[str]()

    def full(self: DurableFile, data: bytes, *, sync: bool = True) -> int:
        if self.path.name == "spending.log":
            ends[chr(data[0])] += 1
            if ends["e"] > 3:
                raise OSError(28, "No space left on device", str(self.path))
        return real(self, data, sync=sync)

    monkeypatch.setattr(DurableFile, "append", full)
    with toy_teacher() as teacher:
        outcome, results = run(teacher, tmp_path, 40, price=PRICE)
    assert outcome.stopped is not None and "spending.log" in outcome.stopped and "No space" in outcome.stopped
    assert 4 <= len(results) == len(teacher.asked) < 40


def test_answers_without_a_known_price_count_once_it_is_known(tmp_path: Path) -> None:
    with toy_teacher() as teacher:
        run(teacher, tmp_path, 10)
        outcome, results = run(teacher, tmp_path, 20, price=PRICE, max_cost=0.2)
        assert len(results) == 10 and outcome.stopped is not None and "0.15 are spent" in outcome.stopped
        run(teacher, tmp_path, 40, price=PRICE, max_cost=0.4)
        assert 0.4 - 0.1 < 0.015 * len(teacher.asked) <= 0.4


def test_who_gives_the_requests_may_fail(tmp_path: Path) -> None:
    """What is in flight then is saved."""

    def broken() -> Iterator[Request]:
        yield from requests(6)
        raise UserError("halves.jsonl, line 7: broken")

    def slow(asked: Asked) -> Reply:
        time.sleep(0.2)
        return answer("fine")

    with toy_teacher(slow) as teacher, open_ledger(str(tmp_path), {"request": SETTINGS.as_dict()}) as ledger:
        connection = Connection(base_url=teacher.base_url, concurrency=8)
        with pytest.raises(UserError, match="line 7"):
            ask(broken(), SETTINGS, connection, ledger)
        assert len(ledger) == len(teacher.asked) >= 1


def test_a_run_that_stops_does_not_wait_for_its_limits(tmp_path: Path) -> None:
    """At 30 requests a minute the others wait their turn; the second answer ends the run."""
    with toy_teacher(lambda asked: answer("fine") if asked.text == "text 0" else error(401, "no")) as teacher:
        connection = Connection(base_url=teacher.base_url, concurrency=8, requests_per_minute=30)
        begun = time.monotonic()
        with open_ledger(str(tmp_path), {"request": SETTINGS.as_dict()}) as ledger:
            outcome = ask(requests(50), SETTINGS, connection, ledger)
    assert time.monotonic() - begun < 8 and len(teacher.asked) == 2
    assert outcome.stopped is not None and "key" in outcome.stopped

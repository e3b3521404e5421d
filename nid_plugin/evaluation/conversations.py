"""What a model is asked on a benchmark, turn by turn, and what a ledger of its answers holds already."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nid_plugin.completion.ledger import Ledger
from nid_plugin.completion.results import Result
from nid_plugin.completion.settings import Request, RequestIds, RequestSettings
from nid_plugin.evaluation.answers import answer_record, valid_text
from nid_plugin.evaluation.questions import MT_BENCH, TEMPERATURES, Bench, Question
from nid_plugin.evaluation.style import TokenCounter

Messages = tuple[tuple[str, str], ...]
"""(role, content) pairs; roles are ``system``, ``user`` and ``assistant``."""

ASKABLE = ("left", "failed for now")
"""States of requests in a ledger that are asked (again)."""


@dataclass(frozen=True)
class Conversations:
    """The conversations of one model about the questions of a benchmark.

    Attributes:
        bench: whose questions.
        questions: in the file's order.
        settings: whom and how to ask; a ``temperature`` in its sampling holds for all questions.
        own_temperature: give each request the temperature of its category (Arena-Hard: 0) where the settings give none.
    """

    bench: Bench
    questions: Sequence[Question]
    settings: RequestSettings
    own_temperature: bool = True

    def temperature(self, question: Question) -> float | None:
        """At which a question is answered; None leaves it to the endpoint."""
        if "temperature" in self.settings.sampling:
            return float(self.settings.sampling["temperature"])
        if not self.own_temperature:
            return None
        return TEMPERATURES[question.category] if self.bench == MT_BENCH else 0.0

    def request(self, question: Question, earlier: Sequence[str]) -> Request:
        """What asks for the turn after ``earlier``; its id depends on all that was said before."""
        messages = conversation(question, earlier)
        temperature = self.temperature(question)
        key = f"{self.bench} question {question.id} turn {len(earlier) + 1} temperature {temperature}"
        said = json.dumps(messages, ensure_ascii=False)
        request_id = RequestIds(self.settings)(key, said)
        sampling = {} if temperature is None else {"temperature": temperature}
        if self.settings.api == "completions":
            return Request(request_id, joined(messages), sampling=sampling)
        return Request(request_id, question.turns[len(earlier)], messages, sampling)

    def state(self, question: Question, ledger: Ledger) -> tuple[list[Result], Request | None]:
        """The answers that a ledger has to a question's turns, and the request for the next one (None: all are there).

        An answer that was refused or is empty is an answer, too.
        """
        results: list[Result] = []
        for _ in question.turns:
            request = self.request(question, [valid_text(result.completion) for result in results])
            result = ledger.result(request.id)
            if result is None:
                return results, request
            results.append(result)
        return results, None

    def pending(self, ledger: Ledger, turn: int, *, retry_failed: bool = False) -> Iterator[tuple[Question, Request]]:
        """Requests of a turn (from 0) that can be sent now: those whose earlier turns are there."""
        for question in self.questions:
            results, request = self.state(question, ledger)
            if request is not None and len(results) == turn:
                state = ledger.state(request.id)
                if state in ASKABLE or (retry_failed and state == "failed for good"):
                    yield question, request

    def records(
        self, ledger: Ledger, model: str, count_tokens: TokenCounter
    ) -> Iterator[tuple[Question, dict[str, Any]]]:
        """The lines of the answer file, of all questions that are answered, in order; the same ones each time."""
        for question in self.questions:
            results, request = self.state(question, ledger)
            if request is None:
                yield (
                    question,
                    answer_record(
                        self.bench,
                        question,
                        [valid_text(result.completion) for result in results],
                        model=model,
                        answer_id=results[-1].id,
                        time=_seconds(results[-1].at),
                        count_tokens=count_tokens,
                    ),
                )

    def unanswered(self, ledger: Ledger) -> dict[str, str]:
        """Questions without an answer: id → why."""
        found = {}
        for question in self.questions:
            _, request = self.state(question, ledger)
            if request is not None:
                found[str(question.id)] = ledger.failure_reason(request.id) or "not asked yet"
        return found

    def turns_left(self, ledger: Ledger) -> int:
        """How many answers are missing, those included whose questions depend on missing ones."""
        return sum(len(question.turns) - len(self.state(question, ledger)[0]) for question in self.questions)

    def oddities(self, ledger: Ledger) -> Counter[str]:
        """Turns whose answers are empty, refused, cut short or no valid Unicode."""
        counts: Counter[str] = Counter()
        for question in self.questions:
            for result in self.state(question, ledger)[0]:
                if result.status != "done":
                    counts[result.status] += 1
                elif result.finish_reason == "length":
                    counts["cut by --max-tokens"] += 1
                if valid_text(result.completion) != result.completion:
                    counts["with half characters, replaced by U+FFFD"] += 1
        return counts


def conversation(question: Question, earlier: Sequence[str]) -> Messages:
    """The messages that ask for the turn after ``earlier`` answers."""
    messages: list[tuple[str, str]] = []
    for said, answered in zip(question.turns, earlier, strict=False):
        messages += [("user", said), ("assistant", answered)]
    return (*messages, ("user", question.turns[len(earlier)]))


def joined(messages: Messages) -> str:
    """A conversation as plain text, for models that know no roles: its messages, blank lines between them."""
    return "\n\n".join(content for _, content in messages)


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()

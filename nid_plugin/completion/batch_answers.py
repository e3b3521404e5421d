"""What the lines of a batch's output and error files mean."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nid_plugin.completion.prices import Price
from nid_plugin.completion.results import Failure, Result
from nid_plugin.completion.teacher import TRANSIENT_STATUS, Answer, AnswerError, read_answer

NOT_RUN = {"batch_expired", "batch_cancelled"}
"""Codes of requests that a batch ended without having run: they cost nothing."""

PASSING_STATUS = TRANSIENT_STATUS | {401, 402, 403, 404}
"""Refusals that another batch may not meet: of the moment, of the key, of the model's name."""


@dataclass(frozen=True)
class Line:
    """One line read: of which request, what became of it, whether a failure may be billed all the same."""

    id: str
    record: Result | Failure
    billed: bool = False


class Found:
    """What the lines of a batch's files say, each request once: its first answer, else its last failure.

    Attributes:
        failures: by request.
        seen: requests with a line.
        uncounted: requests that may be billed though no line says how much.
        unreadable, strange: lines that are no JSON of the form, or of requests that are not in the batch.
    """

    def __init__(self, most: dict[str, float]) -> None:
        self._most = most
        self._answered: dict[str, float] = {}
        self.failures: dict[str, Failure] = {}
        self.seen: set[str] = set()
        self.uncounted: set[str] = set()
        self.unreadable = self.strange = 0

    def add(self, line: Line | None) -> Result | None:
        """Take a line in; returns its result where it is the first of its request."""
        if line is None:
            self.unreadable += 1
        elif line.id not in self._most:
            self.strange += 1
        elif line.id not in self._answered:
            self.seen.add(line.id)
            if isinstance(line.record, Result):
                self.failures.pop(line.id, None)
                self.uncounted.discard(line.id)
                self._answered[line.id] = self._most[line.id] if line.record.cost is None else line.record.cost
                return line.record
            self.failures[line.id] = line.record
            if line.billed:
                self.uncounted.add(line.id)
        return None

    def cost(self) -> float:
        """US dollars of all answers, the most that they can be where nobody counted."""
        return sum(self._answered.values()) + sum(self._most[name] for name in self.uncounted)


def read_lines(path: Path, batch: str, price: Price | None, now: str) -> Iterator[Line | None]:
    """What the lines of a file say; None for one that cannot be read.

    Args:
        path: of an output or error file.
        batch: its id.
        price: of the model, None where it is unknown.
        now: the time, ISO 8601.
    """
    with path.open("rb") as stream:
        for line in stream:
            if line.strip():
                yield read_line(line, batch, price, now)


def read_line(line: bytes, batch: str, price: Price | None, now: str) -> Line | None:
    """What a line says; None where it cannot be read. See :func:`read_lines`."""
    try:
        fields = json.loads(line)
        name = fields["custom_id"]
        int(name, 16)
    except (ValueError, KeyError, TypeError):
        return None
    response, error = fields.get("response"), fields.get("error")
    if isinstance(response, dict) and response.get("status_code") == 200:
        return _answered(name, response.get("body"), batch, price, now)
    if isinstance(response, dict) and isinstance(response.get("status_code"), int):
        status = response["status_code"]
        message = f"HTTP {status}: {_text(response.get('body'))}"
        permanent = status < 500 and status not in PASSING_STATUS
        return Line(name, Failure(name, f"http {status}", message, permanent, at=now))
    if isinstance(error, dict):
        code = str(error.get("code") or "error in the batch")
        return Line(name, Failure(name, code, _text(error), False, at=now), billed=code not in NOT_RUN)
    return None


def _answered(name: str, body: Any, batch: str, price: Price | None, now: str) -> Line:
    try:
        answer = read_answer(body)
    except AnswerError as error:
        return Line(name, Failure(name, error.reason, str(error), False, at=now), billed=True)
    return Line(name, _result(name, answer, batch, price, now))


def _result(name: str, answer: Answer, batch: str, price: Price | None, now: str) -> Result:
    cost = None
    if price is not None and answer.usage:
        cost = round(price.of(answer.usage["prompt_tokens"], answer.usage["completion_tokens"], batch=True), 9)
    return Result(
        id=name,
        status="refused" if answer.refusal else "done" if answer.text.strip() else "empty",
        completion=answer.text,
        finish_reason=answer.finish_reason,
        usage=answer.usage,
        model=answer.model,
        cost=cost,
        at=now,
        batch=batch,
    )


def _text(body: Any, width: int = 300) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message", error) if isinstance(error, dict) else error
    text = " ".join(str(message).split())
    return text if len(text) <= width else text[: width - 1] + "…"

"""What became of a request: an answer, or a failure; each is one line of the ledger."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["done", "empty", "refused"]
STATUSES: tuple[Status, ...] = ("done", "empty", "refused")


@dataclass(frozen=True, slots=True)
class Result:
    """What the teacher answered; the last word on its request.

    Attributes:
        id: of the request.
        status: ``done`` (there is text), ``empty`` (there is none), ``refused`` (by the model's refusal field or the
            endpoint's content filter).
        completion: the text as it came; of a continued answer, all parts joined. Text of a refused answer is kept.
        finish_reason: as the endpoint names it: ``stop``, ``length``, ``content_filter``, …
        usage: ``prompt_tokens`` and ``completion_tokens`` as the endpoint counted them, summed over continuations;
            empty where it does not tell.
        model: as the answer names it.
        requests: how many answers it took: 1, or more where it was continued.
        attempts: how many requests were sent in this run, failed ones and continuations included.
        seconds: from the first attempt to the answer.
        cost: US dollars, None where the price is unknown.
        at: when it came, ISO 8601, UTC.
        batch: id of the batch at the endpoint that it came with, empty for a single request.
    """

    id: str
    status: Status
    completion: str
    finish_reason: str
    usage: dict[str, int] = field(default_factory=dict)
    model: str = ""
    requests: int = 1
    attempts: int = 1
    seconds: float = 0.0
    cost: float | None = None
    at: str = ""
    batch: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that was given up.

    Attributes:
        id: of the request.
        reason: a short name for counting: ``http 400``, ``timeout``, ``malformed answer``, …
        message: what the endpoint said.
        permanent: the same request would fail again (the next run leaves it, unless it is told otherwise).
        attempts: how many requests were sent.
        at: when it was given up, ISO 8601, UTC.
    """

    id: str
    reason: str
    message: str
    permanent: bool
    attempts: int = 1
    at: str = ""


def to_line(record: Result | Failure) -> bytes:
    """The record as one line of JSON, with its newline. Lone surrogates are written as escapes."""
    text = json.dumps(asdict(record), ensure_ascii=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(asdict(record)).encode() + b"\n"


def result_from(record: dict[str, Any]) -> Result:
    """A line of results read back.

    Raises:
        TypeError, KeyError, ValueError: it is no such line.
    """
    result = Result(**record)
    if result.status not in STATUSES or not isinstance(result.completion, str) or not isinstance(result.usage, dict):
        raise ValueError("status, completion or usage")
    int(result.id, 16)
    return result


def failure_from(record: dict[str, Any]) -> Failure:
    """A line of failures read back.

    Raises:
        TypeError, KeyError, ValueError: it is no such line.
    """
    failure = Failure(**record)
    int(failure.id, 16)
    return failure

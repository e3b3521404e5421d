"""What the fault server does to each attempt at a prompt, and what it remembers."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

TRANSIENT = (
    "429 with Retry-After",
    "429",
    "500",
    "502 without JSON",
    "no answer",
    "half an answer",
    "malformed JSON",
    "error in the answer",
    "empty choices",
    "stall",
    "reset",
)
"""Faults that pass: a further attempt may succeed."""


JSON, HTML = "application/json", "text/html"


@dataclass(frozen=True)
class ServerSettings:
    """What the server does.

    Attributes:
        latency: seconds from a request's arrival to its answer, errors included.
        faults: share of attempts that meet a fault, by fault.
        refused: share of prompts that always get HTTP 400.
        cut: share of prompts whose answer has the finish reason ``length``.
        seed: decides which ones.
        retry_after: what the header of that name says, in seconds.
        api_key, model: what requests must carry; empty takes any.
    """

    latency: float = 0.05
    faults: Mapping[str, float] = field(default_factory=dict)
    refused: float = 0.0
    cut: float = 0.0
    seed: int = 1
    retry_after: float = 1
    api_key: str = ""
    model: str = ""


@dataclass
class Record:
    """What the server saw and did.

    Attributes:
        asked, answered: attempts, and whole answers sent, by prompt.
        outcomes: attempts by what became of them.
        held_seconds: sum of the times for which attempts took a place in flight.
        first, last: when the first attempt arrived and the last one ended, in seconds of one clock.
        last_new: when the last prompt arrived that was not asked before.
        held_until_last_new: ``held_seconds`` then.
        in_flight, most_in_flight: attempts that take a place now, and at the fullest.
        client_gone: attempts whose client was gone before the answer.
    """

    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    held_seconds: float = 0.0
    first: float = 0.0
    last: float = 0.0
    last_new: float = 0.0
    held_until_last_new: float = 0.0
    in_flight: int = 0
    most_in_flight: int = 0
    client_gone: int = 0

    @property
    def seconds(self) -> float:
        """From the first attempt's arrival to the end of the last."""
        return self.last - self.first

    def ideal_seconds(self, concurrency: int) -> float:
        """What a client with so many places in flight and no time of its own needs (see ``fault_server.py``)."""
        return self.held_seconds / concurrency

    def full_share(self, concurrency: int) -> float:
        """Share of the places that were taken as long as there were requests that had not been begun.

        What comes after that (the last requests meet a fault, wait, are sent again) depends on the faults alone.
        """
        return self.held_until_last_new / concurrency / (self.last_new - self.first)


def prompt_key(prompt: str) -> str:
    """The name of a prompt in the record."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def answer_text(prompt: str) -> str:
    """The answer to a prompt: as long as it, and no other prompt's."""
    return f"{prompt_key(prompt)} {prompt[::-1]}"


class Faults:
    """Draws what happens to each attempt."""

    def __init__(self, settings: ServerSettings) -> None:
        unknown = sorted(set(settings.faults) - set(TRANSIENT))
        if unknown:
            raise ValueError(f"no such faults: {', '.join(unknown)}; there are {', '.join(TRANSIENT)}")
        self._settings = settings

    def of(self, key: str, attempt: int) -> str:
        """The fault of an attempt (counted from 1), empty for none."""
        if self.share(key, "refused") < self._settings.refused:
            return "400"
        drawn = self.share(key, str(attempt))
        for fault, share in self._settings.faults.items():
            drawn -= share
            if drawn < 0:
                return fault
        return ""

    def share(self, key: str, what: str) -> float:
        """A number from 0 to 1, always the same for the same arguments."""
        digest = hashlib.blake2b(f"{self._settings.seed} {key} {what}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64


def response(status: int, body: bytes, kind: str = JSON, headers: str = "") -> bytes:
    """A response of HTTP/1.1."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def error_body(message: str, code: str | None = None) -> bytes:
    """An error as OpenAI's servers write it."""
    return json.dumps({"error": {"message": message, "type": "error", "param": None, "code": code}}).encode()


_ERRORS = {
    "429": response(429, error_body("slow down", "rate_limit_exceeded")),
    "500": response(500, error_body("the server had an error")),
    "502 without JSON": response(502, b"<html><h1>Bad gateway</h1></html>", HTML),
    "malformed JSON": response(200, b'{"id": "x", "choices": [{"message": {"role": "assis'),
    "error in the answer": response(200, error_body("the model is overloaded")),
    "empty choices": response(200, b'{"id": "x", "object": "chat.completion", "choices": []}'),
    "400": response(400, error_body("the prompt cannot be answered", "invalid_request_error")),
    "401": response(401, error_body("Incorrect API key provided", "invalid_api_key")),
    "404": response(404, error_body("The model does not exist", "model_not_found")),
}


def error_response(outcome: str, retry_after: float) -> bytes:
    """What is sent for an error; ``outcome`` is the fault's name."""
    if outcome == "429 with Retry-After":
        body = error_body("slow down", "rate_limit_exceeded")
        return response(429, body, headers=f"Retry-After: {retry_after:g}\r\n")
    return _ERRORS[outcome]

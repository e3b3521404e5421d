"""A teacher on loopback whose answers a test writes: real HTTP, one thread a connection."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Asked:
    """One request that came: its path, headers and body."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """What was asked, without the system prompt."""
        return str(self.body["prompt"] if "prompt" in self.body else self.body["messages"][-1]["content"])


@dataclass
class ToyTeacher:
    """A server's address and what it was asked, in order."""

    base_url: str
    asked: list[Asked] = field(default_factory=list)

    def times(self) -> dict[str, int]:
        """How often each text was asked."""
        texts = [asked.text for asked in self.asked]
        return {text: texts.count(text) for text in texts}


def completion_of(text: str) -> str:
    """What the toy teacher answers to a text: tells one text from another, and ends in its length."""
    return f" … and so on, after {len(text)} characters that end in {text[-12:]!r}"


def answer(text: str, *, finish_reason: str = "stop", usage: dict[str, int] | None = None, **message: Any) -> Reply:
    """A good answer of ``/chat/completions``."""
    body = {
        "id": "a",
        "object": "chat.completion",
        "created": 1,
        "model": "toy-2026-01-01",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15} if usage is None else usage,
    }
    return 200, {}, json.dumps(body).encode()


def plain_answer(text: str, *, finish_reason: str = "stop") -> Reply:
    """A good answer of ``/completions``."""
    choice = {"index": 0, "text": text, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return 200, {}, json.dumps({"model": "toy", "choices": [choice], "usage": usage}).encode()


def error(status: int, message: str, code: str | None = None, **headers: str) -> Reply:
    """An error as OpenAI words it; ``retry_after="1"`` becomes the header ``retry-after``."""
    body = {"error": {"message": message, "type": "error", "param": None, "code": code}}
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(body).encode()


@contextlib.contextmanager
def toy_teacher(reply: Callable[[Asked], Reply] | None = None) -> Iterator[ToyTeacher]:
    """Serve on a free port of loopback.

    Args:
        reply: makes the reply to each request; by default a good one to each.
    """
    make = reply or (lambda asked: answer(completion_of(asked.text)))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked = Asked(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            teacher.asked.append(asked)
            status, headers, data = make(asked)
            self.send_response(status)
            for name, value in {
                "content-type": "application/json",
                "content-length": str(len(data)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    teacher = ToyTeacher(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield teacher
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

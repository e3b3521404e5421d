"""A loopback server that behaves like OpenAI's files and batches, with faults on demand and a count of what was run."""

import email.parser
import email.policy
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

STEPS = ("validating", "in_progress", "finalizing")


@dataclass
class Plan:
    """How a batch goes.

    Attributes:
        status: in which it ends.
        run: share of its requests that are run before that.
        looks: how often it is looked at before it ends.
        errors: of the batch, code and message.
        spoil: changes the lines of the output file.
        lines: of single requests, by prompt: what comes in place of an answer.
    """

    status: str = "completed"
    run: float = 1.0
    looks: int = 3
    errors: tuple[tuple[str, str], ...] = ()
    spoil: Callable[[list[str]], list[str]] = lambda lines: lines
    lines: Callable[[str], dict[str, Any] | None] = lambda prompt: None


@dataclass
class BatchServer:
    """The state of the endpoint.

    Attributes:
        url: its base URL.
        plans: of the batches in the order of their creation; the last one is for all further ones.
        run: how often each request was run, and so paid.
        calls: by method and path without ids.
        fault: called with these before (``"before"``) and after a call is carried out (``"after"``); may return an HTTP
            status to answer with, or 0 for an end of the connection without an answer.
        key: that is taken.
    """

    url: str = ""
    plans: list[Plan] = field(default_factory=lambda: [Plan()])
    run: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    fault: Callable[[str, str], int | None] = lambda call, moment: None
    key: str = "sk-batch-key-0123456789"
    files: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _ids: Iterator[int] = field(default_factory=lambda: count(1))
    _of: dict[str, Plan] = field(default_factory=dict)
    _looks: Counter[str] = field(default_factory=Counter)

    def add_file(self, content: bytes, name: str) -> dict[str, Any]:
        """Take a file in."""
        file_id = f"file-{next(self._ids)}"
        self.files[file_id], self.names[file_id] = content, name
        return {"id": file_id, "object": "file", "bytes": len(content), "created_at": 1, "filename": name,
                "purpose": "batch", "status": "processed"}  # fmt: skip

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Make a batch."""
        assert asked["completion_window"] == "24h"
        batch_id = f"batch_{next(self._ids)}"
        self._of[batch_id] = self.plans[min(len(self.batches), len(self.plans) - 1)]
        lines = self.requests(asked["input_file_id"])
        assert all(line["url"] == asked["endpoint"] and line["method"] == "POST" for line in lines)
        assert len({line["custom_id"] for line in lines}) == len(lines)
        self.batches[batch_id] = {
            "id": batch_id, "object": "batch", "endpoint": asked["endpoint"], "completion_window": "24h",
            "input_file_id": asked["input_file_id"], "metadata": asked.get("metadata"), "status": "validating",
            "created_at": len(self.batches), "output_file_id": None, "error_file_id": None, "errors": None,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
        }  # fmt: skip
        return self.batches[batch_id]

    def look(self, batch_id: str) -> dict[str, Any] | None:
        """A batch, one step further than at the last look."""
        batch = self.batches.get(batch_id)
        if batch is not None and batch["status"] in STEPS:
            plan, looks = self._of[batch_id], self._looks[batch_id]
            self._looks[batch_id] += 1
            batch["status"] = STEPS[min(looks, len(STEPS) - 1)]
            batch["request_counts"]["total"] = len(self.requests(batch["input_file_id"]))
            if looks >= plan.looks:
                self._end(batch, plan)
        return batch

    def requests(self, file_id: str) -> list[dict[str, Any]]:
        """The lines of an input file."""
        return [json.loads(line) for line in self.files[file_id].splitlines()]

    def _end(self, batch: dict[str, Any], plan: Plan) -> None:
        requests = self.requests(batch["input_file_id"])
        draw = random.Random(batch["id"])
        draw.shuffle(requests)
        ran = round(plan.run * len(requests))
        output, errors = list[str](), list[str]()
        for number, request in enumerate(requests):
            line, good = self._line(request, plan, ran=number < ran)
            (output if good else errors).append(json.dumps(line))
        batch["status"] = plan.status
        batch["request_counts"] |= {"completed": len(output), "failed": len(errors)}
        if plan.status == "failed":
            data = [{"code": code, "message": message, "line": 1, "param": None} for code, message in plan.errors]
            batch["errors"] = {"object": "list", "data": data}
            return
        for what, lines in (("output", plan.spoil(output)), ("error", errors)):
            if lines:
                batch[f"{what}_file_id"] = self.add_file("".join(f"{x}\n" for x in lines).encode(), what)["id"]

    def _line(self, request: dict[str, Any], plan: Plan, *, ran: bool) -> tuple[dict[str, Any], bool]:
        body, name = request["body"], request["custom_id"]
        chat = "messages" in body
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        line = {"id": f"batch_req_{name}", "custom_id": name, "response": None, "error": None}
        if not ran:
            code = "batch_expired" if plan.status == "expired" else "batch_cancelled"
            return line | {"error": {"code": code, "message": "This request could not be executed"}}, False
        if (instead := plan.lines(prompt)) is not None:
            return line | instead, False
        self.run[name] += 1
        text = answer(prompt)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
        answered = {"id": "x", "object": "x", "created": 1, "model": body["model"], "choices": [choice], "usage": usage}
        return line | {"response": {"status_code": 200, "request_id": "req", "body": answered}}, True


def answer(prompt: str) -> str:
    """The answer to a prompt."""
    return f"So {prompt[::-1]}"


def http_error(status: int, message: str) -> dict[str, Any]:
    """What an error file holds for a refused request."""
    return {"response": {"status_code": status, "request_id": "req", "body": {"error": {"message": message}}}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # a head and a body that are sent apart wait for each other's receipt
    state: BatchServer

    def do_GET(self) -> None:
        """Called by the server."""
        self._serve()

    def do_POST(self) -> None:
        """Called by the server."""
        self._serve()

    def log_message(self, *words: object) -> None:
        """Silence."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with self.state.lock:
            path, _, query = self.path.removeprefix("/v1/").partition("?")
            kind, *rest = path.split("/")
            call = f"{self.command} {'/'.join([kind, *('ID' for _ in rest[:1]), *rest[1:]])}"
            self.state.calls[call] += 1
            status = self.state.fault(call, "before")
            if self.headers["authorization"] != f"Bearer {self.state.key}":
                status = 401
            if status is None:
                found = self._do(call, rest, query, body)
                status = self.state.fault(call, "after")
                if status is None:
                    self._answer(*found)
                    return
            if status:
                sent = self.headers["authorization"].removeprefix("Bearer ")
                text = f"Incorrect API key provided: {sent[:8]}****{sent[-4:]}" if status == 401 else "trouble"
                message = {"error": {"message": text, "code": None}}
                self._answer(status, json.dumps(message).encode())
            self.close_connection = True

    def _do(self, call: str, rest: list[str], query: str, body: bytes) -> tuple[int, bytes]:
        state = self.state
        if call == "POST files":
            head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
            form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
            fields = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
            assert fields["purpose"].get_payload(decode=True) == b"batch"
            file = fields["file"]
            content: Any = file.get_payload(decode=True)
            return 200, json.dumps(state.add_file(content, file.get_filename() or "")).encode()
        if call == "GET files/ID/content":
            return 200, state.files[rest[0]]
        if call == "POST batches":
            return 200, json.dumps(state.create(json.loads(body))).encode()
        if call == "GET batches":
            after = [part.removeprefix("after=") for part in query.split("&") if part.startswith("after=")]
            newest = list(state.batches.values())[::-1]
            start = 1 + [batch["id"] for batch in newest].index(after[0]) if after else 0
            page = newest[start : start + 2]
            more = start + 2 < len(newest)
            return 200, json.dumps({"object": "list", "data": page, "has_more": more}).encode()
        batch = state.look(rest[0]) if call == "GET batches/ID" else None
        missing = {"error": {"message": "No such batch", "code": None}}
        return (404, json.dumps(missing).encode()) if batch is None else (200, json.dumps(batch).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def batch_server() -> Iterator[BatchServer]:
    """A server in a thread."""
    state = BatchServer()
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""An OpenAI-compatible server on loopback that answers after a set latency, injects faults, and keeps a record.

Each prompt has one answer, always the same. Which attempt at a prompt meets which fault is drawn from the seed, the
prompt and the attempt's number, so that it does not depend on the order in which requests arrive. Prompts are known in
the record by ``prompt_key``.

**Ideal.** A request takes one of the client's places in flight from its arrival until its answer is sent or the
connection is gone: the latency for answers and errors, and for a request that never gets its answer as long as the
client bears it. A client that keeps all its places taken and spends no time of its own needs the sum of these times,
faults included, divided by the number of places: ``Record.ideal_seconds``. Time spent waiting before a further
attempt takes no place and is no part of it.

    python -m scripts.benchmarks.fault_server --faults 0.01 --port 8080
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, cast

from scripts.benchmarks.faults import (
    TRANSIENT,
    Faults,
    Record,
    ServerSettings,
    answer_text,
    error_response,
    prompt_key,
    response,
)

GIVEN_UP_AFTER = 600.0
"""Seconds after which the server ends a connection on which it says nothing."""


class Connection(asyncio.Protocol):
    """One connection: requests are answered one after the other."""

    def __init__(self, server: "FaultServer") -> None:
        self._server = server
        self._data = b""
        self._transport: asyncio.Transport | None = None
        self._arrived: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio: what was in flight here ends."""
        if self._timer is not None:
            self._timer.cancel()
        if self._arrived is not None:
            self._server.record.client_gone += 1
            self._end(perf_counter() - self._arrived)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        lines = self._data[:end].decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        whole = end + 4 + int(headers.get("content-length", 0))
        if len(self._data) < whole:
            return
        body, self._data = self._data[end + 4 : whole], self._data[whole:]
        self._request(lines[0].split(" ")[1], headers, body)

    def _request(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        if path.startswith("/record"):
            self._write(json.dumps(vars(self._server.record)).encode())
        elif path.startswith("/change"):
            self._server.change(ServerSettings(**json.loads(body)))
            self._write(b"{}")
        elif path.endswith("/models"):
            self._write(json.dumps({"object": "list", "data": [{"id": "teacher", "object": "model"}]}).encode())
        else:
            self._arrived = perf_counter()
            self._ask(path, headers, body)

    def _ask(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        server = self._server
        asked = json.loads(body)
        prompt = asked["prompt"] if "prompt" in asked else asked["messages"][-1]["content"]
        key = prompt_key(prompt)
        server.arrived(key, self._arrived or 0.0)
        outcome = server.outcome(key, headers, asked)
        server.record.outcomes[outcome or "answered"] += 1
        loop, latency = server.loop, server.settings.latency
        if outcome in ("no answer", "stall"):
            if outcome == "stall":
                whole = self._answer(path, asked, key, prompt)
                self._send(whole[: len(whole) - len(prompt) // 2 - 1])
            self._timer = loop.call_later(GIVEN_UP_AFTER, self._close)
        elif outcome == "":
            whole = self._answer(path, asked, key, prompt)
            self._timer = loop.call_later(latency, self._answered, key, whole)
        else:
            self._timer = loop.call_later(latency, self._faulty, outcome, path, asked, key, prompt)

    def _answer(self, path: str, asked: dict[str, Any], key: str, prompt: str) -> bytes:
        text = answer_text(prompt)
        choice: dict[str, Any] = {"index": 0, "finish_reason": self._server.finish_reason(key)}
        if path.endswith("/chat/completions"):
            kind, choice["message"] = "chat.completion", {"role": "assistant", "content": text}
        else:
            kind, choice["text"] = "text_completion", text
        usage = {"prompt_tokens": len(prompt) // 4 + 1, "completion_tokens": len(text) // 4 + 1}
        usage["total_tokens"] = sum(usage.values())
        body = {"id": f"answer-{key}", "object": kind, "created": 0, "model": asked.get("model", "")}
        return response(200, json.dumps(body | {"choices": [choice], "usage": usage}).encode())

    def _answered(self, key: str, whole: bytes) -> None:
        self._server.record.answered[key] += 1
        self._send(whole)
        self._end(self._server.settings.latency)

    def _faulty(self, outcome: str, path: str, asked: dict[str, Any], key: str, prompt: str) -> None:
        if outcome == "reset":
            assert self._transport is not None
            # With a linger time of 0 the system sends a reset instead of an orderly end.
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._end(self._server.settings.latency)
            self._transport.abort()
            return
        if outcome == "half an answer":
            whole = self._answer(path, asked, key, prompt)
            self._send(whole[: len(whole) - len(prompt) // 2 - 1])
        else:
            self._send(error_response(outcome, self._server.settings.retry_after))
        self._end(self._server.settings.latency)
        if outcome == "half an answer":
            self._close()

    def _end(self, held: float) -> None:
        """The attempt that is in flight on this connection takes no place any more."""
        self._arrived = None
        self._server.ended(held)

    def _write(self, body: bytes) -> None:
        self._send(response(200, body))

    def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class FaultServer:
    """What all connections share."""

    def __init__(self, settings: ServerSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.change(settings)

    def change(self, settings: ServerSettings) -> None:
        """Begin anew with these settings."""
        self.settings, self.record = settings, Record()
        self._attempts: Counter[str] = Counter()
        self._faults = Faults(settings)

    def arrived(self, key: str, now: float) -> None:
        """Count an attempt at a prompt."""
        record = self.record
        self._attempts[key] += 1
        record.asked[key] += 1
        record.first = record.first or now
        if record.asked[key] == 1:
            record.last_new, record.held_until_last_new = now, record.held_seconds
        record.in_flight += 1
        record.most_in_flight = max(record.most_in_flight, record.in_flight)

    def ended(self, held: float) -> None:
        """An attempt takes no place any more, after so many seconds."""
        self.record.in_flight -= 1
        self.record.held_seconds += held
        self.record.last = perf_counter()

    def outcome(self, key: str, headers: Mapping[str, str], asked: dict[str, Any]) -> str:
        """The fault that the latest attempt at a prompt meets, empty for none."""
        if self.settings.api_key and headers.get("authorization") != f"Bearer {self.settings.api_key}":
            return "401"
        if self.settings.model and asked.get("model") != self.settings.model:
            return "404"
        return self._faults.of(key, self._attempts[key])

    def finish_reason(self, key: str) -> str:
        """Of the answer to a prompt."""
        return "length" if self._faults.share(key, "cut") < self.settings.cut else "stop"


async def serve(settings: ServerSettings, port: int, *, until_stdin_ends: bool = False) -> None:
    """Serve until SIGTERM, SIGINT or (``until_stdin_ends``) the end of standard input; prints the base URL first."""
    loop = asyncio.get_running_loop()
    shared = FaultServer(settings, loop)
    server = await loop.create_server(lambda: Connection(shared), "127.0.0.1", port, backlog=1024)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if until_stdin_ends:
        loop.add_reader(sys.stdin.fileno(), ended.set)  # nothing is ever written to it
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await ended.wait()
    server.close()


@dataclass(frozen=True)
class RunningServer:
    """A fault server in a process of its own.

    Attributes:
        url: its base URL, with ``/v1``.
        process: that it runs in.
    """

    url: str
    process: subprocess.Popen[bytes]

    def record(self) -> Record:
        """What it saw and did since the start or the last :meth:`change`."""
        fields: dict[str, Any] = json.loads(self._get("record"))
        counters = {name: Counter(fields[name]) for name in ("asked", "answered", "outcomes")}
        return Record(**(fields | counters))

    def change(self, settings: ServerSettings) -> None:
        """Go on with other settings as a new server would; nothing may be in flight."""
        self._get("change", json.dumps(asdict(settings)).encode())

    def _get(self, what: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(f"{self.url.removesuffix('/v1')}/{what}", body, timeout=60) as answer:
            return bytes(answer.read())


@contextlib.contextmanager
def running_server(settings: ServerSettings) -> Iterator[RunningServer]:
    """Start a server on a free port; it ends with the block, or with this process."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "scripts.benchmarks.fault_server", "--settings", json.dumps(asdict(settings))]
    process = subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        url = process.stdout.readline().decode().strip()
        if not url:
            raise RuntimeError(f"the fault server did not start (status {process.wait()})")
        yield RunningServer(url, process)
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def main() -> None:
    """Serve by the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--latency", type=float, default=0.05, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument(
        "--faults", type=float, default=0.0, metavar="SHARE", help="of attempts, for each of the faults"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the faults (default: %(default)s)")
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.settings:
        settings = ServerSettings(**json.loads(args.settings))
    else:
        settings = ServerSettings(args.latency, dict.fromkeys(TRANSIENT, args.faults), seed=args.seed)
    runner: Any = asyncio.run
    with contextlib.suppress(ModuleNotFoundError):
        import uvloop  # type: ignore[import-not-found, unused-ignore]

        runner = uvloop.run
    runner(serve(settings, args.port, until_stdin_ends=bool(args.settings)))


if __name__ == "__main__":
    main()

"""Kill ``nid complete`` at random moments, start it again, and see whether its ledger is as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.benchmarks.fault_server import running_server
from scripts.benchmarks.faults import ServerSettings, prompt_key
from scripts.benchmarks.measure import run_command

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    "OPENAI_API_KEY": "none",
    "OMP_NUM_THREADS": "1",
}
MODEL = "teacher"
TIMEOUT = 2.0
"""Seconds; more than the benchmark's, so that a busy machine does not make timeouts of its own."""
POLL_SECONDS = 0.005
SHARE_OF_A_LIFE = 1.3
"""Between two kills so much of the work may be done at most, times the number of kills."""

KILLED_AT_START = 0.15
"""Share of the kills that come within a second of the command's start, rather than after its first result."""


@dataclass(frozen=True)
class Kills:
    """What came of a run that was killed again and again.

    Attributes:
        kills: how many there were.
        saved: results in the ledger after each of them.
        asked_after_saved: attempts at requests whose result was in the ledger already; must be 0.
        answered_again: answers beyond one a request: they were in flight or not yet saved when a kill came.
        differing: results that are not the undisturbed run's, missing or extra ones included; must be 0.
        lines, ids: of the results.
        seconds: of all starts together.
    """

    kills: int
    saved: list[int]
    asked_after_saved: int
    answered_again: int
    differing: int
    lines: int
    ids: int
    seconds: float


def complete(url: str, halves: Path, ledger: Path, concurrency: int, timeout: float = TIMEOUT) -> list[str]:
    """The command line of ``nid complete``."""
    words = [sys.executable, "-m", "nid_plugin.cli", "complete", "--halves", halves, "--ledger", ledger]
    words += ["--model", MODEL, "--base-url", url, "--concurrency", concurrency, "--timeout", timeout]
    return [*map(str, words), "--price", "10", "30"]


def kill_again_and_again(work: Path, settings: ServerSettings, concurrency: int, kills: int, seed: int = 1) -> Kills:
    """Run once undisturbed, then on another ledger with kills at random moments; compare the two.

    Args:
        work: holds ``halves.jsonl``.
        settings: of the servers, one for each of the two.
        concurrency: requests in flight.
        kills: how many SIGKILLs; fewer come where all was done before.
        seed: of the moments.
    """
    halves, disturbed, undisturbed = work / "halves.jsonl", work / "disturbed", work / "undisturbed"
    with running_server(settings) as server:
        run_command(complete(server.url, halves, undisturbed, concurrency), ENVIRONMENT)
    expected, keys = results(undisturbed), _prompt_keys(undisturbed)
    share = round(SHARE_OF_A_LIFE * (undisturbed / "results.jsonl").stat().st_size / max(kills, 1))
    draw, saved, asked_after_saved = random.Random(seed), list[int](), 0
    asked_then: dict[str, int] = {}
    started = time.perf_counter()
    with running_server(settings) as server:
        command = complete(server.url, halves, disturbed, concurrency)
        while True:
            killed = len(saved) < kills and start_and_kill(command, disturbed, draw, share)
            if not killed:
                run_command(command, ENVIRONMENT)
            asked, found = server.record().asked, results(disturbed)
            asked_after_saved += sum(asked[key] - count for key, count in asked_then.items())
            asked_then = {keys[name]: asked[keys[name]] for name in found}
            if not killed:
                break
            saved.append(len(found))
        answered = server.record().answered
    return Kills(
        kills=len(saved),
        saved=saved,
        asked_after_saved=asked_after_saved,
        answered_again=sum(answered.values()) - len(answered),
        differing=sum(expected.get(name) != found.get(name) for name in expected.keys() | found.keys()),
        lines=(disturbed / "results.jsonl").read_bytes().count(b"\n"),
        ids=len(found),
        seconds=round(time.perf_counter() - started, 1),
    )


def start_and_kill(command: Sequence[str], ledger: Path, draw: random.Random, most: int) -> bool:
    """Start a command and kill it; False where it had ended before.

    Args:
        command: the words.
        ledger: that it writes.
        draw: gives the moment: mostly after up to ``most`` bytes of new results, sometimes soon after the start.
        most: bytes.
    """
    file = ledger / "results.jsonl"
    before = file.stat().st_size if file.exists() else 0
    at_start, size, wait = draw.random() < KILLED_AT_START, before + draw.uniform(1, most), draw.uniform(0, 0.03)
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdout=said, stderr=subprocess.STDOUT)
        if at_start:
            wait = draw.uniform(0, 1)
        else:
            while process.poll() is None and (not file.exists() or file.stat().st_size < size):
                time.sleep(POLL_SECONDS)
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        status = process.wait()
        if status not in (0, -signal.SIGKILL):
            said.seek(0)
            end = said.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(command)}\nended with status {status}:\n{end}")
    time.sleep(0.05)  # what the dead process sent last still reaches the server
    return status != 0


def results(ledger: Path) -> dict[str, tuple[Any, ...]]:
    """What a ledger holds, by id, read without its own code: all that does not depend on the moment of asking.

    Of results that are there twice the first one counts; a last line without its end is none yet.
    """
    found: dict[str, tuple[Any, ...]] = {}
    file = ledger / "results.jsonl"
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    for line in lines:
        record = json.loads(line)
        what = (record["status"], record["completion"], record["finish_reason"], record["usage"], record["model"])
        found.setdefault(record["id"], what)
    return found


def _prompt_keys(ledger: Path) -> dict[str, str]:
    """How the server calls the prompt of each request of a finished ledger."""
    with (ledger / "pairs.jsonl").open(encoding="utf-8") as stream:
        return {pair["id"]: prompt_key(pair["prompt"]) for pair in map(json.loads, stream)}

"""Time ``nid complete`` against a loopback server with set latency and faults, and kill it again and again.

The command is run as a user runs it, with 64 requests in flight, on a server that answers after 50 ms; without faults,
and with each fault of ``faults.py`` in one attempt of a hundred. In turn with it runs what one would write without it:
the ``openai`` client with its own retries and 64 requests in flight, which saves nothing::

    python scripts/benchmarks/completion.py --json completion.json [--quick]

Throughput is requests a second from the arrival of the first request at the server to the end of the last. The ratios
``no_faults/ideal`` and ``faults/ideal`` divide it by the server's ideal (defined in ``fault_server.py``, computed from
the server's own record of the same run). ``…/ideal/whole_command`` counts from the start of the command to its end,
``…/ideal/until_last_new_request`` stops where the last request was sent for the first time: after that there is nothing
left to fill the places of requests that wait for another attempt. ``no_faults/raw_client`` is ours ÷ the bare client's.

Then the command is killed (SIGKILL) at random moments and started again until all is done, and what the ledger holds is
compared with an undisturbed run's.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # see measure.py
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import asyncio
import hashlib
import json
import os
import random
import resource
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scripts.benchmarks.completion_kills import ENVIRONMENT, MODEL, complete, kill_again_and_again
from scripts.benchmarks.fault_server import RunningServer, running_server
from scripts.benchmarks.faults import TRANSIENT, Record, ServerSettings
from scripts.benchmarks.measure import machine, paired_ratio, row, run_command, run_in_turn, versions, write_report

TIMEOUT = 1.0
"""Seconds, twenty times the latency: so long a request without an answer takes a place in flight."""

FAULT_SHARE = 0.01
PROMPT_CHARACTERS = 1000
SIZES = {"full": (10_000, 5, 20), "quick": (2_000, 2, 5)}
"""Requests, repeats, kills."""


@dataclass(frozen=True)
class Run:
    """One run of a client to its end: seconds of the whole command, its processor time, its peak memory, the record."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    record: Record

    def __str__(self) -> str:
        requests = len(self.record.asked)
        return f"{requests / self.record.seconds:,.0f} requests/s, {self.peak_mib:.0f} MiB"


def parse_args() -> argparse.Namespace:
    """The options."""
    requests, repeats, kills = SIZES["full"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", metavar="OUT", help="report to write")
    parser.add_argument("--quick", action="store_true", help="fewer requests, repeats and kills: about a minute")
    parser.add_argument("--requests", type=int, help=f"of each run (default: {requests})")
    parser.add_argument("--repeats", type=int, help=f"of each variant (default: {repeats})")
    parser.add_argument("--kills", type=int, help=f"default: {kills}; 0 leaves this part out")
    parser.add_argument("--concurrency", type=int, default=64, help="requests in flight (default: %(default)s)")
    parser.add_argument("--latency", type=float, default=0.05, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of faults and kills (default: %(default)s)")
    parser.add_argument("--raw-client", nargs=2, metavar=("URL", "HALVES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.json and not args.raw_client:
        parser.error("--json OUT is missing")
    return args


def main() -> None:
    """Measure, kill, show and write."""
    args = parse_args()
    if args.raw_client:
        url, halves = args.raw_client
        asyncio.run(ask_without_ledger(url, halves, args.concurrency))
        return
    requests, repeats, kills = SIZES["quick" if args.quick else "full"]
    requests, repeats = args.requests or requests, args.repeats or repeats
    kills = kills if args.kills is None else args.kills
    about_machine = machine()
    settings = ServerSettings(latency=args.latency, seed=args.seed)
    with tempfile.TemporaryDirectory(prefix="completion-benchmark-") as folder:
        work = Path(folder)
        write_halves(work / "halves.jsonl", requests, args.seed)
        runs = run_in_turn(variants(work, settings, args.concurrency), repeats)
        disturbed = kill_again_and_again(work, with_faults(settings), args.concurrency, kills) if kills else None
    about_machine["load_average_after"] = os.getloadavg()[0]
    report = {
        "machine": about_machine,
        "versions": versions("openai", "aiohttp", "httpx2", "tenacity", "uvloop"),
        "settings": {
            "requests": requests,
            "concurrency": args.concurrency,
            "latency_seconds": args.latency,
            "timeout_seconds": TIMEOUT,
            "share_of_each_fault": FAULT_SHARE,
            "faults": list(TRANSIENT),
            "prompt_characters": PROMPT_CHARACTERS,
        },
        "rows": rows(runs, args.concurrency),
        "ratios": ratios(runs, args.concurrency),
        "outcomes_with_faults": dict(runs["faults"][-1].record.outcomes),
        "kills": None if disturbed is None else vars(disturbed),
    }
    write_report(args.json, report)
    show(report)


def show(report: dict[str, Any]) -> None:
    """Print rows, ratios and what the kills did."""
    for name, figures in report["rows"].items():
        print(f"{name:36} min {figures['min']:9.2f}  median {figures['median']:9.2f}  max {figures['max']:9.2f}")
    for name, ratio in report["ratios"].items():
        print(f"{name:36} {ratio:.3f}")
    for name, value in (report["kills"] or {}).items():
        print(f"kills: {name:29} {value}")


def write_halves(path: Path, count: int, seed: int) -> None:
    """Halves of made-up documents, each another one."""
    from nid_plugin.halving import Half
    from nid_plugin.halving import write_halves as write

    draw = random.Random(seed)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(1, 9))) for _ in range(2000)]

    def half(number: int) -> Half:
        prompt = f"{number} " + " ".join(draw.choices(words, k=PROMPT_CHARACTERS // 5))
        first, second = prompt[:PROMPT_CHARACTERS].rstrip(), " and so on."
        return Half(hashlib.sha256((first + second).encode()).hexdigest()[:32], first, second, "made up")

    write(str(path), map(half, range(count)))


def with_faults(settings: ServerSettings) -> ServerSettings:
    """The same server with each fault in its share of the attempts."""
    return ServerSettings(settings.latency, dict.fromkeys(TRANSIENT, FAULT_SHARE), seed=settings.seed)


def variants(work: Path, settings: ServerSettings, concurrency: int) -> dict[str, Callable[[], Run]]:
    """What is run in turn."""
    halves = work / "halves.jsonl"

    def ours(server: RunningServer) -> list[str]:
        ledger = tempfile.mkdtemp(dir=work)
        return complete(server.url, halves, Path(ledger), concurrency, TIMEOUT)

    def raw(server: RunningServer) -> list[str]:
        script = str(Path(__file__).resolve())
        return [sys.executable, script, "--raw-client", server.url, str(halves), "--concurrency", str(concurrency)]

    return {
        "raw_client": lambda: measured(settings, raw),
        "no_faults": lambda: measured(settings, ours),
        "faults": lambda: measured(with_faults(settings), ours),
    }


def measured(settings: ServerSettings, command: Callable[[RunningServer], list[str]]) -> Run:
    """Run a client to its end on a server of its own."""
    with running_server(settings) as server:
        before = _processor_seconds()
        ran = run_command(command(server), ENVIRONMENT)
        return Run(ran.seconds, _processor_seconds() - before, ran.peak_mib, server.record())


def _processor_seconds() -> float:
    """Of processes that have ended; the server has not."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


async def ask_without_ledger(url: str, halves: str, concurrency: int) -> None:
    """What one would write without ``nid complete``: the client's own retries, answers kept in memory."""
    import httpx2
    import openai

    with Path(halves).open(encoding="utf-8") as stream:
        prompts = iter([json.loads(line)["prompt"] for line in stream])
    limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    http = openai.DefaultAioHttpClient(limits=limits, timeout=TIMEOUT)
    answers: list[str | None] = []
    async with openai.AsyncOpenAI(
        api_key="none", base_url=url, max_retries=8, timeout=TIMEOUT, http_client=http
    ) as client:

        async def work() -> None:
            for prompt in prompts:
                answer = await client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": prompt}], max_tokens=1024
                )
                answers.append(answer.choices[0].message.content)

        await asyncio.gather(*(work() for _ in range(concurrency)))


def rows(runs: dict[str, list[Run]], concurrency: int) -> dict[str, dict[str, float]]:
    """Throughput, share of the ideal, processor time a request, memory, and seconds outside the asking."""
    figures: dict[str, dict[str, float]] = {}
    for name, measured_runs in runs.items():
        requests = [len(run.record.asked) for run in measured_runs]
        each = list(zip(measured_runs, requests, strict=True))
        figures[f"{name}/requests_per_s"] = row([count / run.record.seconds for run, count in each])
        ideal = [count / run.record.ideal_seconds(concurrency) for run, count in each]
        figures[f"{name}/ideal_requests_per_s"] = row(ideal)
        figures[f"{name}/cpu_ms_per_request"] = row([1000 * run.cpu_seconds / count for run, count in each])
        figures[f"{name}/peak_mib"] = row([run.peak_mib for run in measured_runs])
        after = [run.record.last - run.record.last_new for run in measured_runs]
        figures[f"{name}/seconds_after_last_new_request"] = row(after)
        figures[f"{name}/seconds_before_and_after"] = row([run.seconds - run.record.seconds for run in measured_runs])
    return figures


def ratios(runs: dict[str, list[Run]], concurrency: int) -> dict[str, float]:
    """Throughput ÷ ideal of the same run; ours ÷ the bare client's of the same round."""
    figures = {}
    for name, measured_runs in runs.items():
        ideal = [run.record.ideal_seconds(concurrency) for run in measured_runs]
        shares = [best / run.record.seconds for best, run in zip(ideal, measured_runs, strict=True)]
        whole = [best / run.seconds for best, run in zip(ideal, measured_runs, strict=True)]
        figures[f"{name}/ideal"] = statistics.median(shares)
        figures[f"{name}/ideal/whole_command"] = statistics.median(whole)
        full = [run.record.full_share(concurrency) for run in measured_runs]
        figures[f"{name}/ideal/until_last_new_request"] = statistics.median(full)
    raw, ours = ([1 / run.record.seconds for run in runs[name]] for name in ("raw_client", "no_faults"))
    figures["no_faults/raw_client"] = paired_ratio(ours, raw)
    return figures


if __name__ == "__main__":
    main()

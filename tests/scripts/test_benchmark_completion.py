"""The benchmark of ``nid complete``: its sums, and one small run."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from scripts.benchmarks.completion import Run, ratios, rows
from scripts.benchmarks.faults import TRANSIENT, Faults, Record, ServerSettings, prompt_key

ROOT = Path(__file__).resolve().parents[2]


def record(seconds: float, held: float, requests: int = 100) -> Record:
    """Of a server that was asked for so long."""
    asked = Counter({str(number): 1 for number in range(requests)})
    return Record(
        asked, asked, held_seconds=held, first=5.0, last=5.0 + seconds, last_new=5.0 + seconds / 2,
        held_until_last_new=held * 0.75,
    )  # fmt: skip


def test_throughput_and_its_share_of_the_ideal() -> None:
    ours, raw = Run(14.0, 2.0, 80.0, record(10.0, 32.0)), Run(13.0, 1.0, 70.0, record(20.0, 32.0))
    runs = {"raw_client": [raw], "no_faults": [ours], "faults": [ours]}
    figures = rows(runs, concurrency=4)
    assert figures["no_faults/requests_per_s"]["median"] == 10
    assert (
        figures["no_faults/ideal_requests_per_s"]["median"] == 12.5
    )  # 32 seconds of places, 4 at a time, 100 requests
    assert figures["no_faults/cpu_ms_per_request"]["median"] == 20
    assert figures["no_faults/seconds_before_and_after"]["median"] == 4
    shares = ratios(runs, concurrency=4)
    assert shares["no_faults/ideal"] == 0.8
    assert shares["no_faults/ideal/whole_command"] == 8 / 14
    assert shares["no_faults/ideal/until_last_new_request"] == pytest.approx(24 / 4 / 5)
    assert shares["no_faults/raw_client"] == 2


def test_faults_come_as_often_as_they_should_and_the_same_each_time() -> None:
    faults = Faults(ServerSettings(faults=dict.fromkeys(TRANSIENT, 0.01), seed=7))
    drawn = Counter(faults.of(prompt_key(str(number)), 1) for number in range(20_000))
    assert set(drawn) == {"", *TRANSIENT}
    assert all(140 < drawn[fault] < 260 for fault in TRANSIENT)
    again = Faults(ServerSettings(faults=dict.fromkeys(TRANSIENT, 0.01), seed=7))
    assert [again.of("a", n) for n in range(500)] == [faults.of("a", n) for n in range(500)]
    assert len({faults.of("a", n) for n in range(500)}) > 1
    with pytest.raises(ValueError, match="no such faults: x"):
        Faults(ServerSettings(faults={"x": 1.0}))


@pytest.mark.slow
def test_a_small_run(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    script = ROOT / "scripts" / "benchmarks" / "completion.py"
    options = ["--json", str(out), "--requests", "200", "--repeats", "1", "--kills", "2"]
    subprocess.run([sys.executable, str(script), *options], check=True)
    report = json.loads(out.read_text())
    assert {"machine", "versions", "settings", "rows", "ratios", "kills"} <= set(report)
    assert report["kills"]["differing"] == report["kills"]["asked_after_saved"] == 0
    assert report["kills"]["lines"] == report["kills"]["ids"] == 200
    assert 0 < report["ratios"]["no_faults/ideal"] <= 1.05

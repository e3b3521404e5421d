import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmarks.measure import paired_ratio, row, run_command, run_in_turn, versions, write_report

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "tokenize.py"


@pytest.mark.slow
def test_the_report_holds_both_commands_and_their_ratios(tmp_path):
    text = [f"line {k} of a text that names {k * k} and {k % 7} words" for k in range(400)]
    (tmp_path / "text").write_text("\n".join(text) + "\n")
    options = ["--text", f"{tmp_path}/text", "--lines", "1000", "--repeats", "2", "--workers", "2"]
    subprocess.run([sys.executable, SCRIPT, "--json", f"{tmp_path}/out.json", *options], check=True, cwd=tmp_path)
    report = json.loads((tmp_path / "out.json").read_text())
    assert {"machine", "versions", "rows", "ratios"} <= set(report)
    assert report["settings"]["lines"] == 1000
    assert report["machine"]["cores"] >= 1
    assert report["versions"]["ve-fairseq"][0].isdigit()
    for name in ("tokenize", "fairseq_preprocess"):
        for figure in ("seconds", "startup_seconds", "peak_mib"):
            figures = report["rows"][f"{name}/{figure}"]
            assert 0 < figures["min"] <= figures["median"] <= figures["max"]
    assert 0 < report["ratios"]["tokenize/fairseq_preprocess"] < 1
    assert "tokenize/fairseq_preprocess/without_startup" in report["ratios"]


def test_running_a_benchmark_by_its_path_does_not_hide_pythons_tokenize(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout


def test_variants_run_in_turn_and_pairs_belong_together():
    calls = []
    variants = {name: lambda name=name: calls.append(name) or len(calls) for name in ("ours", "theirs")}
    results = run_in_turn(variants, 3)
    assert calls == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert results == {"ours": [1, 4, 5], "theirs": [2, 3, 6]}
    assert paired_ratio(results["ours"], results["theirs"]) == statistics.median([1 / 2, 4 / 3, 5 / 6])
    assert row([3.0, 1.0, 2.0, 4.0]) == {"min": 1.0, "median": 2.5, "max": 4.0}


def test_a_command_is_timed_with_its_memory_and_must_succeed():
    run = run_command([sys.executable, "-c", "import time; x = bytearray(200 * 2**20); time.sleep(0.3)"])
    assert run.seconds > 0.3
    assert 200 < run.peak_mib < 250
    child = 'import time; x = b"1" * 10**8; time.sleep(0.3)'
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert 95 < run_command([sys.executable, "-c", nested]).peak_mib < 150
    with pytest.raises(RuntimeError, match=r"ended with status 3:\nbad end"):
        run_command([sys.executable, "-c", "import sys; print('bad end'); sys.exit(3)"])
    assert run_command([sys.executable, "-c", "import os; assert os.environ['X'] == '1'"], {"X": "1"}).seconds > 0


def test_reports_are_complete(tmp_path):
    with pytest.raises(AssertionError):
        write_report(tmp_path / "x", {"rows": {}})
    write_report(tmp_path / "x", {"machine": {}, "versions": versions("torch", "none-such"), "rows": {}, "ratios": {}})
    assert json.loads((tmp_path / "x").read_text())["versions"]["none-such"] == "not installed"

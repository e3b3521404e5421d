import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.benchmarks.generate_overhead import PARTS, Stopwatches, summary
from tests.toy import Pieces

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "generate_overhead.py"


def test_a_part_does_not_count_what_it_calls() -> None:
    watches = Stopwatches()
    inner = watches.around("labels", lambda: time.sleep(0.02))
    outer = watches.around("generator", lambda: (time.sleep(0.01), inner(), inner()))
    outer()
    assert watches.seconds["labels"] >= 0.04
    assert 0.01 <= watches.seconds["generator"] < 0.03
    assert watches.seconds["model"] == 0


def test_shares_are_of_the_whole_of_each_run() -> None:
    run = {**dict.fromkeys(PARTS, 1.0), "rest": 3.0, "all": 10.0}
    report = summary({"greedy": [run, run]})
    assert report["ratios"] == {"greedy/outside": pytest.approx(0.8), "greedy/ours": pytest.approx(0.2)}
    assert report["rows"]["greedy/rest"] == {"min": 3.0, "median": 3.0, "max": 3.0}


@pytest.mark.slow
def test_the_report_of_a_real_run(pieces: Pieces, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, SCRIPT, pieces.bin, "--path", pieces.checkpoint, "--pmlm", pieces.pmlm, "--json", "out.json",
         "--quick"], check=True, cwd=tmp_path,
    )  # fmt: skip
    report = json.loads((tmp_path / "out.json").read_text())
    assert {"machine", "versions", "settings", "rows", "ratios"} == set(report)
    for part in (*PARTS, "all"):
        assert report["rows"][f"no_scores/{part}"]["median"] > 0
    for name in ("greedy", "no_scores"):
        assert 0 < report["ratios"][f"{name}/ours"] < report["ratios"][f"{name}/outside"] < 1

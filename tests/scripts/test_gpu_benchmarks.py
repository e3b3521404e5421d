import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "gpu" / "benchmarks.sh"


def run(out, **settings):
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(out), **settings}
    return subprocess.run(["bash", SCRIPT], capture_output=True, text=True, env=environment, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_before_measuring(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 1
    assert "error: torch finds no CUDA device" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_it_writes_a_report_and_a_log_for_each_benchmark(tmp_path):
    done = run(tmp_path, DEVICE="cpu", QUICK="1", SIZE="try", ONLY="training_step", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    for dtype in ("fp32", "bf16"):
        report = json.loads((tmp_path / f"training_step_{dtype}.json").read_text())
        assert f"{dtype}/tokens_per_s/dense" in report["ratios"]
        assert "round 1 of 1" in (tmp_path / f"training_step_{dtype}.log").read_text()

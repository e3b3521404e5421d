"""The script for a GPU, tried out on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.commands import ROOT
from tests.toy_causal_lm import make_causal_lm, write_toy_pairs

SCRIPT = ROOT / "scripts" / "gpu" / "fine_tuning.sh"


def run(out: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(out), "OMP_NUM_THREADS": "1", **settings}
    return subprocess.run(["bash", SCRIPT], capture_output=True, text=True, env=environment, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1
    assert "error: torch finds no CUDA device" in done.stderr


@pytest.mark.slow
def test_every_part_runs(tmp_path: Path) -> None:
    model = make_causal_lm(tmp_path / "model")
    pairs = write_toy_pairs(tmp_path / "pairs.jsonl", 30)
    done = run(tmp_path / "out", DEVICE="cpu", QUICK="1", MODEL=str(model), PAIRS=str(pairs), TOKENS_PER_PAIR="128")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("lora_bf16", "lora_fp32", "full_bf16", "full_fp32", "lora_bf16_gradient_checkpointing"):
        log = (tmp_path / "out" / f"{name}.log").read_text()
        assert "train_wps" in log
        assert "peak memory of the process" in log
    assert "packed torch.float32: largest difference" in (tmp_path / "out" / "packed_attention.log").read_text()

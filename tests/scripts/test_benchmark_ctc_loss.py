import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from scripts.benchmarks.ctc_loss import DENSE, OURS, LossSteps, Shape, chunk_rows, measure, variants

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "ctc_loss.py"
TINY = Shape(labels=60, sentences=3, positions=12, width=8, target=4)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_row_is_a_whole_step_with_the_same_loss_and_gradients(dtype):
    expected = LossSteps(TINY, DENSE, dtype, "cpu")
    loss = expected.step()
    names = [name for name in variants(False, dtype, "cpu") if not name.endswith("_compiled")]
    assert {OURS, f"{OURS}_keep_logits", f"{OURS}_rows_64"} <= set(names)
    for name in names:
        steps = LossSteps(TINY, name, dtype, "cpu")
        tolerance = {"fp32": 1e-4, "bf16": 0.03}[dtype]
        torch.testing.assert_close(steps.step().float(), loss.float(), rtol=tolerance, atol=0)
        for ours, theirs in (
            (steps.hidden, expected.hidden),
            (steps.weight, expected.weight),
            (steps.bias, expected.bias),
        ):
            scale = theirs.grad.abs().max().item()
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=tolerance * scale)
        steps.reset()
        assert steps.hidden.grad is steps.weight.grad is steps.bias.grad is None


def test_names_tell_the_rows_of_a_block():
    assert chunk_rows("ours_keep_logits", 1000, "cpu") is None
    assert chunk_rows("ours_rows_64", 1000, "cpu") == 64
    assert chunk_rows("ours", 250_000, "cpu") < chunk_rows("ours", 32_000, "cpu")


@pytest.mark.slow
def test_the_report_holds_both_shapes_rows_and_ratios(tmp_path):
    options = ["--quick", "--scale", "0.002", "--threads", "1"]
    subprocess.run([sys.executable, SCRIPT, "--json", f"{tmp_path}/out.json", *options], check=True, cwd=tmp_path)
    report = json.loads((tmp_path / "out.json").read_text())
    assert set(report["ratios"]) == {"v32k/time", "v32k/memory", "v250k/time", "v250k/memory"}
    assert report["settings"]["shapes"]["v250k"]["labels"] == 500
    for variant in (OURS, DENSE):
        for field in ("seconds", "peak_mib"):
            figures = report["rows"][f"v32k/{variant}/{field}"]
            assert 0 < figures["min"] <= figures["median"] <= figures["max"]


@pytest.mark.slow
def test_at_a_large_vocabulary_ours_takes_a_fraction_of_the_memory(tmp_path):
    options = ["--quick", "--scale", "0.25", "--shapes", "v32k", "--threads", "1", "--repeats", "1"]
    subprocess.run([sys.executable, SCRIPT, "--json", f"{tmp_path}/out.json", *options], check=True, cwd=tmp_path)
    assert json.loads((tmp_path / "out.json").read_text())["ratios"]["v32k/memory"] < 0.45


def test_a_further_row_that_fails_is_left_out_with_its_reason():
    options = Namespace(device="cpu", threads=1, tf32=False, dtype="fp32", quick=True)
    left_out = {}
    results = measure(options, TINY, [DENSE, OURS, f"{OURS}_rows_0"], 1, left_out)
    assert set(results) == {DENSE, OURS}
    assert "chunk_rows must be at least 1" in left_out[f"{OURS}_rows_0"]

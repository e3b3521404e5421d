"""The benchmark of quantised models on a model that takes seconds."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from tests.commands import ROOT, Runner


@pytest.mark.slow
def test_report(tmp_path: Path, run: Runner) -> None:
    from nat_plugin.export.onnx_graph import write_onnx
    from nat_plugin.models.masked_lm import random_masked_lm, shape_config

    class Model:
        blank = 0

    torch.manual_seed(1)
    model = Model()
    shape = shape_config("xlm-roberta", vocab_size=1500, layers=1, dim=64, ffn_dim=128, heads=2, positions=60)
    model.masked_lm = random_masked_lm(shape)  # type: ignore[attr-defined]
    write_onnx(model, tmp_path / "model.onnx")
    script = ROOT / "scripts" / "benchmarks" / "quantisation.py"
    run(sys.executable, script, "--json", tmp_path / "out.json", "--quick", "--model", tmp_path / "model.onnx")
    report = json.loads((tmp_path / "out.json").read_text())
    assert {"machine", "versions", "rows", "ratios"} <= set(report)
    for name in ("int8", "static", "weights8", "weights4", "int8_fused_norm"):
        assert 0 < report["rows"][f"batch1/{name}/error"]["median"] < 2
        assert math.isfinite(report["ratios"][f"batch32/{name}"])
    assert report["rows"]["int8/mb"]["median"] < 0.5 * report["rows"]["fp32/mb"]["median"]

"""The benchmark of memory per process."""

import json
import os
import sys
from pathlib import Path

import pytest

from scripts.benchmarks.sharded_memory import Variant, command, main, ratios, variants
from tests.toy_causal_lm import make_causal_lm


def test_one_process_splits_nothing() -> None:
    assert [variant.name for variant in variants(["lora"], [1, 2])] == ["lora_ddp_1", "lora_ddp_2", "lora_split_2"]


def test_both_sides_differ_in_the_option_alone() -> None:
    ddp, split = (
        command(Variant("full", kind, 2), Path("m"), Path("d"), precision=["--bf16"], updates=1)
        for kind in ("ddp", "split")
    )
    assert [word for word in split if word not in ddp] == ["--shard-model"]
    assert len(split) == len(ddp) + 1
    assert ddp[0] == "torchrun"
    assert command(Variant("full", "ddp", 1), Path("m"), Path("d"), precision=[], updates=1)[0] == "fairseq-train"


def test_ratios_are_paired_and_leave_the_program_out() -> None:
    peaks = {"program": [100.0, 200.0], "lora_ddp_2": [500.0, 600.0], "lora_split_2": [300.0, 400.0]}
    found = ratios({**peaks, "lora_ddp_1": [500.0, 600.0]}, ["lora"], [1, 2])
    assert found == pytest.approx({"lora_2/peak": (0.6 + 2 / 3) / 2, "lora_2/model": 0.5})


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    main(["--model", str(make_causal_lm(tmp_path / "base")), "--json", str(tmp_path / "out.json"), "--quick"])
    report = json.loads((tmp_path / "out.json").read_text())
    assert set(report["rows"]) == {"program", "lora_ddp_2", "lora_split_2"}
    assert all(figures["min"] > 100 for figures in report["rows"].values()), "MiB"
    assert set(report["ratios"]) == {"lora_2/peak", "lora_2/model"}

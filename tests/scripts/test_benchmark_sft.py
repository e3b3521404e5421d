import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from nid_plugin.causal_lm.source import load_tokenizer, read_config
from nid_plugin.pairs import read_pairs
from scripts.benchmarks.sft_inputs import make_model, make_pairs
from scripts.benchmarks.sft_loss import DENSE, OURS, LossShape, LossSteps
from scripts.benchmarks.sft_options import Options
from scripts.benchmarks.sft_ours import OurSetting, command
from scripts.benchmarks.sft_turns import Side, Turns

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "sft.py"


def count(turns: Turns, seconds: float, last: int | None = None) -> None:
    """A training loop that only waits; its update n reads n tokens in 10 places."""
    number = 0
    while last is None or number < last:
        number += 1
        time.sleep(seconds)
        turns.update(number, 10, float(number))


def fail(turns: Turns) -> None:
    turns.update(1, 1)
    raise ValueError("the model is gone")


def side(train: Any, *arguments: Any, **options: Any) -> Side:
    return Side(train, *arguments, **({"warm_up": 2, "updates": 3, "threads": 1} | options))


def test_a_turn_holds_its_own_updates() -> None:
    with side(count, 0.01) as turn:
        time.sleep(0.2)  # a side that waits makes no update, and its clock stands still
        first, second = turn(), turn()
    assert (first.tokens, second.tokens) == (3 + 4 + 5, 6 + 7 + 8)
    assert first.places == 30
    assert (first.loss, second.loss) == (4.0, 7.0)
    assert 0.03 <= first.seconds < 0.2
    assert first.cpu_seconds < first.seconds
    assert first.peak_mib > 1 or math.isnan(first.peak_mib)
    assert first.tokens_per_s == first.tokens / first.seconds


def test_sides_that_end_or_fail_say_so() -> None:
    with pytest.raises(RuntimeError, match="the model is gone"), side(fail, warm_up=2):
        pass
    with pytest.raises(RuntimeError, match="ended before its turns"), side(count, 0.0, 4) as turn:
        turn()


def test_pairs_are_made_of_this_repository(tmp_path: Path) -> None:
    make_pairs(tmp_path / "pairs.jsonl", 50)
    pairs = list(read_pairs(str(tmp_path / "pairs.jsonl")))
    lengths = [len(pair.prompt) + len(pair.completion) for pair in pairs]
    assert len(pairs) == 50
    assert len(set(lengths)) > 40
    assert max(lengths) < 5000
    make_pairs(tmp_path / "again.jsonl", 50)
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "pairs.jsonl").read_bytes()


@pytest.mark.parametrize("trains_weight", [True, False])
def test_both_losses_are_one(trains_weight: bool) -> None:
    shape = LossShape(labels=301, positions=17, width=8)
    steps = {name: LossSteps(shape, name, "float32", trains_weight) for name in (OURS, DENSE)}
    values = {name: float(step.step()) for name, step in steps.items()}
    assert values[OURS] == pytest.approx(values[DENSE], rel=1e-5)
    torch.testing.assert_close(steps[OURS].hidden.grad, steps[DENSE].hidden.grad, rtol=1e-4, atol=1e-5)
    assert (steps[OURS].weight.grad is not None) == trains_weight
    steps[OURS].reset()
    assert steps[OURS].hidden.grad is None


def test_an_update_reads_as_many_tokens_whatever_the_batch() -> None:
    for size, batches in ((512, 4), (1024, 2), (2048, 1), (4096, 1)):
        words = command("model", "pairs", Options("full", "float32"), OurSetting(size), "data")
        assert words[words.index("--update-freq") + 1] == str(batches)
        assert "--memory-efficient-bf16" not in words
        assert "--lora-rank" not in words
    assert "--memory-efficient-bf16" in command("m", "p", Options("lora", "bfloat16"), OurSetting(512), "d")
    assert Options("lora", "bfloat16").name == "lora_bf16"


@pytest.mark.slow
def test_the_report(tmp_path: Path) -> None:
    """The quick run with two layers of our own, offline: both sides train, and learn about the same."""
    make_model(tmp_path / "model", layers=2)
    assert read_config(tmp_path / "model").num_hidden_layers == 2
    assert load_tokenizer(tmp_path / "model").eos_token_id == 0
    options = ["--quick", "--model", tmp_path / "model", "--threads", "1"]
    subprocess.run([sys.executable, SCRIPT, "--json", tmp_path / "out.json", *options], check=True, cwd=tmp_path)
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["left_out"] == {}
    for name in ("lora_bf16", "full_fp32"):
        assert report["ratios"][f"{name}/tokens_per_s"] > 0
        assert report["ratios"][f"{name}/memory"] > 0
        ours, theirs = (report["rows"][f"{name}/{who}/loss"]["median"] for who in ("ours", "trl"))
        assert ours == pytest.approx(theirs, rel=0.05)
        assert 700 < report["rows"][f"{name}/trl/tokens_per_update"]["median"] <= 1024
    assert 0.0 < report["ratios"]["padding_share"] <= 0.03  # what a batch is rounded up by
    assert 0.8 < report["ratios"]["fill_of_max_tokens/512"] <= 1.0
    assert report["ratios"]["v128k/loss_memory"] < 1.0

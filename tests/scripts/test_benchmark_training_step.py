import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts.benchmarks.training_step import DENSE, KEEP, OURS, PEER, SIZES, TrainingSteps, count_tokens, make_batch

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "training_step.py"


@pytest.fixture(scope="module")
def steps():
    return {name: TrainingSteps(SIZES["try"], name, "fp32", "cpu") for name in (OURS, KEEP, DENSE, PEER)}


def test_our_ways_and_the_dense_one_take_the_same_steps(steps):
    losses = {name: [float(steps[name].step()) for _ in range(3)] for name in (OURS, KEEP, DENSE)}
    assert losses[OURS] == pytest.approx(losses[DENSE], rel=1e-4)
    assert losses[KEEP] == pytest.approx(losses[DENSE], rel=1e-4)
    assert losses[DENSE][0] > losses[DENSE][1] > losses[DENSE][2]


def test_the_peer_is_of_like_size_and_learns(steps):
    ours, peer = (sum(p.numel() for p in steps[name].model.parameters()) for name in (OURS, PEER))
    # Cross-attention and the table of lengths are the peer's, learned positions ours.
    assert 0.4 < peer / ours < 2.5
    first, second = float(steps[PEER].step()), float(steps[PEER].step())
    assert second < first


def test_both_models_read_the_same_words(steps):
    from scripts.benchmarks.training_step import dictionary

    words = dictionary(100)
    plain, with_bos = (make_batch(SIZES["try"], words, with_bos=flag) for flag in (False, True))
    assert torch.equal(with_bos["target"][:, 1:], plain["target"])
    assert torch.equal(with_bos["net_input"]["src_tokens"][:, 1:], plain["net_input"]["src_tokens"])
    assert set(plain["net_input"]["src_lengths"].tolist()) == {16, 21, 26, 32}
    real = [side.ne(words.pad()).sum() for side in (plain["net_input"]["src_tokens"], plain["target"])]
    assert count_tokens(SIZES["try"]) == int(sum(real))


@pytest.mark.slow
def test_the_report(tmp_path):
    options = ["--size", "try", "--dtypes", "bf16", "--repeats", "1", "--threads", "1"]
    subprocess.run([sys.executable, SCRIPT, "--json", f"{tmp_path}/out.json", *options], check=True, cwd=tmp_path)
    report = json.loads((tmp_path / "out.json").read_text())
    for other in (KEEP, DENSE, PEER):
        assert report["ratios"][f"bf16/tokens_per_s/{other}"] > 0
        assert report["rows"][f"bf16/{other}/peak_mib"]["median"] > 0
    assert report["settings"]["tokens"] == count_tokens(SIZES["try"])

"""Several processes are one big batch, and a resumed training is an uninterrupted one."""

import re
from pathlib import Path

import pytest
import torch

from plugin_common.checkpoint_files import check_and_load
from tests.conftest import OPTIMIZER, SHAPE, TASK, Runner, Toy

pytestmark = pytest.mark.slow

QUIET = ("--log-format", "simple", "--log-interval", "1", "--disable-validation", "--no-progress-bar")
TRAIN = ("fairseq-train", *TASK, *SHAPE, "--criterion", "ctc_nat_loss", *OPTIMIZER, *QUIET)
NO_DROPOUT = ("--dropout", "0", "--attention-dropout", "0")
TORCHRUN = ("torchrun", "--nproc-per-node", "2", "--standalone", "--no-python")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The parameters of the last checkpoint."""
    return check_and_load(folder / "checkpoint_last.pt")["model"]


def largest_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """Over all parameters, which must be the same ones."""
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left)


@pytest.mark.parametrize("backend", ["pytorch_ddp", "legacy_ddp"])
def test_two_processes_give_the_weights_of_one(run: Runner, toy: Toy, tmp_path: Path, backend: str) -> None:
    """Five updates of 2 processes x 16 sentences = five of 1 process x 16 sentences x --update-freq 2."""
    options = (str(toy.bin), *NO_DROPOUT, "--batch-size", "16", "--max-update", "5")
    run(*TRAIN, *options, "--update-freq", "2", "--save-dir", tmp_path / "one")
    done = run(*TORCHRUN, *TRAIN, *options, "--ddp-backend", backend, "--save-dir", tmp_path / "two")
    assert "process 1 of 2" in done.log
    assert len(re.findall(r"Saved checkpoint", done.log)) == 1  # one training, not two side by side
    assert largest_difference(weights(tmp_path / "one"), weights(tmp_path / "two")) < 1e-6


def test_two_processes_resume(run: Runner, toy: Toy, tmp_path: Path) -> None:
    options = (str(toy.bin), *NO_DROPOUT, "--batch-size", "16", "--save-dir")
    run(*TORCHRUN, *TRAIN, *options, tmp_path / "whole", "--max-update", "6")
    run(*TORCHRUN, *TRAIN, *options, tmp_path / "parts", "--max-update", "3")
    done = run(*TORCHRUN, *TRAIN, *options, tmp_path / "parts", "--max-update", "6")
    assert done.log.count("Loaded checkpoint") >= 1
    assert largest_difference(weights(tmp_path / "whole"), weights(tmp_path / "parts")) < 1e-6


@pytest.mark.parametrize("stops", [("--max-epoch", "2"), ("--max-update", "9")], ids=["at-an-epoch", "within-an-epoch"])
def test_resumed_is_uninterrupted_bit_for_bit(run: Runner, toy: Toy, tmp_path: Path, stops: tuple[str, str]) -> None:
    """With dropout, over epoch boundaries, and stopped in the middle of an epoch."""
    options = (str(toy.bin), "--max-tokens", "600", "--save-dir")
    run(*TRAIN, *options, tmp_path / "whole", "--max-epoch", "4")
    run(*TRAIN, *options, tmp_path / "parts", *stops)
    reached = check_and_load(tmp_path / "parts" / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"]
    done = run(*TRAIN, *options, tmp_path / "parts", "--max-epoch", "4")
    assert f"@ {reached} updates" in done.log
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)

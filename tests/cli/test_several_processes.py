"""Training by several processes on CPUs, started with torchrun."""

from pathlib import Path

import pytest
import torch

from plugin_common.checkpoint_files import check_and_load
from tests.commands import Runner
from tests.toy import SHAPE, TASK, TRAIN, Toy

pytestmark = pytest.mark.slow

TOLERANCE = 1e-6
"""Of weights; sums of gradients are taken in another order."""


def train(run: Runner, toy: Toy, folder: Path, *words: str, processes: int = 1) -> str:
    launcher = ("torchrun", "--standalone", "--nproc-per-node", str(processes), "--no-python") if processes > 1 else ()
    done = run(
        *launcher, "fairseq-train", toy.bin, *TASK, *SHAPE, *TRAIN, "--dropout", "0", "--attention-dropout", "0",
        "--save-dir", folder, "--no-epoch-checkpoints", *words,
    )  # fmt: skip
    return done.log


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return check_and_load(folder / "checkpoint_last.pt")["model"]


def difference(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_two_processes_are_one_with_twice_the_batches(run: Runner, toy: Toy, tmp_path: Path) -> None:
    batch = ("--batch-size", "16", "--max-update", "5")
    train(run, toy, tmp_path / "one", *batch, "--update-freq", "2")
    log = train(run, toy, tmp_path / "two", *batch, processes=2)
    assert "torchrun on CPUs: process 0 of 2, backend gloo" in log
    assert "training on 2 devices" in log
    assert log.count("begin training epoch 1") == 1, "one training, told by one process"
    found = difference(tmp_path / "one", tmp_path / "two")
    print(f"largest difference of a weight after 5 updates: {found:g}")
    assert found <= TOLERANCE


@pytest.mark.parametrize("backend", ["pytorch_ddp", "legacy_ddp"])
def test_an_epoch_that_does_not_come_out_even(run: Runner, toy: Toy, tmp_path: Path, backend: str) -> None:
    """15 batches for 2 processes that take 2 for each update: one process lacks the second of its last two.

    The training by two is also interrupted after update 2 and continued.
    """
    batch = ("--batch-size", "41", "--required-batch-size-multiple", "1")
    train(run, toy, tmp_path / "one", *batch, "--update-freq", "4", "--max-update", "5")
    options = (*batch, "--update-freq", "2", "--ddp-backend", backend)
    train(run, toy, tmp_path / "two", *options, "--max-update", "2", processes=2)
    log = train(run, toy, tmp_path / "two", *options, "--max-update", "5", processes=2)
    assert "Loaded checkpoint" in log
    found = difference(tmp_path / "one", tmp_path / "two")
    print(f"{backend}: largest difference of a weight after 5 updates: {found:g}")
    assert found <= TOLERANCE


def test_validation_by_two_processes_sees_every_sentence(run: Runner, toy: Toy, tmp_path: Path) -> None:
    words = [word for word in TRAIN if word != "--disable-validation"]
    done = run(
        "torchrun", "--standalone", "--nproc-per-node", "2", "--no-python", "fairseq-train", toy.bin, *TASK, *SHAPE,
        *words, "--save-dir", tmp_path, "--restore-file", toy.best, "--reset-optimizer", "--reset-dataloader",
        "--reset-meters", "--batch-size", "16", "--max-update", "1", "--lr", "1e-9", "--eval-bleu",
    )  # fmt: skip
    line = next(line for line in done.log.split("\n") if "| valid |" in line)
    figures = dict(part.strip().rsplit(" ", 1) for part in line.split(" | ")[3:] if "valid on" not in part)
    assert float(figures["bleu"]) > 99
    assert float(figures["bsz"]) * 2 == pytest.approx(53, abs=0.2), "4 batches, 2 at a time"

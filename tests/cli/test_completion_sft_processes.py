"""Fine-tuning on completions by several processes on CPUs, started with torchrun: DDP, and a model split by FSDP2."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nid_plugin.causal_lm import source
from plugin_common.checkpoint_files import check_and_load
from tests.commands import Finished, Runner
from tests.toy_sft import TASK, TRAIN, Sft, difference, figures, make_sft, weights

TOLERANCE = 1e-6
"""Of weights in float32; sums of gradients are taken in another order."""

RATE = 1e-3
MODEST = ("--lr", str(RATE), "--disable-validation")
"""Adam's first steps are as large as the rate, whatever the gradient: a large rate would magnify rounding."""

ALIKE = (*MODEST, "--attention", "sdpa")
"""On a CPU ``packed`` also computes other layers in its own way where they are whole, and so rounds otherwise."""

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def sft(run: Runner, once: Callable[[str, Callable[[Path], object]], Path]) -> Sft:
    return make_sft(run, once)


def train(run: Runner, sft: Sft, folder: Path, *words: str, processes: int = 1, expect: int | None = 0) -> Finished:
    """``fairseq-train`` by one process or, under torchrun, by several."""
    launcher = ("torchrun", "--standalone", "--nproc-per-node", str(processes), "--no-python") if processes > 1 else ()
    return run(
        *launcher, "fairseq-train", sft.data, *TASK, *TRAIN, "--model", sft.base, "--save-dir", folder,
        "--no-epoch-checkpoints", *words, expect=expect,
    )  # fmt: skip


def apart(one: Path, other: Path) -> float:
    found = difference(weights(one), weights(other))
    print(f"{one.name} and {other.name}: largest difference of a weight {found:g}")
    return found


# ---- DDP ------------------------------------------------------------------------------------------------------------


@slow
@pytest.mark.parametrize("backend, tuning", [("pytorch_ddp", "lora"), ("legacy_ddp", "full")])
def test_two_processes_are_one_with_twice_the_batches(
    sft: Sft, run: Runner, tmp_path: Path, backend: str, tuning: str
) -> None:
    """An epoch that does not come out even, interrupted and continued; the pairs are tokenized once."""
    options = ("--tuning", tuning, *MODEST, "--max-tokens", "150", "--pair-cache", str(tmp_path / "cache"))
    several = (*options, "--update-freq", "2", "--ddp-backend", backend)
    first = train(run, sft, tmp_path / "two", *several, "--max-update", "3", processes=2).log
    assert "torchrun on CPUs: process 0 of 2" in first
    assert len([entry for entry in (tmp_path / "cache").iterdir() if entry.is_dir()]) == 1
    second = train(run, sft, tmp_path / "two", *several, "--max-epoch", "1", processes=2).log
    assert "Loaded checkpoint" in second
    train(run, sft, tmp_path / "one", *options, "--update-freq", "4", "--max-epoch", "1")
    assert apart(tmp_path / "one", tmp_path / "two") <= TOLERANCE


# ---- a split model --------------------------------------------------------------------------------------------------

KINDS = {
    "lora": ("--update-freq", "2"),
    "full": ("--tuning", "full", "--clip-norm", "0.5", "--gradient-checkpointing", "--update-freq", "2"),
    "full-bf16": ("--tuning", "full", "--bf16", "--optimizer", "fused_adamw", "--clip-norm", "1"),
    "lora-pure-bf16": ("--memory-efficient-bf16",),
}


@slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_split_model_learns_as_a_whole_one(sft: Sft, run: Runner, tmp_path: Path, kind: str) -> None:
    options = (*ALIKE, "--max-tokens", "150", "--max-update", "5", *KINDS[kind])
    train(run, sft, tmp_path / "ddp", *options, processes=2)
    log = train(run, sft, tmp_path / "split", *options, "--shard-model", processes=2).log
    assert "FSDPHfCausalLm" in log
    found = apart(tmp_path / "ddp", tmp_path / "split")
    if "bf16" not in kind:
        assert found <= TOLERANCE
        return
    one, other = weights(tmp_path / "ddp"), weights(tmp_path / "split")
    for name, tensor in one.items():  # DDP averages gradients of 16 bits: now and then a weight is rounded otherwise
        assert ((tensor - other[name]).abs() <= tensor.abs() * 2**-7 + RATE / 10).all(), name


@slow
def test_rows_and_epochs_that_do_not_come_out_even(sft: Sft, run: Runner, tmp_path: Path) -> None:
    """318 rows of embeddings and 28 batches for 3 processes: one lacks rows, and two lack the last batch."""
    options = (*ALIKE, "--tuning", "full", "--max-tokens", "150", "--max-epoch", "1")
    train(run, sft, tmp_path / "one", *options, "--update-freq", "6")
    train(run, sft, tmp_path / "split", *options, "--update-freq", "2", "--shard-model", processes=3)
    assert apart(tmp_path / "one", tmp_path / "split") <= TOLERANCE


@slow
@pytest.mark.parametrize(
    "options", [("--lora-dropout", "0.1", "--bf16"), ("--tuning", "full", "--memory-efficient-bf16")], ids=" ".join
)
def test_a_split_training_goes_on_bit_for_bit(sft: Sft, run: Runner, tmp_path: Path, options: tuple[str, ...]) -> None:
    words = (*MODEST, *options, "--max-tokens", "150", "--shard-model")
    train(run, sft, tmp_path / "whole", *words, "--max-update", "6", processes=2)
    train(run, sft, tmp_path / "parts", *words, "--max-update", "3", processes=2)
    log = train(run, sft, tmp_path / "parts", *words, "--max-update", "6", processes=2).log
    assert "Loaded checkpoint" in log and "rounded" not in log
    assert apart(tmp_path / "whole", tmp_path / "parts") == 0.0


@slow
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_one_process_and_a_split_model_go_on_from_each_other(
    sft: Sft, run: Runner, tmp_path: Path, tuning: str
) -> None:
    """Between epochs: within one, fairseq counts batches of a process. The checkpoints are the ordinary ones."""
    words = (*ALIKE, "--tuning", tuning, "--max-tokens", "400")
    one, split = ("--update-freq", "2"), ("--shard-model",)
    train(run, sft, tmp_path / "one", *words, *one, "--max-epoch", "1")
    train(run, sft, tmp_path / "split", *words, *split, "--max-epoch", "1", processes=2)
    first, second = (check_and_load(tmp_path / name / "checkpoint_last.pt") for name in ("one", "split"))
    assert list(first["model"]) == list(second["model"])
    assert _shapes(first["last_optimizer_state"]) == _shapes(second["last_optimizer_state"])
    shutil.copytree(tmp_path / "split", tmp_path / "split, then one")
    shutil.copytree(tmp_path / "one", tmp_path / "one, then split")
    train(run, sft, tmp_path / "one", *words, *one, "--max-epoch", "2")
    train(run, sft, tmp_path / "split, then one", *words, *one, "--max-epoch", "2")
    train(run, sft, tmp_path / "one, then split", *words, *split, "--max-epoch", "2", processes=2)
    for name in ("split, then one", "one, then split"):
        assert apart(tmp_path / "one", tmp_path / name) <= TOLERANCE


def _shapes(value: object) -> object:
    if isinstance(value, dict):
        return {name: _shapes(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shapes(item) for item in value]
    return value.shape if isinstance(value, torch.Tensor) else value


@slow
def test_what_a_split_model_has_learnt_is_used_by_one_process(sft: Sft, run: Runner, tmp_path: Path) -> None:
    """Validated by several and by one, and exported."""
    log = train(run, sft, tmp_path, "--tuning", "full", "--max-epoch", "1", "--shard-model", processes=2).log
    (during,) = figures(log, "valid")
    path = tmp_path / "checkpoint_best.pt"
    done = run(
        "fairseq-validate", sft.data, *TASK, "--path", path, "--valid-subset", "valid", "--max-tokens", "256",
        "--log-format", "json",
    )  # fmt: skip
    (after,) = figures(done.log, "valid")
    assert after["valid_loss"] == pytest.approx(during["valid_loss"], abs=2e-3)
    exported = tmp_path / "exported"
    run(sys.executable, "-m", "nid_plugin.cli", "export", "--checkpoint", path, "--output", exported)
    lm = source.load_weights(exported, source.read_config(exported), dtype=torch.float32, attention="sdpa")
    trained = weights(tmp_path, "checkpoint_best.pt")
    for name, tensor in lm.state_dict().items():
        assert torch.equal(tensor, trained[f"causal_lm.lm.{name}"])


@slow
def test_numbers_out_of_range_end_a_split_training_at_once(sft: Sft, run: Runner, tmp_path: Path) -> None:
    """All processes notice; none waits for the parts of another that has failed."""
    done = train(
        run, sft, tmp_path, "--tuning", "full", "--lr", "1e38", "--max-epoch", "2", "--disable-validation",
        "--shard-model", processes=2, expect=None,
    )  # fmt: skip
    assert done.status not in (0, None)
    assert "gradients are Nan/Inf" in done.log
    assert "is not written" in done.log
    assert not (tmp_path / "crash.pt").exists()


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_split_is_refused_at_once(sft: Sft, run: Runner, tmp_path: Path) -> None:
    error = train(
        run, sft, tmp_path, "--shard-model", "--quantize", "4bit", "--fp16", expect=1
    ).error()  # fmt: skip
    assert "3 problems" in error
    for part in ("torchrun --nproc-per-node", "weights of 4 bits", "--bf16"):
        assert part in error


@slow
def test_options_that_need_whole_parameters(sft: Sft, run: Runner, tmp_path: Path) -> None:
    error = train(run, sft, tmp_path, "--shard-model", "--store-ema", "--amp", processes=2, expect=1).log
    assert "--store-ema does not go with" in error and "--amp does not go with" in error
    assert "Traceback (most recent call last)" not in error.split("error: ")[0]

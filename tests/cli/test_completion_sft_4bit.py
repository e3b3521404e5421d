"""LoRA on a base of 4-bit weights, for real: on a CPU, where bitsandbytes is installed."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.commands import Runner
from tests.toy_sft import PAIRS, TASK, TRAIN, Sft, difference, figures, make_sft, weights

pytestmark = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")

WORDS = ("--quantize", "4bit", "--lr", "1e-3")


@pytest.fixture(scope="module")
def sft(run: Runner, once: Callable[[str, Callable[[Path], object]], Path]) -> Sft:
    return make_sft(run, once)


@pytest.mark.parametrize("precision", [(), ("--bf16",), ("--memory-efficient-bf16",)], ids=" ".join)
def test_adapters_learn_on_four_bits(sft: Sft, run: Runner, tmp_path: Path, precision: tuple[str, ...]) -> None:
    log = sft.train(run, tmp_path, *WORDS, *precision, "--max-epoch", "3", "--lr", "1e-2").log
    lines = figures(log, "valid")
    assert "Linear4bit" in log
    assert lines[-1]["valid_loss"] < lines[0]["valid_loss"]
    assert weights(tmp_path).keys() == weights(sft.lora).keys(), "the adapters alone"


def test_validating_changes_nothing_in_training(sft: Sft, run: Runner, tmp_path: Path) -> None:
    """In evaluation bitsandbytes may arrange its weights for a function without gradient."""
    words = (*WORDS, "--max-update", "6")
    sft.train(run, tmp_path / "without", *words, "--disable-validation")
    sft.train(run, tmp_path / "with", *words, "--validate-interval-updates", "2")
    assert difference(weights(tmp_path / "without"), weights(tmp_path / "with")) == 0.0


def test_resumed_is_uninterrupted(sft: Sft, run: Runner, tmp_path: Path) -> None:
    words = (*WORDS, "--bf16", "--disable-validation")
    sft.train(run, tmp_path / "whole", *words, "--max-update", "6")
    sft.train(run, tmp_path / "parts", *words, "--max-update", "3")
    assert "Loaded checkpoint" in sft.train(run, tmp_path / "parts", *words, "--max-update", "6").log
    assert difference(weights(tmp_path / "whole"), weights(tmp_path / "parts")) == 0.0


def test_a_checkpoint_validates_and_generates(sft: Sft, run: Runner, tmp_path: Path) -> None:
    log = sft.train(run, tmp_path, *WORDS, "--max-epoch", "1").log
    path = ("--path", tmp_path / "checkpoint_best.pt")
    done = run("fairseq-validate", sft.data, *TASK, *path, "--valid-subset", "valid", "--max-tokens", "256",
               "--log-format", "json")  # fmt: skip
    during, after = (figures(text, "valid")[0]["valid_loss"] for text in (log, done.log))
    assert after == pytest.approx(during, abs=2e-3)
    done = run("fairseq-generate", sft.data, *TASK, *path, "--gen-subset", "test", "--batch-size", "4",
               "--max-len-b", "6", "--beam", "1")  # fmt: skip
    assert sorted(done.lines("H")) == list(range(PAIRS["test"]))


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batches(sft: Sft, run: Runner, tmp_path: Path) -> None:
    words = (*WORDS, "--max-tokens", "150", "--max-update", "5", "--disable-validation")
    sft.train(run, tmp_path / "one", *words, "--update-freq", "2")
    run(
        "torchrun", "--standalone", "--nproc-per-node", "2", "--no-python", "fairseq-train", sft.data, *TASK, *TRAIN,
        "--model", sft.base, "--save-dir", tmp_path / "two", "--no-epoch-checkpoints", *words,
    )  # fmt: skip
    assert difference(weights(tmp_path / "one"), weights(tmp_path / "two")) <= 1e-6

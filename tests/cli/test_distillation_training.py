"""``fairseq-train --criterion embedding_distillation`` by real command lines."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from plugin_common.checkpoint_files import check_and_load
from tests.commands import Finished, Runner
from tests.toy import LOGS, SHAPE, TASK, Pieces, Toy

OPTIMIZER = ("--optimizer", "adam", "--lr", "1e-3", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "4")


def pretrained(pieces: Pieces, folder: Path, seed: int = 0) -> Path:
    """A PMLM folder whose weights are not those it was born with."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(pieces.pmlm, folder)
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    moved = {name: t + 0.1 * torch.randn(t.shape, generator=generator) for name, t in tensors.items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def pmlm(pieces: Pieces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained(pieces, tmp_path_factory.mktemp("distillation") / "pmlm")


def train(
    run: Runner,
    pieces: Pieces,
    pmlm: Path,
    folder: Path,
    *words: str | Path,
    launcher: tuple[str, ...] = (),
    **options: Any,
) -> Finished:
    size = () if {"--max-tokens", "--batch-size"} & set(words) else ("--max-tokens", "400")
    return run(
        *launcher, "fairseq-train", pieces.bin, *TASK, "--arch", "ctc_pmlm", "--pmlm", pmlm, "--criterion",
        "embedding_distillation", *OPTIMIZER, "--log-format", "simple", "--log-interval", "1", "--disable-validation",
        "--no-epoch-checkpoints", "--save-dir", folder, *size, *words, **options,
    )  # fmt: skip


def updates(log: str) -> dict[int, dict[str, float]]:
    """The figures of each update in the log (the interval is 1)."""
    found: dict[int, dict[str, float]] = {}
    for line in log.split("\n"):
        if "| train_inner |" in line:
            pairs = re.findall(r"([a-z_]+)=([\d.e+-]+)", line.split("| train_inner |")[1])
            figures = {name: float(value) for name, value in pairs}
            found[int(figures["num_updates"])] = figures
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return check_and_load(folder / "checkpoint_last.pt")["model"]


def difference(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


@pytest.mark.parametrize(
    "words",
    [
        ("--distill-alignment", "argmax", "--distill-layer", "0"),
        ("--distill-alignment", "viterbi", "--distill-distance", "mse"),
        ("--distill-alignment", "assignment", "--distill-distance", "kl"),
        ("--bf16",),
        ("--memory-efficient-bf16", "--distill-alignment", "viterbi", "--distill-distance", "kl"),
        ("--fp16", "--fp16-init-scale", "1"),
        ("--ctc-chunk-rows", "7", "--freeze-embeddings", "--freeze-lm-head", "--random-positions"),
        ("--blank-symbol", "<mask>", "--upsample-ratio", "2.5", "--mask-placement", "right"),
    ],
    ids=" ".join,
)
def test_ctc_and_distance_are_logged_apart_and_fall(
    run: Runner, pieces: Pieces, pmlm: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    log = train(
        run, pieces, pmlm, tmp_path, *words, "--distill-weight", "3", "--max-update", "24", "--max-tokens", "400"
    ).log
    figures = updates(log)
    assert list(figures) == list(range(1, 25))
    first, last = figures[1], figures[24]
    assert last["ctc"] < first["ctc"]
    assert last["distill"] < first["distill"]
    assert all(0 < line["aligned_pct"] <= 100 for line in figures.values())
    feasible_share = 100 - max(line["infeasible_pct"] for line in figures.values())
    assert min(line["aligned_pct"] for line in figures.values()) >= feasible_share * 0.5
    # The loss is ctc + 3 · mean distance per target token of feasible sentences, here in bits.
    assert first["loss"] == pytest.approx(first["ctc"] + 3 * first["distill"] / 0.693147, rel=0.01)


def test_the_teacher_sleeps_until_the_start_update(run: Runner, pieces: Pieces, pmlm: Path, tmp_path: Path) -> None:
    short = ("--max-update", "6", "--max-tokens", "400")
    log = train(run, pieces, pmlm, tmp_path / "late", *short, "--distill-start-update", "4").log
    figures = updates(log)
    assert [number for number, line in figures.items() if "distill" in line] == [5, 6], "after 4 updates without"
    assert all(figures[number]["loss"] == figures[number]["ctc"] for number in range(1, 5))
    plain = run(
        "fairseq-train", pieces.bin, *TASK, "--arch", "ctc_pmlm", "--pmlm", pmlm, "--criterion", "ctc_nat_loss",
        *OPTIMIZER, *LOGS, "--disable-validation", "--no-epoch-checkpoints", "--save-dir", tmp_path / "plain",
        "--max-update", "4", "--max-tokens", "400",
    )  # fmt: skip
    assert plain.status == 0
    train(run, pieces, pmlm, tmp_path / "four", *short[2:], "--max-update", "4", "--distill-start-update", "4")
    assert difference(tmp_path / "plain", tmp_path / "four") == 0, "until then it is the training without distillation"
    assert difference(tmp_path / "late", tmp_path / "four") > 0


@pytest.mark.parametrize(
    ("stop", "precision"),
    [
        (3, ()),
        (4, ("--bf16",)),
        (4, ("--memory-efficient-bf16",)),
        (5, ("--fp16", "--fp16-init-scale", "1", "--fp16-no-flatten-grads")),
    ],
)
def test_stopping_around_the_start_changes_no_bit(
    run: Runner, pieces: Pieces, pmlm: Path, tmp_path: Path, stop: int, precision: tuple[str, ...]
) -> None:
    words = ("--distill-start-update", "4", "--max-tokens", "300", "--random-positions", *precision)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(run, pieces, pmlm, whole, *words, "--max-update", "8")
    train(run, pieces, pmlm, halves, *words, "--max-update", str(stop))
    assert "Loaded checkpoint" in train(run, pieces, pmlm, halves, *words, "--max-update", "8").log
    assert difference(whole, halves) == 0


def test_the_teacher_is_in_no_checkpoint_and_evaluation_needs_none(
    run: Runner, pieces: Pieces, pmlm: Path, tmp_path: Path
) -> None:
    gone = Path(shutil.copytree(pmlm, tmp_path / "pmlm"))
    common = ("--max-update", "3", "--max-tokens", "400")
    train(run, pieces, gone, tmp_path / "run", *common)
    run(
        "fairseq-train", pieces.bin, *TASK, "--arch", "ctc_pmlm", "--pmlm", gone, "--criterion", "ctc_nat_loss",
        *OPTIMIZER, *LOGS, "--disable-validation", "--no-epoch-checkpoints", "--save-dir", tmp_path / "plain", *common,
    )  # fmt: skip
    shutil.rmtree(gone)
    with_teacher, without = (check_and_load(tmp_path / name / "checkpoint_last.pt") for name in ("run", "plain"))
    assert with_teacher["model"].keys() == without["model"].keys()
    assert not [name for name in with_teacher.get("criterion") or {} if "weight" in name]
    size = {name: (tmp_path / name / "checkpoint_last.pt").stat().st_size for name in ("run", "plain")}
    assert size["run"] == pytest.approx(size["plain"], rel=0.05)
    path = str(tmp_path / "run" / "checkpoint_last.pt")
    log = run("fairseq-validate", pieces.bin, *TASK, "--path", path, "--max-tokens", "400").log
    assert " ctc " in log
    assert "distill " not in log
    done = run("fairseq-generate", pieces.bin, *TASK, "--path", path, "--max-tokens", "400")
    assert len(done.translations()) == 20


def test_update_freq_is_one_big_batch(run: Runner, pieces: Pieces, pmlm: Path, tmp_path: Path) -> None:
    """Denominators count over all accumulated batches, whatever their sizes."""
    words = ("--dropout", "0", "--attention-dropout", "0", "--max-update", "3", "--required-batch-size-multiple", "1")
    train(run, pieces, pmlm, tmp_path / "one", *words, "--batch-size", "400", "--max-tokens", "100000")
    train(run, pieces, pmlm, tmp_path / "many", *words, "--batch-size", "100", "--update-freq", "4")
    assert difference(tmp_path / "one", tmp_path / "many") < 2e-6


@pytest.mark.slow
def test_two_processes_are_one(run: Runner, pieces: Pieces, pmlm: Path, tmp_path: Path) -> None:
    words = (
        "--dropout", "0", "--attention-dropout", "0", "--batch-size", "16", "--max-update", "6",
        "--distill-start-update", "3", "--distill-alignment", "viterbi",
    )  # fmt: skip
    train(run, pieces, pmlm, tmp_path / "one", *words, "--update-freq", "2")
    launcher = ("torchrun", "--standalone", "--nproc-per-node", "2", "--no-python")
    log = train(run, pieces, pmlm, tmp_path / "two", *words, launcher=launcher).log
    assert "training on 2 devices" in log
    assert [number for number, line in updates(log).items() if "distill" in line] == [4, 5, 6]
    found = difference(tmp_path / "one", tmp_path / "two")
    print(f"largest difference of a weight after 6 updates: {found:g}")
    assert found <= 2e-6


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_teacher_of_another_vocabulary(run: Runner, pieces: Pieces, pmlm: Path, tmp_path: Path) -> None:
    from nat_plugin.cli import main

    other = str(tmp_path / "other")
    corpus = str(pieces.folder / "raw" / "train.de")
    shape = ["--layers", "1", "--width", "64", "--heads", "2", "--ffn", "128"]
    words = ["prepare-pmlm", "--from-scratch", "--vocab-size", "70", "--corpus", corpus, *shape, "--output", other]
    assert main(words) == 0
    error = train(run, pieces, pmlm, tmp_path / "run", "--teacher", other, expect=None).error()
    assert f"--teacher {other}: its dict.txt (56 symbols) is not the dictionary of data-bin" in error
    assert "give a folder of the same vocabulary, usually the one that --pmlm names" in error
    assert "Traceback" not in error


def test_a_teacher_of_another_width(run: Runner, pieces: Pieces, pmlm: Path, tmp_path: Path) -> None:
    """Only its output distributions can be compared with."""
    shape = (
        "--random-init", "--encoder-layers", "1", "--encoder-embed-dim", "32", "--encoder-ffn-embed-dim", "48",
        "--encoder-attention-heads", "2", "--max-update", "2", "--max-tokens", "400",
    )  # fmt: skip
    words = (
        "fairseq-train", pieces.bin, *TASK, "--arch", "ctc_pmlm", *shape, "--criterion", "embedding_distillation",
        *OPTIMIZER, *LOGS, "--disable-validation", "--no-epoch-checkpoints", "--teacher", pmlm,
    )  # fmt: skip
    error = run(*words, "--save-dir", tmp_path / "cosine", expect=None).error()
    assert "--teacher: its states are 64 wide, the model's 32; --distill-distance cosine needs equal widths" in error
    run(*words, "--save-dir", tmp_path / "kl", "--distill-distance", "kl")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--distill-layer", "2"), "--distill-layer 2: the teacher has 1 layers; give 0 (embeddings) … 1, or -1"),
        (("--distill-layer", "-3"), "--distill-layer -3"),
        (("--distill-layer", "0", "--distill-distance", "kl"), "kl compares output distributions"),
        (("--distill-weight", "-1"), "--distill-weight -1.0: expected a finite number of at least 0"),
        (("--distill-weight", "nan"), "--distill-weight nan"),
        (("--distill-start-update", "-5"), "--distill-start-update -5"),
        (("--teacher", "/no/such/folder"), "--teacher /no/such/folder: no such folder"),
        (("--distill-alignment", "best"), "argmax"),
    ],
)
def test_options_that_make_no_sense(
    run: Runner, pieces: Pieces, pmlm: Path, tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    error = train(run, pieces, pmlm, tmp_path, *words, "--max-update", "1", expect=None).error()
    assert expected in error
    assert "Traceback" not in error


def test_a_start_behind_the_end_and_a_teacher_that_knows_nothing_are_told(
    run: Runner, pieces: Pieces, pmlm: Path, toy: Toy, tmp_path: Path
) -> None:
    log = train(run, pieces, pmlm, tmp_path / "a", "--distill-start-update", "2", "--max-update", "2").log
    assert "WARNING" in log
    assert "--distill-start-update 2 is not before --max-update 2" in log
    assert "knows nothing" not in log
    log = train(run, pieces, pieces.pmlm, tmp_path / "b", "--max-update", "1").log
    assert "has random weights and knows nothing" in log
    assert "not before" not in log
    log = train(run, pieces, pmlm, tmp_path / "c", "--random-init", "--max-update", "1").log
    assert "the model starts from random weights (--random-init)" in log
    log = run(
        "fairseq-train", toy.bin, *TASK, *SHAPE, "--criterion", "embedding_distillation", *OPTIMIZER, *LOGS,
        "--disable-validation", "--save-dir", tmp_path / "d", "--max-update", "2", "--max-tokens", "300",
    ).log  # fmt: skip
    assert "the model's own random weights (no --pmlm, no --teacher)) has random weights and knows nothing" in log


def test_distilling_on_from_a_checkpoint_of_another_criterion(
    run: Runner, pieces: Pieces, pmlm: Path, tmp_path: Path
) -> None:
    plain = ("--criterion", "ctc_nat_loss", "--max-update", "2")
    train(run, pieces, pmlm, tmp_path, *plain)
    error = train(run, pieces, pmlm, tmp_path, "--max-update", "4", expect=None).error()
    assert "checkpoint_last.pt: its criterion is not that of this command line" in error
    assert "Traceback" not in error
    words = ("--max-update", "4", "--reset-optimizer", "--reset-lr-scheduler")
    assert "distill=" in train(run, pieces, pmlm, tmp_path, *words).log


def test_other_tasks_are_refused(run: Runner, toy: Toy, tmp_path: Path) -> None:
    words = [word if word != "ctc_nat" else "translation" for word in TASK]
    error = run(
        "fairseq-train", toy.bin, *words, "--arch", "transformer", "--criterion", "embedding_distillation", *OPTIMIZER,
        "--save-dir", tmp_path, "--max-update", "1", "--max-tokens", "300", expect=None,
    ).error()  # fmt: skip
    assert "goes with --task ctc_nat" in error

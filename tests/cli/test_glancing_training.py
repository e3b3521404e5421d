"""``fairseq-train --glancing-start … --glancing-end …`` by real command lines."""

import re
from pathlib import Path

import pytest
import torch

from plugin_common.checkpoint_files import check_and_load
from tests.commands import Finished, Runner
from tests.toy import OPTIMIZER, SHAPE, TASK, TRAIN, Pieces, Toy

GLANCE = ("--glancing-start", "0.5", "--glancing-end", "0.3")


def train(run: Runner, toy: Toy, folder: Path, *words: str, launcher: tuple[str, ...] = ()) -> Finished:
    return run(
        *launcher, "fairseq-train", toy.bin, *TASK, *SHAPE, *TRAIN, "--max-tokens", "300", "--no-epoch-checkpoints",
        "--save-dir", folder, *words, expect=None,
    )  # fmt: skip


def each(log: str, name: str, kind: str = "train") -> list[float]:
    """A figure of each epoch's line."""
    lines = re.findall(rf"\| {kind} \| epoch .*", log)
    return [float(found[1]) for line in lines if (found := re.search(rf"\| {name} ([\d.]+)", line))]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return check_and_load(folder / "checkpoint_last.pt")["model"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_that_glances_translates_and_reveals_less_as_it_learns(
    run: Runner, toy: Toy, tmp_path: Path
) -> None:
    words = (
        "--max-epoch", "14", "--max-update", "400", "--dropout", "0", "--eval-bleu", "--no-save",
    )  # fmt: skip
    enabled = [word for word in TRAIN if word != "--disable-validation"]
    done = run(
        "fairseq-train", toy.bin, *TASK, *SHAPE, *enabled, "--max-tokens", "300", *GLANCE, *words
    )  # fmt: skip
    shares = each(done.log, "glanced_pct")
    assert len(shares) == 14
    assert max(shares[:3]) > 3, "of all positions; a quarter hold a token that may be revealed"
    assert shares[-1] < max(shares) / 4
    assert each(done.log, "glanced_pct", "valid") == []
    assert each(done.log, "bleu", "valid")[-1] > 95, "as the same training without, see tests/cli/test_fairseq_train.py"


@pytest.mark.parametrize("words", [("--bf16",), ("--fp16", "--fp16-init-scale", "1"), ("--sentence-avg",),
                                   ("--upsampler", "token_duplication", "--update-freq", "2", "--random-positions"),
                                   ("--blank-symbol", "<mask>", "--upsample-ratio", "2.5", "--store-ema")],
                         ids=" ".join)  # fmt: skip
def test_other_options_go_with_it(run: Runner, toy: Toy, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = train(run, toy, tmp_path, *GLANCE, "--max-update", "24", *words)
    assert done.status == 0, done.log[-3000:]
    assert each(done.log, "glanced_pct")[0] > 0
    losses = each(done.log, "loss")
    assert losses[-1] < losses[0]


def test_share_0_is_the_training_without(run: Runner, toy: Toy, tmp_path: Path) -> None:
    short = ("--max-update", "6")
    without = train(run, toy, tmp_path / "without", *short)
    off = train(run, toy, tmp_path / "off", *short, "--glancing-start", "0", "--glancing-end", "0")
    on = train(run, toy, tmp_path / "on", *short, *GLANCE)
    assert (without.status, off.status, on.status) == (0, 0, 0)
    assert same(weights(tmp_path / "without"), weights(tmp_path / "off"))
    assert not same(weights(tmp_path / "without"), weights(tmp_path / "on"))
    assert "glanced" not in without.stdout.replace("glancing", "")


def test_resumed_is_uninterrupted_bit_for_bit(run: Runner, toy: Toy, tmp_path: Path) -> None:
    """``--max-epoch`` stops, as ``--max-update`` is what the share is reckoned by."""
    words = (*GLANCE, "--max-update", "60", "--dropout", "0.1", "--random-positions")
    train(run, toy, tmp_path / "whole", *words)
    train(run, toy, tmp_path / "parts", *words, "--max-epoch", "1")
    assert check_and_load(tmp_path / "parts" / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"] < 60
    assert "Loaded checkpoint" in train(run, toy, tmp_path / "parts", *words).log
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_its_checkpoints_and_older_ones_are_evaluated(run: Runner, toy: Toy, tmp_path: Path) -> None:
    assert train(run, toy, tmp_path, *GLANCE, "--max-update", "6").status == 0
    path = tmp_path / "checkpoint_last.pt"
    evaluated = run("fairseq-validate", toy.bin, *TASK, "--path", path, "--max-tokens", "300").log
    assert "glanced" not in evaluated.replace("glancing", "")
    state = torch.load(path)
    for name in ("glancing_start", "glancing_end", "max_update"):
        del state["cfg"]["criterion"][name]
    torch.save(state, tmp_path / "older.pt")
    older = run("fairseq-validate", toy.bin, *TASK, "--path", tmp_path / "older.pt", "--max-tokens", "300").log
    assert each(older, "loss", "valid") == each(evaluated, "loss", "valid")
    run("fairseq-generate", toy.bin, *TASK, "--path", tmp_path / "older.pt", "--max-tokens", "300")


def test_with_embedding_distillation(run: Runner, pieces: Pieces, tmp_path: Path) -> None:
    log = run(
        "fairseq-train", pieces.bin, *TASK, "--arch", "ctc_pmlm", "--pmlm", pieces.pmlm, "--criterion",
        "embedding_distillation", "--distill-alignment", "viterbi", *OPTIMIZER, "--log-format", "simple",
        "--disable-validation", "--no-save", "--max-tokens", "400", *GLANCE, "--max-update", "24",
    ).log  # fmt: skip
    for name in ("ctc", "distill", "loss"):
        figures = each(log, name)
        assert figures[-1] < figures[0], name
    assert each(log, "glanced_pct")[0] > 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--glancing-start", "1.5", "--glancing-end", "-1"), ["--glancing-start 1.5:", "--glancing-end -1.0:"]),
        (("--glancing-start", "nan"), ["--glancing-start nan: expected a share from 0 (off) to 1"]),
        (GLANCE, ["--glancing-start 0.5 --glancing-end 0.3", "say with --max-update how many updates"]),
        (("--glancing-end", "2", "--ctc-chunk-rows", "-3"), ["3 problems", "--ctc-chunk-rows -3", "--glancing-end 2"]),
    ],
)  # fmt: skip
def test_options_that_make_no_sense(
    run: Runner, toy: Toy, tmp_path: Path, words: tuple[str, ...], expected: list[str]
) -> None:
    error = train(run, toy, tmp_path, *words, "--max-epoch", "1").error()
    for part in expected:
        assert part in error


@pytest.mark.slow
def test_two_processes(run: Runner, toy: Toy, tmp_path: Path) -> None:
    launcher = ("torchrun", "--standalone", "--nproc-per-node", "2", "--no-python")
    done = train(run, toy, tmp_path, *GLANCE, "--max-update", "40", launcher=launcher)
    assert done.status == 0, done.log[-3000:]
    assert "training on 2 devices" in done.log
    assert each(done.log, "glanced_pct")[0] > 0
    losses = each(done.log, "loss")
    assert losses[-1] < losses[0]

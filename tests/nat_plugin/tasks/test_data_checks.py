import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fairseq.logging import metrics

from plugin_common.errors import UserError
from tests.commands import Runner
from tests.toy import Toy, new_corpus

SetUp = Callable[..., Any]


@pytest.fixture(scope="module")
def make_data(run: Runner, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``make_data(source, target, split="train")``: a data-bin of these sentences."""

    def make(source: list[str], target: list[str], split: str = "train") -> Path:
        corpus = new_corpus(tmp_path_factory.mktemp("corpus"))
        corpus.write(split, source, target)
        return corpus.preprocess(run, splits=(split,))

    return make


def setup_error(set_up_training: SetUp, data: Path | str, *words: str) -> str:
    with pytest.raises(UserError) as caught:
        set_up_training(data, *words)
    return str(caught.value)


# ---- the data folder -------------------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(toy: Toy, tmp_path: Path) -> Path:
    """A copy of the data-bin that a test may spoil."""
    return Path(shutil.copytree(toy.bin, tmp_path / "bin"))


def test_a_missing_data_folder(set_up_training: SetUp, tmp_path: Path) -> None:
    message = setup_error(set_up_training, tmp_path / "missing")
    assert message == f"{tmp_path}/missing: no such folder; give the --destdir of fairseq-preprocess"


def test_missing_dictionaries_are_both_named(set_up_training: SetUp, spoilt: Path) -> None:
    (spoilt / "dict.en.txt").unlink()
    (spoilt / "dict.de.txt").unlink()
    message = setup_error(set_up_training, spoilt)
    assert "dict.en.txt is missing; run fairseq-preprocess with --srcdict and --tgtdict" in message
    assert "dict.de.txt is missing" in message


def test_dictionaries_that_differ(set_up_training: SetUp, spoilt: Path) -> None:
    (spoilt / "dict.de.txt").write_text("other 1\n" + (spoilt / "dict.de.txt").read_text())
    message = setup_error(set_up_training, spoilt)
    assert "dict.en.txt and dict.de.txt differ; source and target share the LM's vocabulary" in message


def test_a_folder_without_data(set_up_training: SetUp, tmp_path: Path) -> None:
    message = setup_error(set_up_training, tmp_path)
    assert "no split.src-tgt.* file tells the languages; give --source-lang and --target-lang" in message


def test_left_padding_is_refused(set_up_training: SetUp, toy: Toy) -> None:
    assert "--left-pad-source: ctc_nat counts positions from the left" in setup_error(
        set_up_training, toy.bin, "--left-pad-source"
    )


def test_a_missing_split(set_up_training: SetUp, toy: Toy) -> None:
    task = set_up_training(toy.bin).task
    with pytest.raises(
        UserError, match=r"Dataset not found: test2 .*; run fairseq-preprocess first, or check --gen-subset"
    ):
        task.load_dataset("test2")


def test_sides_of_different_line_counts(set_up_training: SetUp, spoilt: Path, toy: Toy) -> None:
    for kind in ("bin", "idx"):
        shutil.copy(toy.bin / f"valid.en-de.de.{kind}", spoilt / f"train.en-de.de.{kind}")
    task = set_up_training(spoilt).task
    with pytest.raises(UserError, match=r"the en and de sides of train do not have the same number of sentences; make"):
        task.load_dataset("train")


# ---- targets that are too long ---------------------------------------------------------------------------------------


TOO_LONG = " ".join(["W1", "W2"] * 24)  # 48 tokens, one more than any up-sampled source has positions


def test_a_target_that_no_source_can_carry_is_an_error(set_up_training: SetUp, make_data: Callable[..., Path]) -> None:
    data = make_data(["w1", "w2", "w3"], ["W1", TOO_LONG, "W3"])
    message = ""
    with pytest.raises(UserError) as caught:
        set_up_training(data).task.load_dataset("train")
    message = str(caught.value)
    assert message.startswith("train: 1 target(s) have more than 47 tokens, the most that any up-sampled source can")
    assert "line 2; remove or split these lines, or pass --impossible-targets keep" in message


def test_it_can_be_kept_and_is_counted(
    set_up_training: SetUp, make_data: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    data = make_data(["w1", "w2", "w3", "w4"], ["W1", TOO_LONG, "W3", "W1 W2 W3"])
    training = set_up_training(data, "--impossible-targets", "keep")
    with metrics.aggregate(new_root=True) as aggregator:
        for batches in training.epoch():
            training.trainer.train_step(batches)
    assert "train: 2 of 4 targets (50.00 %) are longer than their source up-sampled 2.0 times and add no loss" in (
        caplog.text
    )
    assert ": lines 2, 4\n" in caplog.text
    assert aggregator.get_smoothed_value("infeasible") == 2
    assert aggregator.get_smoothed_value("infeasible_pct") == 50
    assert aggregator.get_smoothed_value("bsz") == 4


def test_nothing_to_learn_is_an_error(set_up_training: SetUp, make_data: Callable[..., Path]) -> None:
    data = make_data(["w1", "w2"], ["W1 W2 W3", "W1 W2 W4"])
    with pytest.raises(UserError, match=r"train: no target fits its source up-sampled 2.0 times, so nothing could be"):
        set_up_training(data).task.load_dataset("train")


def test_targets_do_not_matter_where_nothing_is_scored(
    load_models: Callable[..., Any], toy: Toy, make_data: Callable[..., Path]
) -> None:
    data = make_data(["w1"], [TOO_LONG], split="test")
    _, task = load_models(data, toy.best)
    task.load_dataset("test")
    assert len(task.dataset("test")) == 1

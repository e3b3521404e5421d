import logging
import multiprocessing
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.tasks.translation import TranslationTask

from plugin_common.checkpoint_average import load_lazily, model_settings
from plugin_common.errors import UserError
from tests.commands import Runner
from tests.toy import LINES, POSITIONS, Toy, new_corpus

MULTIPLES = (1, 2, 7, 8, 64)
SetUp = Callable[..., Any]


@pytest.fixture(scope="module")
def make_data(run: Runner, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``make_data(source, target, split="train")``: a data-bin of these sentences."""

    def make(source: list[str], target: list[str], split: str = "train") -> Path:
        corpus = new_corpus(tmp_path_factory.mktemp("corpus"))
        corpus.write(split, source, target)
        return corpus.preprocess(run, splits=(split,))

    return make


@pytest.fixture
def spoilt(toy: Toy, tmp_path: Path) -> Path:
    """A copy of the data-bin that a test may spoil."""
    return Path(shutil.copytree(toy.bin, tmp_path / "bin"))


# ---- every sentence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiple", MULTIPLES)
@pytest.mark.parametrize(
    "batching", [{"max_tokens": 90}, {"max_sentences": 5}, {"max_tokens": 300, "max_sentences": 64}]
)
@pytest.mark.parametrize("shards", [1, 3])
def test_each_sentence_of_each_split_is_in_one_batch(
    set_up_training: SetUp, toy: Toy, multiple: int, batching: dict[str, int], shards: int
) -> None:
    task = set_up_training(toy.bin).task
    for split, lines in LINES.items():
        task.load_dataset(split)
        seen: list[int] = []
        for shard in range(shards):
            iterator = task.get_batch_iterator(
                dataset=task.dataset(split), required_batch_size_multiple=multiple, num_shards=shards, shard_id=shard,
                **batching,
            )  # fmt: skip
            batches = [batch for batch in iterator.next_epoch_itr() if batch]
            assert all(batch["nsentences"] == len(batch["id"]) for batch in batches)
            seen += [number for batch in batches for number in batch["id"].tolist()]
        assert sorted(seen) == list(range(lines))


def test_without_the_task_fairseq_loses_some(toy: Toy, set_up_training: SetUp) -> None:
    task = set_up_training(toy.bin).task
    TranslationTask.load_dataset(task, "test")
    own = task.datasets["test"].batch_by_size(np.arange(29), max_sentences=64, required_batch_size_multiple=8)
    assert sum(len(batch) for batch in own) == 24


def test_an_epochs_workers_end_with_it(toy: Toy, set_up_training: SetUp) -> None:
    task = set_up_training(toy.bin).task
    task.load_dataset("valid")

    def left_after_an_epoch(persistent: bool) -> int:
        iterator = task.get_batch_iterator(
            dataset=task.dataset("valid"), max_sentences=8, num_workers=1, data_buffer_size=10
        )
        if persistent:
            iterator.persistent_workers = True
        others = set(multiprocessing.active_children())
        assert sum(batch["nsentences"] for batch in iterator.next_epoch_itr()) == LINES["valid"]
        deadline = time.monotonic() + (0.5 if persistent else 10)
        while (left := set(multiprocessing.active_children()) - others) and time.monotonic() < deadline:
            time.sleep(0.01)
        if left:
            iterator.dataloader._iterator._shutdown_workers()
        return len(left)

    assert left_after_an_epoch(persistent=False) == 0
    assert left_after_an_epoch(persistent=True) == 1, "fairseq's own way leaves them waiting"


# ---- lengths ---------------------------------------------------------------------------------------------------------


def test_over_long_sources_are_cut_and_named(
    set_up_training: SetUp, make_data: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    long = " ".join(["w1", "w2"] * 30)
    data = make_data(["w1", long, "w2", long], ["W1", "W2", "W3", "W4"])
    training = set_up_training(data)
    with caplog.at_level(logging.WARNING):
        training.task.load_dataset("train")
    assert f"train: 2 of 4 sources are longer than {POSITIONS - 1} tokens and were cut there: lines 2, 4" in caplog.text
    assert training.task.dataset("train").src_sizes.tolist() == [2, POSITIONS, 2, POSITIONS]
    batch = next(training.epoch())[0]
    output = training.model(**batch["net_input"])
    assert int(output.lengths.max()) == POSITIONS - 1
    assert int(output.truncated) == 0, "the data are cut already"


def test_the_users_own_limit_counts_too(set_up_training: SetUp, toy: Toy) -> None:
    training = set_up_training(toy.bin, "--max-source-positions", "5")
    training.task.load_dataset("train")
    assert int(training.task.dataset("train").src_sizes.max()) == 5


def test_max_tokens_under_the_longest_sentence(set_up_training: SetUp, make_data: Callable[..., Path]) -> None:
    training = set_up_training(make_data(["w1", "w1 w2 w3 w4", "w1"], ["W1", "W2", "W3"]), "--max-tokens", "4")
    with pytest.raises(
        UserError, match=r"--max-tokens 4 is less than the longest sentence has \(5 tokens, line 2\); raise"
    ):
        training.trainer.get_train_iterator(1)


# ---- text that is typed in -------------------------------------------------------------------------------------------


@pytest.fixture
def toy_task(load_models: Callable[..., Any], toy: Toy) -> Any:
    return load_models(toy.bin, toy.best)[1]


def encoded(task: Any, lines: list[str]) -> tuple[list[torch.Tensor], list[int]]:
    rows = [task.src_dict.encode_line(line, add_if_not_exist=False).long() for line in lines]
    return rows, [len(row) for row in rows]


def test_typed_lines_are_right_padded(toy_task: Any) -> None:
    dataset = toy_task.build_dataset_for_inference(*encoded(toy_task, ["w1 w2 w3", "", "w4"]))
    batch = dataset.collater([dataset[i] for i in range(3)])
    order = batch["id"].tolist()
    rows = [batch["net_input"]["src_tokens"][order.index(i)].tolist() for i in range(3)]
    index = toy_task.src_dict.index
    assert rows == [[index("w1"), index("w2"), index("w3"), 2], [2, 1, 1, 1], [index("w4"), 2, 1, 1]]


def test_an_over_long_line_is_named_by_its_place_in_the_whole_input(
    toy_task: Any, caplog: pytest.LogCaptureFixture
) -> None:
    long = " ".join(["w1", "w2"] * 40)
    toy_task.build_dataset_for_inference(*encoded(toy_task, ["w1", "w2", "w3"]))
    dataset = toy_task.build_dataset_for_inference(*encoded(toy_task, ["w1", long]))
    assert "input line 5 has 80 tokens; only the first 47 are translated" in caplog.text
    assert dataset[1]["source"].tolist()[-2:] == [toy_task.src_dict.index("w1"), 2]
    assert len(dataset[1]["source"]) == 48
    iterator = toy_task.get_batch_iterator(dataset=dataset, max_tokens=20)
    assert "--max-tokens 20 is less than these input lines have, which form batches of their own: line 5" in caplog.text
    assert sorted(number for batch in iterator.next_epoch_itr() for number in batch["id"].tolist()) == [0, 1]


def test_constraints_are_refused(toy_task: Any) -> None:
    with pytest.raises(UserError, match=r"--constraints needs a left-to-right model"):
        toy_task.build_dataset_for_inference(*encoded(toy_task, ["w1"]), constraints=torch.zeros(1, 1))


# ---- continuing and decoding -----------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_dictionary_of_the_same_size(
    set_up_training: SetUp, load_models: Callable[..., Any], toy: Toy, spoilt: Path
) -> None:
    for language in ("en", "de"):
        lines = (spoilt / f"dict.{language}.txt").read_text().splitlines()
        lines[3:5] = reversed(lines[3:5])
        (spoilt / f"dict.{language}.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(
        UserError, match=r"the dictionary of data-bin \(65 symbols\) is not the one that the checkpoint"
    ):
        load_models(spoilt, toy.best)
    training = set_up_training(spoilt)
    with pytest.raises(
        UserError, match=r"the dictionary of data-bin \(65 symbols\) is not the one that the checkpoint"
    ):
        training.trainer.load_checkpoint(str(toy.best))
    set_up_training(toy.bin).trainer.load_checkpoint(str(toy.best))


def test_the_checkpoint_carries_what_generating_needs(toy: Toy) -> None:
    settings = model_settings(load_lazily(toy.best))
    assert '"model_type": "xlm-roberta"' in settings["pmlm_config"]
    assert len(settings["dictionary_digest"]) == 64

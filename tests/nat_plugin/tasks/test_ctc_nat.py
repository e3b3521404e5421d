import logging
import multiprocessing
import shutil
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.logging import metrics
from fairseq.tasks.translation import TranslationTask

from plugin_common.checkpoint_average import load_lazily, model_settings
from plugin_common.errors import UserError
from tests.conftest import LINES, POSITIONS, Pieces, Runner, Toy, new_corpus

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


def setup_error(set_up_training: SetUp, data: Path | str, *words: str) -> str:
    with pytest.raises(UserError) as caught:
        set_up_training(data, *words)
    return str(caught.value)


# ---- the data folder ------------------------------------------------------------------------------------------------


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


# ---- every sentence -------------------------------------------------------------------------------------------------


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


# ---- lengths --------------------------------------------------------------------------------------------------------


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
    assert (
        "train: 2 of 4 targets (50.00 %) do not fit their source up-sampled 2.0 times and add no loss: lines 2, 4"
        in (caplog.text)
    )
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


def test_max_tokens_under_the_longest_sentence(set_up_training: SetUp, make_data: Callable[..., Path]) -> None:
    training = set_up_training(make_data(["w1", "w1 w2 w3 w4", "w1"], ["W1", "W2", "W3"]), "--max-tokens", "4")
    with pytest.raises(
        UserError, match=r"--max-tokens 4 is less than the longest sentence has \(5 tokens, line 2\); raise"
    ):
        training.trainer.get_train_iterator(1)


# ---- text that is typed in ------------------------------------------------------------------------------------------


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
    with pytest.raises(UserError, match=r"--max-tokens 20 is less than the longest sentence has \(48 tokens, line 5\)"):
        toy_task.get_batch_iterator(dataset=dataset, max_tokens=20)


def test_constraints_are_refused(toy_task: Any) -> None:
    with pytest.raises(UserError, match=r"--constraints needs a left-to-right model"):
        toy_task.build_dataset_for_inference(*encoded(toy_task, ["w1"]), constraints=torch.zeros(1, 1))


# ---- continuing and decoding ----------------------------------------------------------------------------------------


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


# ---- validation BLEU ------------------------------------------------------------------------------------------------


def bleu_log(counts: list[int], totals: list[int], sys_len: int, ref_len: int) -> dict[str, Any]:
    log: dict[str, Any] = {"_bleu_sys_len": sys_len, "_bleu_ref_len": ref_len, "loss": 0, "ntokens": 1, "nsentences": 1,
                           "sample_size": 1}  # fmt: skip
    for i in range(4):
        log |= {f"_bleu_counts_{i}": counts[i], f"_bleu_totals_{i}": totals[i]}
    return log


EMPTY, PERFECT = bleu_log([0] * 4, [0] * 4, 0, 10), bleu_log([10, 9, 8, 7], [10, 9, 8, 7], 10, 10)


def bleu(set_up_training: SetUp, toy: Toy, *batches: list[dict[str, Any]], task_class: Any = None) -> float | None:
    training = set_up_training(toy.bin, "--eval-bleu")
    reduce_metrics = (task_class or type(training.task)).reduce_metrics
    with metrics.aggregate(new_root=True) as aggregator:
        for logs in batches:
            reduce_metrics(training.task, logs, training.criterion)
    return aggregator.get_smoothed_values().get("bleu")


def test_bleu_of_empty_hypotheses_is_zero_not_absent(set_up_training: SetUp, toy: Toy) -> None:
    assert bleu(set_up_training, toy, [EMPTY], task_class=TranslationTask) is None
    assert bleu(set_up_training, toy, [EMPTY]) == 0
    assert bleu(set_up_training, toy, [EMPTY], [EMPTY, EMPTY]) == 0


def test_bleu_does_not_depend_on_the_order_of_batches(set_up_training: SetUp, toy: Toy) -> None:
    from sacrebleu.metrics import BLEU

    expected = round(BLEU.compute_bleu([10, 9, 8, 7], [10, 9, 8, 7], 10, 20, smooth_method="exp").score, 2)
    assert expected < 100
    for batches in ([[EMPTY], [PERFECT]], [[PERFECT], [EMPTY]], [[EMPTY, PERFECT]]):
        assert bleu(set_up_training, toy, *batches) == pytest.approx(expected)
    assert bleu(set_up_training, toy, [PERFECT]) == pytest.approx(100)


def test_without_eval_bleu_none_is_logged(set_up_training: SetUp, toy: Toy) -> None:
    training = set_up_training(toy.bin)
    with metrics.aggregate(new_root=True) as aggregator:
        training.task.reduce_metrics([{"loss": 0, "ntokens": 1, "nsentences": 1, "sample_size": 1}], training.criterion)
    assert "bleu" not in aggregator.get_smoothed_values()


def test_with_a_tokenizer_validation_bleu_is_that_of_plain_text(
    load_models: Callable[..., Any], pieces: Pieces, caplog: pytest.LogCaptureFixture
) -> None:
    (model,), task = load_models(
        pieces.bin, pieces.checkpoint, options=("--eval-bleu", "--pmlm-tokenizer", str(pieces.pmlm),
                                                "--eval-bleu-print-samples")
    )  # fmt: skip
    task.load_dataset("test")
    dataset = task.dataset("test")
    sample = dataset.collater([dataset[i] for i in range(20)])
    generator = task.build_generator([model], Namespace())
    with caplog.at_level(logging.INFO):
        score = task._inference_with_bleu(generator, sample, model)
    assert score.score == pytest.approx(100)
    words = sum(len(target.replace(".", " .").replace("!", " !").split()) for _, target in pieces.test)
    assert score.ref_len == score.sys_len == words, "words of the text, not pieces"
    references = {target for _, target in pieces.test}
    shown = [record.getMessage() for record in caplog.records if "example" in record.getMessage()]
    assert [line.split(": ", 1)[1] in references for line in shown] == [True, True]

import logging
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest
from fairseq.logging import metrics
from fairseq.tasks.translation import TranslationTask

from tests.toy import Pieces, Toy

SetUp = Callable[..., Any]


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

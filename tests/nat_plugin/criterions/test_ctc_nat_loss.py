import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fairseq.data import data_utils
from fairseq.logging import metrics
from fairseq.trainer import Trainer

import nat_plugin

nat_plugin.register()

from nat_plugin.criterions.ctc_nat_loss import CtcNatLoss  # noqa: E402
from tests.toy import toy_dictionary  # noqa: E402

PAD, EOS = 1, 2
Pair = tuple[str, str]


def sample_of(pairs: list[Pair]) -> dict[str, Any]:
    """A batch as TranslationDataset collates it."""
    dictionary = toy_dictionary()
    source, target = (
        [dictionary.encode_line(pair[side], add_if_not_exist=False, append_eos=True).long() for pair in pairs]
        for side in (0, 1)
    )
    return {
        "net_input": {
            "src_tokens": data_utils.collate_tokens(source, PAD),
            "src_lengths": torch.tensor([len(row) for row in source]),
        },
        "target": data_utils.collate_tokens(target, PAD),
        "nsentences": len(pairs),
    }


GOOD: list[Pair] = [("w1 w2 w3", "W1 W2 W2 W4"), ("w5", "W5"), ("w6 w7", ""), ("", "")]
INFEASIBLE: list[Pair] = [("w1", "W1 W2 W3"), ("w1", "W4 W4"), ("", "W1")]
"""Too long, no room for the blank between equal neighbours, no source at all."""


@pytest.fixture
def model_and_task(new_model: Callable[..., tuple[Any, Any]]) -> tuple[Any, Any]:
    model, task = new_model(seed=2)
    return model.double(), task


def run(model_and_task: tuple[Any, Any], pairs: list[Pair], **options: Any) -> tuple[Any, Any, dict[str, Any]]:
    model, task = model_and_task
    criterion = CtcNatLoss(task, **({"sentence_avg": False, "ctc_chunk_rows": 0} | options))
    reduce = options.pop("reduce", True)
    return criterion(model, sample_of(pairs), reduce=reduce)


def reference(model: Any, pairs: list[Pair]) -> torch.Tensor:
    """``[B]`` losses by torch's CTC over all columns, one sentence at a time."""
    losses = []
    for pair in pairs:
        sample = sample_of([pair])
        output = model(**sample["net_input"])
        target = sample["target"][:, :-1]
        if int(output.lengths) == 0:
            losses.append(output.hidden.sum().double() * 0)
            continue
        log_probs = model.logits(output).log_softmax(-1).transpose(0, 1)
        losses.append(F.ctc_loss(log_probs, target, output.lengths, torch.tensor([target.size(1)]), reduction="sum"))
    return torch.stack(losses)


def test_the_sum_of_the_sentences_losses_in_nats(model_and_task: tuple[Any, Any]) -> None:
    loss, sample_size, log = run(model_and_task, GOOD)
    expected = reference(model_and_task[0], GOOD)
    torch.testing.assert_close(loss, expected.sum(), rtol=1e-12, atol=0)
    assert expected[2] > 0, "an empty target is learned: all blanks"
    assert int(sample_size) == 5, "target tokens, </s> not counted"
    assert {name: int(value) for name, value in log.items() if name != "loss"} == {
        "ntokens": 5, "nsentences": 4, "sample_size": 5, "infeasible": 0, "infeasible_tokens": 0, "lowered": 0,
        "truncated": 0,
    }  # fmt: skip
    assert log["loss"] == loss
    assert not log["loss"].requires_grad


def test_infeasible_sentences_are_counted_and_enter_nothing_else(model_and_task: tuple[Any, Any]) -> None:
    alone, alone_size, _ = run(model_and_task, GOOD)
    loss, sample_size, log = run(model_and_task, [INFEASIBLE[0], *GOOD, *INFEASIBLE[1:]])
    torch.testing.assert_close(loss, alone, rtol=1e-12, atol=0)
    assert int(sample_size) == int(alone_size) == int(log["ntokens"])
    assert (int(log["infeasible"]), int(log["infeasible_tokens"]), int(log["nsentences"])) == (3, 6, 7)


def test_sentences_as_denominator(model_and_task: tuple[Any, Any]) -> None:
    _, sample_size, log = run(model_and_task, [*GOOD, *INFEASIBLE], sentence_avg=True)
    assert int(sample_size) == int(log["sample_size"]) == 4
    assert int(log["ntokens"]) == 5


def test_each_sentences_own_loss(model_and_task: tuple[Any, Any]) -> None:
    model, task = model_and_task
    criterion = CtcNatLoss(task, sentence_avg=False, ctc_chunk_rows=0)
    losses, _, _ = criterion(model, sample_of(GOOD), reduce=False)
    torch.testing.assert_close(losses, reference(model, GOOD), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk_rows", [1, 3, 1000])
def test_recomputing_in_blocks_changes_neither_loss_nor_gradient(
    model_and_task: tuple[Any, Any], chunk_rows: int
) -> None:
    model, _ = model_and_task

    def gradient(rows: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        loss, _, _ = run(model_and_task, GOOD + INFEASIBLE, ctc_chunk_rows=rows)
        loss.backward()
        return loss.detach(), [parameter.grad.clone() for parameter in model.parameters()]

    kept, recomputed = gradient(0), gradient(chunk_rows)
    torch.testing.assert_close(kept[0], recomputed[0], rtol=1e-12, atol=0)
    for one, other in zip(kept[1], recomputed[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_no_feasible_sentence_at_all(model_and_task: tuple[Any, Any]) -> None:
    model, _ = model_and_task
    loss, sample_size, log = run(model_and_task, INFEASIBLE)
    loss.backward()
    assert (float(loss.detach()), int(sample_size), int(log["infeasible"])) == (0.0, 0, 3)
    assert all(not parameter.grad.any() for parameter in model.parameters())


def test_only_empty_sources(model_and_task: tuple[Any, Any]) -> None:
    loss, sample_size, log = run(model_and_task, [("", ""), ("", "W3")])
    assert (float(loss), int(sample_size), int(log["infeasible"])) == (0.0, 0, 1)


def test_lowered_and_truncated_sources_are_counted(model_and_task: tuple[Any, Any]) -> None:
    long, longer = " ".join(["w1"] * 30), " ".join(["w1"] * 50)
    _, _, log = run(model_and_task, [("w1", "W1"), (long, "W1"), (longer, "W1")])
    assert (int(log["lowered"]), int(log["truncated"])) == (2, 1)


# ---- metrics --------------------------------------------------------------------------------------------------------


def logged(*logs: dict[str, Any]) -> dict[str, float]:
    with metrics.aggregate(new_root=True) as aggregator:
        CtcNatLoss.reduce_metrics(list(logs))
    return dict(aggregator.get_smoothed_values())


def test_the_logged_loss_is_bits_per_token_over_all_batches(model_and_task: tuple[Any, Any]) -> None:
    one, two = run(model_and_task, GOOD)[2], run(model_and_task, [("w8 w9", "W8"), *INFEASIBLE])[2]
    total = float(one["loss"] + two["loss"]) / 6 / math.log(2)
    values = logged(one, two)
    assert values["loss"] == pytest.approx(total, abs=6e-4)
    assert values["infeasible"] == 3
    assert values["infeasible_pct"] == pytest.approx(100 * 3 / 8, abs=6e-3)
    assert (values["lowered"], values["truncated"]) == (0, 0)
    assert CtcNatLoss.logging_outputs_can_be_summed()
    summed = {name: one[name] + two[name] for name in one}
    assert logged(summed) == values


def test_a_batch_without_feasible_sentence_leaves_the_mean_loss_as_it_was(model_and_task: tuple[Any, Any]) -> None:
    good, bad = run(model_and_task, GOOD)[2], run(model_and_task, INFEASIBLE)[2]
    with metrics.aggregate(new_root=True) as aggregator:
        CtcNatLoss.reduce_metrics([good])
        expected = aggregator.get_smoothed_value("loss")
        CtcNatLoss.reduce_metrics([bad])
        assert aggregator.get_smoothed_value("loss") == expected
        assert aggregator.get_smoothed_value("infeasible") == 3
    values = logged(bad)
    assert values["infeasible_pct"] == 100
    assert not any(math.isnan(value) for value in values.values())


# ---- in the trainer -------------------------------------------------------------------------------------------------


def updated(
    set_up_training: Any, toy: Any, batches: list[Any], *options: str, train_step: Any = None
) -> tuple[dict[str, torch.Tensor], Any]:
    """Weights and what was logged after one update from these batches."""
    training = set_up_training(toy.bin, "--optimizer", "sgd", "--lr", "0.5", "--dropout", "0", *options,
                               "--attention-dropout", "0", "--clip-norm", "0", "--seed", "7")  # fmt: skip
    next(training.epoch())  # tells the trainer what a batch looks like
    with metrics.aggregate(new_root=True) as aggregator:
        (train_step or Trainer.train_step)(training.trainer, batches)
    log = dict(aggregator.get_smoothed_values())
    return {name: value.clone() for name, value in training.model.state_dict().items()}, log


@pytest.mark.parametrize("options", [(), ("--sentence-avg",)])
def test_accumulated_batches_make_the_gradient_of_one_big_batch(
    set_up_training: Any, toy: Any, options: tuple[str, ...]
) -> None:
    parts = [GOOD, [*INFEASIBLE, ("w1 w2 w3 w4 w5", "W1 W2")], INFEASIBLE]
    accumulated, log = updated(set_up_training, toy, [sample_of(part) for part in parts], *options)
    one, big_log = updated(set_up_training, toy, [sample_of([pair for part in parts for pair in part])], *options)
    before, _ = updated(set_up_training, toy, [sample_of(INFEASIBLE)], *options)
    moved = 0.0
    for name, value in accumulated.items():
        torch.testing.assert_close(value, one[name], rtol=0, atol=1e-6)
        moved = max(moved, float((value - before[name]).abs().max()))
    assert moved > 1e-3
    assert log["infeasible"] == big_log["infeasible"] == 6


def test_a_missing_batch_counts_for_nothing_wherever_it_stands(set_up_training: Any, toy: Any) -> None:
    """With several processes some lack a batch at an epoch's end; fairseq alone then forgets the others' sizes."""
    pairs = sample_of(GOOD)
    expected, log = updated(set_up_training, toy, [pairs])
    for batches in ([pairs, []], [[], pairs], [[], pairs, []]):
        weights, same_log = updated(set_up_training, toy, batches)
        for name, value in weights.items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)
        assert same_log["loss"] == log["loss"]
        assert same_log["bsz"] == log["bsz"] == len(GOOD)

    alone = Trainer.train_step
    while hasattr(alone, "cures"):
        alone = alone.__wrapped__
    weights, _ = updated(set_up_training, toy, [pairs, []], train_step=alone)
    assert max(float((weights[name] - value).abs().max()) for name, value in expected.items()) > 1e-3

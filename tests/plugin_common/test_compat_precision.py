from typing import Any

import pytest
import torch
from fairseq.optim.fp16_optimizer import _FP16OptimizerMixin

import nat_plugin
from tests.toy import Toy

nat_plugin.register()


@pytest.fixture
def trained(toy: Toy, set_up_training: Any) -> Any:
    training = set_up_training(toy.bin, "--bf16")
    batches = training.epoch()
    for _ in range(3):
        training.trainer.train_step(next(batches))
    return training


def resumed(toy: Toy, set_up_training: Any, weights: Any, state: Any, load: Any) -> list[torch.Tensor]:
    """The float32 copies of a training that goes on from these weights and this state."""
    training = set_up_training(toy.bin, "--bf16")
    training.trainer.model.load_state_dict(weights)
    training.trainer._build_optimizer()
    load(training.trainer.optimizer, state)
    return list(training.trainer.optimizer.fp32_params)


def test_float32_copies_survive_in_the_optimizers_state(toy: Toy, set_up_training: Any, trained: Any) -> None:
    optimizer, weights = trained.trainer.optimizer, trained.trainer.model.state_dict()
    expected = [copy.detach().clone() for copy in optimizer.fp32_params]

    alone = _FP16OptimizerMixin.state_dict.__wrapped__(optimizer)
    rounded = resumed(toy, set_up_training, weights, alone, _FP16OptimizerMixin.load_state_dict.__wrapped__)
    assert not all(map(torch.equal, rounded, expected)), "fairseq's own way goes on from rounded parameters"

    state = optimizer.state_dict()
    exact = resumed(toy, set_up_training, weights, state, _FP16OptimizerMixin.load_state_dict)
    assert all(map(torch.equal, exact, expected))


def test_copies_of_other_parameters_are_left_alone(
    toy: Toy, set_up_training: Any, trained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer = trained.trainer.optimizer
    state = optimizer.state_dict()
    state["fp32_params"] = [copy + 1 for copy in state["fp32_params"]]
    weights = trained.trainer.model.state_dict()
    rounded = resumed(toy, set_up_training, weights, state, _FP16OptimizerMixin.load_state_dict)
    assert all(torch.equal(copy, copy.bfloat16().float()) for copy in rounded)
    assert "are not those of its parameters" in caplog.text
    del state["fp32_params"]
    resumed(toy, set_up_training, weights, state, _FP16OptimizerMixin.load_state_dict)

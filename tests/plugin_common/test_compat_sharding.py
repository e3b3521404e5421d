"""The trainer's cures for split models, one by one; whole trainings: ``tests/cli/test_completion_sft_processes.py``."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from plugin_common import compat, compat_sharding
from plugin_common.errors import UserError
from plugin_common.sharded_model import ShardedModel
from plugin_common.sharded_tensors import is_sharded
from tests.process_group import alone


class Tied(nn.Module):
    """Two layers with one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.inner.weight
        self.register_buffer("count", torch.tensor(7))
        self.max_positions = lambda: 99


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    compat.apply()
    with alone() as made:
        yield made


@pytest.fixture
def split(mesh: DeviceMesh) -> nn.Module:
    torch.manual_seed(0)
    module = Tied()
    fully_shard(module, mesh=mesh)
    return module


def test_a_split_model_is_handed_through(split: nn.Module) -> None:
    from fairseq import models

    covered = models.DistributedFairseqModel(SimpleNamespace(), split, None, torch.device("cpu"))
    assert isinstance(covered, ShardedModel)
    assert covered.module is split
    assert covered.max_positions() == 99
    with pytest.raises(AttributeError):
        covered.no_sync  # noqa: B018 - the trainer asks for it


def test_what_is_saved_is_whole_and_tied_weights_are_saved_once(split: nn.Module) -> None:
    covered = ShardedModel(split)
    torch.manual_seed(0)
    expected = Tied().state_dict()
    covered.gather(keep=True)
    state = covered.state_dict()
    assert list(state) == list(expected)
    assert all(type(value) is torch.Tensor and torch.equal(value, expected[name]) for name, value in state.items())
    assert state["inner.weight"].data_ptr() == state["head.weight"].data_ptr()
    with pytest.raises(RuntimeError, match="not been gathered"):
        covered.state_dict()
    covered.gather(keep=False)
    with pytest.raises(RuntimeError, match="not been gathered"):
        covered.state_dict()


def test_whole_tensors_are_loaded(split: nn.Module) -> None:
    other = {name: value + 1 for name, value in Tied().state_dict().items()}
    other["head.weight"] = other["inner.weight"]
    covered = ShardedModel(split)
    covered.load_state_dict(other)
    covered.gather(keep=True)
    assert all(torch.equal(value, other[name]) for name, value in covered.state_dict().items())


def test_a_misfit_is_the_models_own_error(split: nn.Module) -> None:
    state = {**Tied().state_dict(), "inner.weight": torch.zeros(4, 3)}
    with pytest.raises(RuntimeError, match=r"size mismatch for inner\.weight"):
        ShardedModel(split).load_state_dict(state)


@pytest.mark.parametrize("limit", [0.0, 0.5, 100.0])
def test_clipping_is_that_of_whole_gradients(split: nn.Module, limit: float) -> None:
    from fairseq import utils

    plain = nn.Parameter(torch.zeros(5, 3))
    plain.grad = torch.randn(5, 3)
    parts = list(split.parameters())
    parts[0].grad = compat_sharding._own_rows(parts[0], plain.grad)
    expected, found = utils.clip_grad_norm_([plain], limit), utils.clip_grad_norm_(parts, limit)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    assert torch.allclose(parts[0].grad.full_tensor(), plain.grad, rtol=1e-5)


def _updated(make: Callable[..., torch.optim.Optimizer], params: list[Any]) -> torch.optim.Optimizer:
    optimizer = make(params)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("fused", [False, True])
def test_each_process_takes_its_part_of_the_optimizers_state(split: nn.Module, fused: bool) -> None:
    make = functools.partial(torch.optim.AdamW, lr=0.1, fused=fused)
    whole = _updated(make, [nn.Parameter(torch.ones(5, 3))]).state_dict()
    whole["fp32_params"] = [torch.full((5, 3), 2.0)]
    optimizer = make(list(split.parameters()))
    part = compat_sharding._own_part(SimpleNamespace(optimizer=optimizer), whole)
    (copy,) = part.pop("fp32_params")
    assert is_sharded(copy) and torch.equal(copy.full_tensor(), whole["fp32_params"][0])
    optimizer.load_state_dict(part)
    (state,) = optimizer.state.values()
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(state[name].full_tensor(), whole["state"][0][name])
    assert float(state["step"]) == 1


def test_other_optimizer_states_stay_for_torch_to_refuse(split: nn.Module) -> None:
    two = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
    state = _updated(torch.optim.AdamW, two).state_dict()
    optimizer = torch.optim.AdamW(list(split.parameters()))
    part = compat_sharding._own_part(SimpleNamespace(optimizer=optimizer), state)
    with pytest.raises(ValueError, match="doesn't match the size"):
        optimizer.load_state_dict(part)


def test_what_needs_whole_parameters_is_refused() -> None:
    cfg = SimpleNamespace(
        common=SimpleNamespace(fp16=True, amp=False),
        ema=SimpleNamespace(store_ema=True),
        optimization=SimpleNamespace(use_bmuf=False),
        distributed_training=SimpleNamespace(zero_sharding="none"),
    )
    with pytest.raises(UserError, match=r"2 problems:\n.*--fp16 .*give --bf16\n.*--store-ema .*leave it out$"):
        compat_sharding._check_settings(cfg)


@pytest.mark.parametrize("everywhere", [False, True])
def test_several_processes_map_the_checkpoint(tmp_path: Path, everywhere: bool) -> None:
    from fairseq import checkpoint_utils

    compat.apply()
    path = tmp_path / "checkpoint.pt"
    state = {"cfg": {"common": {"seed": 1}}, "optimizer_history": [_history()], "extra_state": _extra()}
    torch.save({**state, "args": None, "model": {"weight": torch.arange(6.0)}}, path)
    loaded = checkpoint_utils.load_checkpoint_to_cpu(str(path), load_on_all_ranks=everywhere)
    assert torch.equal(loaded["model"]["weight"], torch.arange(6.0))
    assert loaded["cfg"].common.seed == 1
    assert (str(path) in Path("/proc/self/maps").read_text()) == everywhere


def _history() -> dict[str, Any]:
    return {"optimizer_name": "FairseqAdam", "lr_scheduler_state": {}, "num_updates": 1}


def _extra() -> dict[str, Any]:
    return {"train_iterator": {"epoch": 1}}


def test_a_damaged_checkpoint_is_noticed_by_several_processes(tmp_path: Path) -> None:
    from fairseq import checkpoint_utils

    compat.apply()
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": {"weight": torch.arange(2000.0)}}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        checkpoint_utils.load_checkpoint_to_cpu(str(path), load_on_all_ranks=True)

"""Each cure beside the fault: what fairseq does by itself (``__wrapped__``), and what it does mended."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import options, trainer
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import utils as distributed_utils
from fairseq.models import distributed_fairseq_model
from fairseq.trainer import Trainer

import nat_plugin
from plugin_common.compat_trainer import _join_torchrun
from plugin_common.errors import UserError
from tests.toy import SHAPE, TRAIN, Toy

nat_plugin.register()


def training_options(*words: str) -> list[str]:
    return ["data", "--task", "ctc_nat", "--cpu", *SHAPE, *TRAIN, "--batch-size", "4", *words]


def parsed(words: list[str], parse: Callable[..., Any] = options.parse_args_and_arch) -> argparse.Namespace:
    return parse(options.get_training_parser(), words)


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="the fault shows where there is no CUDA device")
def test_an_fp16_overflow_on_a_cpu_is_explained(toy: Toy, set_up_training: Any) -> None:
    def step(train_step: Callable[..., Any]) -> None:
        training = set_up_training(toy.bin, "--fp16", "--fp16-init-scale", str(2**40))
        for samples in training.epoch():
            train_step(training.trainer, samples)

    alone = Trainer.train_step
    while hasattr(alone, "__wrapped__") and hasattr(alone, "cures"):
        alone = alone.__wrapped__
    with pytest.raises((AssertionError, RuntimeError), match=r"CUDA"):
        step(alone)
    with pytest.raises(UserError, match=r"--fp16: a gradient overflowed.*use --bf16, or .*--fp16-init-scale 1"):
        step(Trainer.train_step)


def test_a_checkpoint_of_another_shape_is_explained(toy: Toy, set_up_training: Any) -> None:
    training = set_up_training(toy.bin, "--encoder-embed-dim", "32")
    with pytest.raises(Exception, match=r"Cannot load model parameters") as alone:
        Trainer.load_checkpoint.__wrapped__(training.trainer, str(toy.best))
    assert not isinstance(alone.value, UserError)
    with pytest.raises(UserError, match=r"checkpoint_best.pt: does not fit the model of this command line \(.*size"):
        training.trainer.load_checkpoint(str(toy.best))


# ---- several processes -----------------------------------------------------------------------------------------------


@pytest.fixture
def one_process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_layers_without_a_bias_share_none() -> None:
    layers = torch.nn.Sequential(*(torch.nn.Linear(2, 2, bias=False) for _ in range(3)))
    layers[2].weight = layers[0].weight
    catalog = trainer._catalog_shared_params
    assert catalog.__wrapped__(layers) == [["0.weight", "2.weight"], ["0.bias", "1.bias", "2.bias"]]
    assert catalog(layers) == [["0.weight", "2.weight"]]


def test_ddp_on_a_cpu_names_no_device(one_process_group: None) -> None:
    args = convert_namespace_to_omegaconf(parsed(training_options())).distributed_training
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError, match=r"device_ids"):
        own = distributed_fairseq_model.DistributedDataParallel.__wrapped__
        patch.setattr(distributed_fairseq_model, "DistributedDataParallel", own)
        distributed_fairseq_model.DistributedFairseqModel(args, torch.nn.Linear(2, 2), None, torch.device("cpu"))
    wrapped = distributed_fairseq_model.DistributedFairseqModel(args, torch.nn.Linear(2, 2), None, torch.device("cpu"))
    assert wrapped(torch.zeros(1, 2)).shape == (1, 2)


def test_torchrun_makes_one_training_on_cpus() -> None:
    environment = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", "WORLD_SIZE": "3", "RANK": "2", "LOCAL_RANK": "2"}

    def joined(**more: str) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for key, value in {**environment, **more}.items():
                patch.setenv(key, value)
            cfg = convert_namespace_to_omegaconf(parsed(training_options()))
            distributed_utils.infer_init_method(cfg.distributed_training)
            alone = cfg.distributed_training.distributed_world_size
            _join_torchrun(cfg)
        return alone, cfg.distributed_training

    alone, settings = joined()
    assert alone == 1, "fairseq by itself trains alone in each process"
    assert (settings.distributed_world_size, settings.distributed_rank) == (3, 2)
    assert (settings.distributed_init_method, settings.distributed_backend) == ("env://", "gloo")
    assert settings.distributed_no_spawn
    assert joined(WORLD_SIZE="1", RANK="0")[1].distributed_init_method is None


def test_torchrun_with_one_gpu_a_node_is_one_training() -> None:
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", "WORLD_SIZE": "2", "RANK": "1"}.items():
            patch.setenv(key, value)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        cfg = convert_namespace_to_omegaconf(parsed(training_options()))
        cfg.common.cpu = False
        cfg.distributed_training.distributed_world_size = 1
        distributed_utils.infer_init_method(cfg.distributed_training)
        assert cfg.distributed_training.distributed_init_method is None, "fairseq by itself trains alone"
        _join_torchrun(cfg)
        distributed_utils.infer_init_method(cfg.distributed_training)
    settings = cfg.distributed_training
    assert (settings.distributed_init_method, settings.distributed_world_size) == ("env://", 2)
    assert (settings.distributed_rank, settings.device_id) == (1, 0)


def test_processes_read_the_checkpoint_each_by_itself() -> None:
    cfg = convert_namespace_to_omegaconf(parsed(training_options("--distributed-world-size", "2")))
    cfg.distributed_training.distributed_init_method = "tcp://localhost:1"
    cfg.distributed_training.distributed_no_spawn = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed_utils, "distributed_main", lambda *args: None)
        distributed_utils.call_main.__wrapped__(cfg, print)
        assert not cfg.checkpoint.load_checkpoint_on_all_dp_ranks
        distributed_utils.call_main(cfg, print)
    assert cfg.checkpoint.load_checkpoint_on_all_dp_ranks

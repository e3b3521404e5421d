"""The cures of :mod:`plugin_common.compat` for models whose weights are split over the processes (torch's FSDP2).

fairseq's own ``--ddp-backend fully_sharded`` needs fairscale, which is maintained no more. Here the model itself calls
``fully_shard`` when it is built; the trainer then has to leave it unwrapped, to clip by the norm over all processes,
and to save and load ordinary checkpoints, which one process can go on with.
"""

import functools
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plugin_common.errors import raise_all
from plugin_common.patching import replace_once

logger = logging.getLogger(__name__)


def train_sharded_models() -> None:
    """Apply all."""
    hand_sharded_models_through()
    clip_sharded_gradients()
    gather_before_saving()
    distribute_when_loading()
    read_lazily_on_several_processes()


def is_sharded_model(model: Any) -> bool:
    """Whether a model is split over processes."""
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def hand_sharded_models_through() -> None:
    """The trainer gets a thin cover instead of DDP: the model averages its gradients over the processes by itself."""
    from fairseq import models

    def make(wrap: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(wrap)
        def unless_sharded(args: Any, model: Any, process_group: Any, device: Any) -> Any:
            if not is_sharded_model(model):
                return wrap(args, model, process_group, device)
            from plugin_common.sharded_model import ShardedModel

            return ShardedModel(model)

        return unless_sharded

    replace_once(models, "DistributedFairseqModel", make)


def clip_sharded_gradients() -> None:
    """The norm of gradients is that over all processes' rows, the same on each."""
    from fairseq import utils

    def make(clip: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(clip)
        def over_all_rows(params: Any, max_norm: float, aggregate_norm_fn: Any = None) -> Any:
            import torch

            params = [params] if isinstance(params, torch.Tensor) else list(params)
            grads = [param.grad for param in params if param is not None and param.grad is not None]
            if not _any_sharded(grads):
                return clip(params, max_norm, aggregate_norm_fn)
            from plugin_common.sharded_tensors import local, total_norm

            norm = total_norm(grads)
            if max_norm > 0:
                torch._foreach_mul_([local(grad) for grad in grads], (max_norm / (norm + 1e-6)).clamp_(max=1))
            return norm

        return over_all_rows

    replace_once(utils, "clip_grad_norm_", make)


def _any_sharded(tensors: Sequence[Any]) -> bool:
    if "torch.distributed.tensor" not in sys.modules:
        return False
    from plugin_common.sharded_tensors import is_sharded

    return any(is_sharded(tensor) for tensor in tensors)


def gather_before_saving() -> None:
    """All processes gather model and optimizer state on the first, which alone writes the checkpoint.

    No ``crash.pt``: where one process fails, the others will not come to gather.
    """
    from fairseq.trainer import Trainer

    def make_consolidate(consolidate: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(consolidate)
        def gathering(self: Any) -> None:
            consolidate(self)
            if not is_sharded_model(self.get_model()) or sys.exc_info()[0] is not None:
                return
            from plugin_common.sharded_tensors import gathered

            master = self.is_data_parallel_master
            self.model.gather(keep=master)
            if not self.cfg.checkpoint.no_save_optimizer_state:
                state = gathered(self.optimizer.state_dict(), keep=master)
                self._gathered_optim_state = state if master else None

        return gathering

    def make_save(save: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(save)
        def unless_failed(self: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
            if is_sharded_model(self.get_model()) and sys.exc_info()[0] is not None:
                logger.error("%s is not written: the model's parts are with processes that may have failed", filename)
                return None
            return save(self, filename, *args, **kwargs)

        return unless_failed

    replace_once(Trainer, "consolidate_optimizer", make_consolidate)
    replace_once(Trainer, "save_checkpoint", make_save)


def distribute_when_loading() -> None:
    """Of a checkpoint's optimizer state each process takes its own rows."""
    from fairseq.trainer import Trainer

    def make(build: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(build)
        def built(self: Any) -> None:
            sharded = is_sharded_model(self.get_model())
            if sharded:
                _check_settings(self.cfg)
            build(self)
            if sharded:
                optimizer = self._optimizer
                load = optimizer.load_state_dict

                def load_own_rows(state: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
                    load(_own_part(optimizer, state), *args, **kwargs)

                optimizer.load_state_dict = load_own_rows

        return built

    replace_once(Trainer, "_build_optimizer", make)


def _check_settings(cfg: Any) -> None:
    """Refuse what needs whole parameters.

    Raises:
        UserError: lists all.
    """
    refused = {
        "--fp16": cfg.common.fp16,
        "--amp": cfg.common.amp,
        "--store-ema": cfg.ema.store_ema,
        "--use-bmuf": cfg.optimization.use_bmuf,
        "--zero-sharding os": str(cfg.distributed_training.zero_sharding) != "none",
    }
    raise_all(
        f"{option} does not go with a model that is split over the processes (--shard-model); leave it out"
        + (" or give --bf16" if option in ("--fp16", "--amp") else "")
        for option, given in refused.items()
        if given
    )


def _own_part(optimizer: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """A state of whole tensors with this process's rows of each, for ``optimizer``."""
    params = [param for group in optimizer.optimizer.param_groups for param in group["params"]]
    ids = [index for group in state["param_groups"] for index in group["params"]]
    of_id = dict(zip(ids, params, strict=False))  # torch explains where the numbers differ
    part = dict(state)
    part["state"] = {
        index: {name: _own_rows(of_id.get(index), value) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    if "fp32_params" in state:  # see compat_precision
        part["fp32_params"] = [
            _own_rows(param, value) for param, value in zip(params, state["fp32_params"], strict=False)
        ]
    return part


def _own_rows(like: Any, value: Any) -> Any:
    from plugin_common.sharded_tensors import is_sharded, shard_like

    fits = is_sharded(like) and getattr(value, "shape", None) == like.shape
    return shard_like(like, value) if fits else value


def read_lazily_on_several_processes() -> None:
    """Where every process reads the checkpoint itself, it maps the file: none holds more of it than it takes."""
    from fairseq import checkpoint_utils

    from plugin_common.checkpoint_average import load_lazily

    def make(load: Callable[..., dict]) -> Callable[..., dict]:
        @functools.wraps(load)
        def mapped(path: str, arg_overrides: Any = None, load_on_all_ranks: bool = False) -> dict:
            if not load_on_all_ranks or arg_overrides is not None:
                return load(path, arg_overrides, load_on_all_ranks)
            from omegaconf import OmegaConf

            state = load_lazily(path)
            if state.get("cfg") is not None:
                state["cfg"] = OmegaConf.create(state["cfg"], flags={"allow_objects": True})
            return checkpoint_utils._upgrade_state_dict(state)

        return mapped

    replace_once(checkpoint_utils, "load_checkpoint_to_cpu", make)

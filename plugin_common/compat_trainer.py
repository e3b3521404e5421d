"""The cures of :mod:`plugin_common.compat` that concern fairseq's training loop, on one process or several."""

import functools
import logging
import os
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plugin_common.errors import UserError
from plugin_common.patching import replace_once

logger = logging.getLogger(__name__)


def explain_fp16_overflow_on_cpu() -> None:
    """After an fp16 overflow fairseq calls ``.cuda()`` whatever the device is; on a CPU that ends the training."""
    import torch
    from fairseq.trainer import Trainer

    def make(train_step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(train_step)
        def explained(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return train_step(self, *args, **kwargs)
            except (AssertionError, RuntimeError) as error:
                if self.cfg.common.fp16 and not self.cuda and "CUDA" in str(error):
                    raise UserError(
                        "--fp16: a gradient overflowed, which fairseq handles on CUDA devices only; on a CPU use "
                        "--bf16, or start from a smaller loss scale (--fp16-init-scale 1)"
                    ) from error
                raise

        return explained

    if not torch.cuda.is_available():
        replace_once(Trainer, "train_step", make)


def put_empty_batches_first() -> None:
    """With several processes and ``--update-freq`` the last update of an epoch loses real batches' share.

    A process whose batches run out gets an empty one, for which fairseq runs a stand-in without gradient. If it is the
    last of those that are accumulated, fairseq also forgets the sample size and the logged counts of the real ones
    before it; the gradient then is too large. Placed first it does no harm, provided the task takes the stand-in's
    own sample size and counts off (``ignore_grad``).
    """
    from fairseq.trainer import Trainer

    def make(train_step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(train_step)
        def reordered(self: Any, samples: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
            return train_step(self, sorted(samples, key=_is_real), *args, **kwargs)

        return reordered

    replace_once(Trainer, "train_step", make)


def _is_real(batch: Any) -> bool:
    return batch is not None and len(batch) > 0


def explain_foreign_checkpoints() -> None:
    """Continuing from a checkpoint of another model: a clear error, also where fairseq would load it without a word.

    A task can have a method ``check_checkpoint_settings(model_settings)``, which raises ``UserError``: two dictionaries
    of the same size, for example, are told apart by nothing else.
    """
    from fairseq.trainer import Trainer

    from plugin_common.checkpoint_average import load_lazily, model_settings
    from plugin_common.checkpoint_files import check_checkpoint_file

    def make(load: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(load)
        def explained(self: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
            check = getattr(self.task, "check_checkpoint_settings", None)
            if check is not None and Path(filename).is_file():
                try:
                    check(model_settings(load_lazily(filename)))
                except UserError:
                    check_checkpoint_file(filename)  # perhaps the settings were altered
                    raise
            try:
                return load(self, filename, *args, **kwargs)
            except UserError:
                raise
            except Exception as error:
                if "please reset the optimizer" in str(error):
                    what = str(error).split()[0].lower()  # criterion or optimizer
                    raise UserError(
                        f"{filename}: its {what} is not that of this command line; continue with that of its training, "
                        "or take its parameters alone with --reset-optimizer --reset-lr-scheduler (embedding "
                        "distillation begins late within one training by --distill-start-update)"
                    ) from error
                if _is_of_the_lr_scheduler(error):
                    raise UserError(
                        f"{filename}: the state of its learning-rate schedule does not fit --lr-scheduler "
                        f"{self.cfg.lr_scheduler._name}; continue with that of its training, or begin this one with "
                        "--reset-lr-scheduler"
                    ) from error
                if "Cannot load model parameters" not in str(error):
                    raise
                cause = str(error.__context__).strip().splitlines() or [str(error)]
                raise UserError(
                    f"{filename}: does not fit the model of this command line ({' '.join(map(str.strip, cause[:2]))}); "
                    "continue with the options it was trained with, or choose another --save-dir or --restore-file"
                ) from error

        return explained

    replace_once(Trainer, "load_checkpoint", make)


def _is_of_the_lr_scheduler(error: Exception) -> bool:
    """Whether a schedule did not find what it looks for in its state."""
    return isinstance(error, KeyError) and "lr_scheduler" in traceback.extract_tb(error.__traceback__)[-1].filename


def leave_absent_parameters_alone() -> None:
    """fairseq takes all layers without a bias for ones that share theirs, and logs a line for each: hundreds."""
    from fairseq import trainer

    def make(catalog: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(catalog)
        def of_real_ones(module: Any, memo: dict[Any, list[str]] | None = None, prefix: str = "") -> Any:
            if memo is not None:
                return catalog(module, memo, prefix)
            found: dict[Any, list[str]] = {}
            catalog(module, found, prefix)
            return [names for parameter, names in found.items() if parameter is not None and len(names) > 1]

        return of_real_ones

    replace_once(trainer, "_catalog_shared_params", make)


def train_as_one_under_torchrun() -> None:
    """``torchrun … fairseq-train``: one training over all processes, not N that overwrite each other.

    fairseq reads torchrun's environment only where it sees several CUDA devices: not on CPUs, not with a GPU a node.
    Resuming lets each process read the checkpoint itself, because broadcasting it fails under torch's safe loading.
    """
    from fairseq.distributed import utils as distributed_utils

    def make(call_main: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call_main)
        def mended(cfg: Any, main: Callable[..., Any], **kwargs: Any) -> Any:
            _join_torchrun(cfg)
            if cfg.distributed_training.distributed_world_size > 1:
                cfg.checkpoint.load_checkpoint_on_all_dp_ranks = True
            return call_main(cfg, main, **kwargs)

        return mended

    replace_once(distributed_utils, "call_main", make)


def _join_torchrun(cfg: Any) -> None:
    import torch

    torchrun = all(key in os.environ for key in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK"))
    on_cpu = cfg.common.cpu or not torch.cuda.is_available()
    settings = cfg.distributed_training
    if not torchrun or settings.distributed_init_method is not None:
        return
    world_size = int(os.environ["WORLD_SIZE"])
    if world_size == 1:
        return
    if not on_cpu:
        # fairseq looks at torchrun's variables only if it expects several processes, which it tells from the number of
        # GPUs that this process sees: one, on nodes with a GPU each.
        settings.distributed_world_size = world_size
        return
    settings.distributed_init_method = "env://"
    settings.distributed_world_size = world_size
    settings.distributed_rank = int(os.environ["RANK"])
    settings.distributed_backend = "gloo"
    settings.distributed_no_spawn = True
    settings.device_id = 0
    logger.info("torchrun on CPUs: process %d of %d, backend gloo", settings.distributed_rank, world_size)


def wrap_cpu_models_in_ddp() -> None:
    """fairseq's default ``--ddp-backend pytorch_ddp`` names a CUDA device even where the model sits on the CPU."""
    from fairseq.models import distributed_fairseq_model

    def make(ddp: Callable[..., Any]) -> Callable[..., Any]:
        def on_any_device(*args: Any, **kwargs: Any) -> Any:
            if next(kwargs["module"].parameters()).device.type == "cpu":
                kwargs.update(device_ids=None, output_device=None)
            return ddp(*args, **kwargs)

        return on_any_device

    replace_once(distributed_fairseq_model, "DistributedDataParallel", make)

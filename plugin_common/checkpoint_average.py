"""Average the parameters of fairseq checkpoints.

Knows torch and the layout of fairseq's checkpoint files, not fairseq.
"""

import zipfile
from argparse import Namespace
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plugin_common.checkpoint_files import allow_scalar_globals, check_checkpoint_file, explain_load_error
from plugin_common.errors import UserError, raise_all

LISTED_NAMES = 3


@dataclass(frozen=True)
class CheckpointInfo:
    """Which state of a training a checkpoint holds.

    ``epoch`` is the last one begun, ``updates`` the optimizer steps done; ``value`` is the validation result in the
    run's ``--best-checkpoint-metric``, None where it was saved without validation.
    """

    path: Path
    epoch: int
    updates: int
    metric: str
    maximize: bool
    value: float | None

    def __str__(self) -> str:
        shown = f"{self.path.name}: epoch {self.epoch}, update {self.updates:,}"
        return shown if self.value is None else f"{shown}, {self.metric} {self.value:.6g}"


def load_lazily(path: str | Path) -> dict[str, Any]:
    """A checkpoint whose tensors are read from the file only when they are used; its checksums are not compared.

    Raises:
        UserError: see :func:`plugin_common.checkpoint_files.check_and_load`; or it is no fairseq checkpoint.
    """
    if not Path(path).is_file() or Path(path).stat().st_size == 0:
        check_checkpoint_file(path)
    allow_scalar_globals()
    try:
        # The file format before torch 1.6 is no zip archive and cannot be mapped into memory.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        check_checkpoint_file(path)
        raise explain_load_error(path, error) from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), Mapping):
        raise UserError(f"{path}: holds no 'model'; expected a checkpoint of fairseq-train")
    return state


def checkpoint_info(path: str | Path, state: Mapping[str, Any]) -> CheckpointInfo:
    """What the checkpoint says about itself."""
    extra = state.get("extra_state") or {}
    iterator = extra.get("train_iterator") or {}
    epoch, into_epoch = int(iterator.get("epoch", 0)), int(iterator.get("iterations_in_epoch", 0))
    history = state.get("optimizer_history") or [{}]
    checkpointing = _group(state, "checkpoint")
    value = extra.get("val_loss")
    return CheckpointInfo(
        path=Path(path),
        epoch=epoch if into_epoch or not epoch else epoch - 1,  # at an epoch's end it names the next one
        updates=int(history[-1].get("num_updates", 0)),
        metric=str(checkpointing.get("best_checkpoint_metric", "loss")),
        maximize=bool(checkpointing.get("maximize_best_checkpoint_metric", False)),
        value=None if value is None else float(value),
    )


def model_settings(state: Mapping[str, Any]) -> dict[str, Any]:
    """The options that make the model what it is.

    Models without a dataclass store the whole command line as theirs; whatever belongs to another part of the
    configuration (optimizer, task, ...) is left out.
    """
    config = state.get("cfg")
    if not isinstance(config, Mapping):  # a checkpoint from before fairseq had a structured configuration
        return {key: value for key, value in _group(state, "model").items() if key == "arch"}
    elsewhere = {key for name in config if name != "model" for key in (name, *_group(state, name))} - {"_name"}
    return {key: value for key, value in _group(state, "model").items() if key not in elsewhere}


def _group(state: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of the checkpoint's configuration; of old checkpoints, which have no parts, all of it."""
    config = state.get("cfg")
    group = config.get(name) if isinstance(config, Mapping) else state.get("args")
    if isinstance(group, Namespace):
        return vars(group)
    return group if isinstance(group, Mapping) else {}


def differences(states: Mapping[str, Mapping[str, Any]], ignored_settings: Collection[str] = ()) -> list[str]:
    """Why these checkpoints must not be averaged: each compared with the first; empty when they match.

    Args:
        states: checkpoints by file name.
        ignored_settings: model options that may differ.
    """
    (first_name, first), *others = states.items()
    problems = []
    for name, state in others:
        problems += [f"{name}: {text}" for text in _setting_differences(first_name, first, state, ignored_settings)]
        problems += [f"{name}: {text}" for text in _tensor_differences(first_name, first["model"], state["model"])]
    return problems


def _setting_differences(
    first_name: str, first: Mapping[str, Any], other: Mapping[str, Any], ignored: Collection[str]
) -> list[str]:
    mine, theirs = model_settings(other), model_settings(first)
    absent = object()
    return [
        f"its model has {key}={_shown(mine, key)}, that of {first_name} {key}={_shown(theirs, key)}"
        for key in sorted({*mine, *theirs} - set(ignored))
        if mine.get(key, absent) != theirs.get(key, absent)
    ]


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return repr(settings[key]) if key in settings else "(absent)"


def _tensor_differences(first_name: str, first: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    common = [key for key in first if key in other]
    shaped = [key for key in common if first[key].shape == other[key].shape]
    typed = [key for key in shaped if first[key].dtype == other[key].dtype]
    kinds = {
        f"lacks %d parameters of {first_name}": [key for key in first if key not in other],
        f"has %d parameters that {first_name} lacks": [key for key in other if key not in first],
        f"%d parameters differ in shape from {first_name}": [
            f"{key} {list(other[key].shape)} against {list(first[key].shape)}"
            for key in common
            if key not in set(shaped)
        ],
        f"%d parameters differ in type from {first_name}": [
            f"{key} {other[key].dtype} against {first[key].dtype}" for key in shaped if key not in set(typed)
        ],
        f"%d buffers of whole numbers, which have no average, differ from {first_name}": [
            key for key in typed if not _averaged(first[key]) and not torch.equal(first[key], other[key])
        ],
    }
    return [f"{text % len(found)}: {_some(found)}" for text, found in kinds.items() if found]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED_NAMES]) + (", …" if len(names) > LISTED_NAMES else "")


def _averaged(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def average_models(
    models: Sequence[Mapping[str, Tensor]], on_tensor: Callable[[int], object] = lambda values: None
) -> dict[str, Tensor]:
    """The mean of each parameter, in its own dtype (float32 for halves); sums are taken in float64 and rounded once.

    Besides the result only one parameter at a time is held in float64. Parameters that share memory in all models
    (tied embeddings) share it in the result.

    Args:
        models: same keys, shapes and dtypes; whole numbers equal (see :func:`differences`).
        on_tensor: called with the number of values of each parameter done.
    """
    first = models[0]
    averages: dict[str, Tensor] = {}
    owner: dict[tuple[Any, ...], str] = {}
    for key, tensor in first.items():
        twin = owner.setdefault((tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()), key)
        if twin != key and all(model[key].data_ptr() == model[twin].data_ptr() for model in models):
            averages[key] = averages[twin]
        else:
            averages[key] = _mean([model[key] for model in models])
        on_tensor(tensor.numel())
    return averages


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0]
    if not _averaged(first):
        return first.clone()
    total = first.to(torch.complex128 if first.is_complex() else torch.float64, copy=True)
    for tensor in tensors[1:]:
        total += tensor
    # Half precision would round away part of what averaging gives; loading converts to whatever the model has.
    half = first.dtype in (torch.float16, torch.bfloat16)
    return (total / len(tensors)).to(torch.float32 if half else first.dtype)


def open_checkpoints(
    paths: Sequence[str | Path],
    ignored_settings: Collection[str] = (),
    on_file: Callable[[int], object] = lambda files: None,
) -> dict[str, dict[str, Any]]:
    """The checkpoints by path, each a complete and unaltered file, all of one model; tensors are read when used.

    Args:
        ignored_settings: model options that may differ.
        on_file: called with 1 for each file checked.

    Raises:
        UserError: files that are damaged or no checkpoints, or everything in which the models differ.
    """
    problems, states = [], {}
    for path in paths:
        try:
            check_checkpoint_file(path)
            states[str(path)] = load_lazily(path)
        except UserError as error:
            problems.append(str(error))
        on_file(1)
    raise_all(problems)
    raise_all(differences(states, ignored_settings))
    return states


def average_checkpoints(
    states: Mapping[str, Mapping[str, Any]], on_tensor: Callable[[int], object] = lambda values: None
) -> dict[str, Any]:
    """A checkpoint whose parameters are the mean of those of ``states``; all else is that of the most trained one.

    Left out: the optimizer's state, an exponential moving average, validation results (they are not the average's).
    ``extra_state["averaged_from"]`` lists the sources.

    Args:
        states: what :func:`open_checkpoints` gives.
        on_tensor: called with the number of values of each parameter done.

    Raises:
        UserError: a parameter is NaN.
    """
    average = average_models([state["model"] for state in states.values()], on_tensor)
    raise_all(_not_numbers(average, states))
    infos = {path: checkpoint_info(path, state) for path, state in states.items()}
    latest = states[max(infos, key=lambda path: infos[path].updates)]
    extra = latest.get("extra_state") or {}
    return {
        **{key: value for key, value in latest.items() if key != "last_optimizer_state"},
        "model": average,
        "extra_state": {
            **{key: value for key, value in extra.items() if key not in ("ema", "ema_fp32_params", "best")},
            "val_loss": None,
            "averaged_from": [str(info) for info in infos.values()],
        },
    }


def _not_numbers(average: Mapping[str, Tensor], states: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Which files put NaN into the average."""
    bad = [key for key, tensor in average.items() if _averaged(tensor) and bool(tensor.isnan().any())]
    problems = []
    for name, state in states.items():
        if own := [key for key in bad if bool(state["model"][key].isnan().any())]:
            problems.append(
                f"{name}: {len(own)} parameters hold NaN ({_some(own)}): the training had failed; leave it out"
            )
    if bad and not problems:
        problems.append(f"infinite values of opposite sign in {_some(bad)}: the training had failed")
    return problems

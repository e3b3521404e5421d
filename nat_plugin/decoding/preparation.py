"""Make models ready for decoding, once, when the generator is built: number format, packed weights, compilation."""

import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from nat_plugin.decoding.packing import PackedLinear, can_pack, pack_layers
from nat_plugin.decoding.precision import choose_precision, short_name
from plugin_common.errors import UserError, raise_all

logger = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """What a model has been made ready for, once and for all (``model.prepared``)."""

    dtype: torch.dtype
    device: torch.device
    compiled: bool

    def __str__(self) -> str:
        return f"{short_name(self.dtype)} on {self.device}{', compiled' if self.compiled else ''}"


def prepare_models(models: Sequence[Any], *, precision: str | None, compile: bool) -> None:
    """Convert ``ctc_pmlm`` models in place; they cannot be trained or saved any more.

    Models that are prepared in the same way already are left as they are.

    Args:
        precision: ``fp32``, ``bf16``, ``auto`` or None, see :func:`nat_plugin.decoding.precision.choose_precision`.
        compile: compile the layers with ``torch.compile``, else pack the linear layers where the CPU gains by it.

    Raises:
        UserError: there is no C++ compiler, which ``torch.compile`` needs; a model is prepared in another way, or was
            converted or moved afterwards.
    """
    weight = models[0].masked_lm.weight
    choice = choose_precision(precision, weight.device, models[0].dtype_before or weight.dtype)
    wanted = Prepared(choice.dtype, weight.device, compile)
    raise_all(dict.fromkeys(problem for model in models for problem in _preparation_problems(model, wanted)))
    logger.info("decoding in %s (%s)", str(choice.dtype).removeprefix("torch."), choice.reason)
    if compile:
        require_compiler(weight.device.type)
    for model in models:
        if model.prepared is None:
            _prepare(model, wanted)


def _preparation_problems(model: Any, wanted: Prepared) -> Iterable[str]:
    done, weight = model.prepared, model.masked_lm.weight
    if done is None:
        return
    if done != wanted:
        yield f"the model is prepared for decoding in {done}, not {wanted}; load it again"
    elif weight.dtype != done.dtype:
        yield (
            f"the model is prepared for decoding in {done} and was converted to {short_name(weight.dtype)} afterwards; "
            "load it again"
        )


def _prepare(model: Any, wanted: Prepared) -> None:
    model.dtype_before = model.masked_lm.weight.dtype
    model.eval()
    model.to(wanted.dtype)
    _pack_projection(model)
    if wanted.compiled:
        _compile(model)
    else:
        pack_layers(model.masked_lm.lm)
    model.prepared = wanted


def _pack_projection(model: Any) -> None:
    """The projection's own copy: the unpacked one stays, which a tied embedding and :class:`CtcOutput` need."""
    projection = model.masked_lm
    if model.packed_projection is None and can_pack(projection.weight):
        model.packed_projection = PackedLinear(projection.weight, projection.bias)


def _compile(model: Any) -> None:
    """Compile the Transformer for any number of sentences and positions.

    A batch of one sentence and a single position are cases of their own to torch; the bound on recompilations
    (``torch._dynamo.config.recompile_limit``, 8) is far from reached, and past it the model runs uncompiled.

    It is compiled in the first passes, so the lock files' logger stays quiet from now on.
    """
    logging.getLogger("filelock").setLevel(logging.WARNING)
    options = {"freezing": True} if model.masked_lm.weight.device.type == "cpu" else None
    model.masked_lm.lm.base_model.compile(dynamic=True, options=options)


def require_compiler(device: str) -> None:
    """``torch.compile`` writes C++ for a CPU (and Triton for a GPU, whose launchers are C).

    Raises:
        UserError: neither ``$CXX`` nor g++ or clang++ is there (on a GPU: ``$CC``, gcc or clang).
    """
    variable, names = ("CXX", ("g++", "clang++")) if device == "cpu" else ("CC", ("gcc", "clang"))
    candidates = [os.environ[variable]] if os.environ.get(variable) else list(names)
    if not any(shutil.which(name) for name in candidates):
        raise UserError(
            f"--compile-decoder: torch.compile needs a compiler ({' or '.join(candidates)}), and none is on the PATH; "
            f"install g++, set {variable} to yours, or leave the option out"
        )

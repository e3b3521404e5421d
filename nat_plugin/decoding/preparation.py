"""Make models ready for decoding, once, when the generator is built: number format, packed weights, compilation."""

import logging
import os
import shutil
from typing import Any

from nat_plugin.decoding.packing import PackedLinear, can_pack, pack_layers
from nat_plugin.decoding.precision import choose_precision
from plugin_common.errors import UserError

logger = logging.getLogger(__name__)


def prepare_models(models: list[Any], *, precision: str, compile: bool) -> None:
    """Convert ``ctc_pmlm`` models in place; they cannot be trained or saved any more.

    Args:
        precision: ``fp32``, ``bf16`` or ``auto``, see :func:`nat_plugin.decoding.precision.choose_precision`.
        compile: compile the layers with ``torch.compile``, else pack the linear layers where the CPU gains by it.

    Raises:
        UserError: there is no C++ compiler, which ``torch.compile`` needs.
    """
    weight = models[0].masked_lm.weight
    choice = choose_precision(precision, weight.device, weight.dtype)
    logger.info("decoding in %s (%s)", str(choice.dtype).removeprefix("torch."), choice.reason)
    if compile:
        require_compiler(weight.device.type)
    for model in models:
        model.eval()
        model.to(choice.dtype)
        _pack_projection(model)
        if compile:
            _compile(model)
        else:
            pack_layers(model.masked_lm.lm)


def _pack_projection(model: Any) -> None:
    """The projection's own copy: where it is tied, the embedding goes on needing the unpacked one."""
    projection = model.masked_lm
    if model.packed_projection is None and can_pack(projection.weight):
        model.packed_projection = PackedLinear(projection.weight, projection.bias)


def _compile(model: Any) -> None:
    """Compile the Transformer for any number of sentences and positions.

    A batch of one sentence and a single position are cases of their own to torch; the bound on recompilations
    (``torch._dynamo.config.recompile_limit``, 8) is far from reached, and past it the model runs uncompiled.
    """
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

"""The cure of :mod:`plugin_common.compat` for training in 16 bits: a resumed run equals an uninterrupted one."""

import functools
import logging
from collections.abc import Callable
from typing import Any

from plugin_common.patching import replace_once

logger = logging.getLogger(__name__)

_KEY = "fp32_params"


def save_master_weights() -> None:
    """With ``--fp16`` or ``--bf16`` fairseq updates float32 copies of the parameters, which no checkpoint holds.

    A resumed training starts from the rounded ones: small updates since the last rounding are lost, and no later value
    is what it would have been. Mended, the copies travel with the optimizer's state. (The memory-efficient variants
    have none.)
    """
    from fairseq.optim.fp16_optimizer import _FP16OptimizerMixin

    def make_state_dict(state_dict: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(state_dict)
        def with_copies(self: Any) -> dict[str, Any]:
            # A shallow copy: torch's own dictionary is not to hold what its optimizer does not know.
            return {**state_dict(self), _KEY: [copy.detach() for copy in _copies(self)]}

        return with_copies

    def make_load(load: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(load)
        def with_copies(self: Any, state_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            load(self, {name: value for name, value in state_dict.items() if name != _KEY}, *args, **kwargs)
            _restore(self, state_dict.get(_KEY))

        return with_copies

    replace_once(_FP16OptimizerMixin, "state_dict", make_state_dict)
    replace_once(_FP16OptimizerMixin, "load_state_dict", make_load)


def _copies(optimizer: Any) -> list[Any]:
    """The float32 copies: one for each parameter, or flat ones by device."""
    copies = optimizer.fp32_params
    return list(copies.values()) if isinstance(copies, dict) else list(copies)


def _restore(optimizer: Any, saved: list[Any] | None) -> None:
    """Take the saved copies over, if they are those of the parameters that were loaded."""
    import torch

    if saved is None:
        logger.info("the checkpoint has no float32 copies of its parameters; training goes on from the rounded ones")
        return
    copies = _copies(optimizer)
    dtype = optimizer.fp16_params[0].dtype
    fits = len(saved) == len(copies) and all(
        mine.shape == other.shape and torch.equal(mine.to(dtype), other.to(mine.device, dtype))
        for mine, other in zip(copies, saved, strict=True)
    )
    if not fits:
        logger.warning(
            "the checkpoint's float32 copies are not those of its parameters; training goes on from the latter"
        )
        return
    with torch.no_grad():
        for mine, other in zip(copies, saved, strict=True):
            mine.copy_(other)

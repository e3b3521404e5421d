"""In which number format to decode, and why."""

from collections.abc import Callable
from typing import NamedTuple

import torch


class Choice(NamedTuple):
    """A format and the reason for it, which goes into the log."""

    dtype: torch.dtype
    reason: str


def choose_precision(wanted: str | None, device: torch.device, present: torch.dtype) -> Choice:
    """The format for ``--decode-precision`` ``fp32``, ``bf16`` or ``auto``; None where nobody asked for one.

    Args:
        device: where the model is; present: the format that it has (float16 if fairseq's ``--fp16`` or ``model.half()``
            made it so, which then stays; bfloat16 after ``model.bfloat16()``, which stays where nobody asked for more).
    """
    if present == torch.float16:
        return Choice(torch.float16, "--fp16")
    if wanted is None and present == torch.bfloat16:
        return Choice(torch.bfloat16, "the model's own")
    if wanted is None:
        return Choice(torch.float32, "default")
    if wanted == "fp32":
        return Choice(torch.float32, "--decode-precision fp32")
    fast, what = bf16_support(device)
    if wanted == "auto":
        return Choice(torch.bfloat16 if fast else torch.float32, f"--decode-precision auto: {what}")
    return Choice(torch.bfloat16, "--decode-precision bf16" if fast else f"asked for, though {what}; expect it slow")


def short_name(dtype: torch.dtype) -> str:
    """As options call it: ``fp32``, ``fp16``, ``bf16``; others as torch does."""
    own = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
    return own.get(dtype, str(dtype).removeprefix("torch."))


def bf16_support(device: torch.device) -> tuple[bool, str]:
    """Whether the device multiplies bfloat16 matrices by itself, and how one says so."""
    if device.type == "cuda":
        # Not torch.cuda.is_bf16_supported(), which also counts GPUs that emulate it.
        major, minor = torch.cuda.get_device_capability(device)
        fast = torch.version.hip is not None or major >= 8
        return fast, f"the GPU (compute capability {major}.{minor}) {'has' if fast else 'lacks'} bfloat16"
    if device.type == "cpu":
        found = [name for name, has in _CPU_INSTRUCTIONS.items() if has()]
        return bool(found), f"the CPU has {' and '.join(found)}" if found else "the CPU lacks AVX512-BF16 and AMX"
    return False, f"{device.type} devices are not known to be faster in bfloat16"


def _asks_torch(name: str) -> Callable[[], bool]:
    """A question to torch about the processor; its names are private and a version may lack one."""
    return lambda: bool(getattr(torch.cpu, name, lambda: False)())


_CPU_INSTRUCTIONS = {
    "AVX512-BF16": _asks_torch("_is_avx512_bf16_supported"),
    "AMX": _asks_torch("_is_amx_tile_supported"),
}

"""Matrix products on a CPU by whichever of torch's two libraries is faster there.

torch computes float32 products with MKL, which uses half-width vector instructions on processors of other makers than
its own. oneDNN, which torch brings along too, uses the full width (AVX-512) on all of them; ``torch.compile`` reaches
it through the operator called here. Both work in IEEE float32 and sum in a different order.
"""

import torch
from torch import Tensor

# Below this many multiplications the choice of library does not matter.
_WORTHWHILE = 1 << 24
# Results are made in tiles of about this many elements: 16 MiB, which the C library hands out again and again, where
# larger memory comes from the kernel anew each time, page by page.
_TILE_ELEMENTS = 1 << 22
_TRANSPOSED_COLUMNS = 1 << 15


def linear_into(out: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``out[n, v] = inputs @ weight.T + bias``, for ``inputs [n, D]``, ``weight [V, D]`` and ``bias [V]`` or None."""
    if not _prefers_onednn(inputs, weight):
        if bias is None:
            return torch.mm(inputs, weight.t(), out=out)
        return torch.addmm(bias, inputs, weight.t(), out=out)
    columns = max(64, _TILE_ELEMENTS // inputs.size(0))
    for start in range(0, weight.size(0), columns):
        tile = slice(start, start + columns)
        out[:, tile] = _onednn(inputs, weight[tile], None if bias is None else bias[tile])
    return out


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``inputs [N, D] @ weight.T + bias`` for ``weight [V, D]`` and ``bias [V]`` or None; ``[N, V]`` not too large."""
    if _prefers_onednn(inputs, weight):
        return _onednn(inputs, weight, bias)
    return torch.nn.functional.linear(inputs, weight, bias)


def product(left: Tensor, right: Tensor) -> Tensor:
    """``left [n, m] @ right [m, k]``."""
    return _onednn(left, right.t(), None) if _prefers_onednn(left, right) else left @ right


def transposed_product(left: Tensor, right: Tensor) -> Tensor:
    """``left.T @ right`` for ``left [n, m]`` and ``right [n, k]``, on a CPU some columns of ``left`` at a time.

    A library that turns a transposed matrix round in memory first then needs no room for all of it.
    """
    columns = _TRANSPOSED_COLUMNS if left.device.type == "cpu" else max(1, left.size(1))
    out = right.new_empty(left.size(1), right.size(1))
    for start in range(0, left.size(1), columns):
        tile = slice(start, start + columns)
        torch.mm(left[:, tile].t(), right, out=out[tile])
    return out


def _prefers_onednn(left: Tensor, right: Tensor) -> bool:
    return (
        uses_onednn()
        and left.device.type == "cpu"
        and left.dtype == right.dtype == torch.float32
        and left.size(0) * right.numel() >= _WORTHWHILE
        # Other layouts end in oneDNN's plain reference loops.
        and left.is_contiguous()
        and right.is_contiguous()
    )


def _onednn(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")


def _onednn_is_faster() -> bool:
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    full_width = "AVX512" in str(torch.backends.cpu.get_cpu_capability())
    return operator is not None and torch.backends.mkldnn.is_available() and full_width


_ONEDNN_IS_FASTER = _onednn_is_faster()


def uses_onednn() -> bool:
    """Whether large float32 products on the CPU go through oneDNN.

    They do where torch has it with full-width vectors, unless it is switched off: ``torch.backends.mkldnn.flags``.
    """
    return _ONEDNN_IS_FASTER and bool(torch.backends.mkldnn.enabled)

"""Several small tensors as one, so that they come from the device to the host in one copy."""

from collections.abc import Sequence

import torch
from torch import Tensor


def join(parts: Sequence[Tensor]) -> Tensor:
    """``[B, n]`` int32 of tensors whose first axis is B: integers under 2^31 as they are, float32 bit by bit."""
    columns = [part.contiguous().view(torch.int32) if part.is_floating_point() else part.int() for part in parts]
    return torch.cat([part.reshape(part.size(0), -1) for part in columns], dim=1)


def split(joined: Tensor, shapes: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> list[Tensor]:
    """The tensors that :func:`join` took, as new ones of the same values.

    Args:
        shapes: for each part its shape without the first axis, and its type (float32 or an integer type).
    """
    parts, start = [], 0
    for shape, dtype in shapes:
        width = torch.Size(shape).numel()
        own = joined[:, start : start + width].clone(memory_format=torch.contiguous_format)
        own = own.view(torch.float32) if dtype.is_floating_point else own.to(dtype)
        parts.append(own.view(joined.size(0), *shape))
        start += width
    return parts

"""Tensors split by rows over the processes of a group (torch's ``DTensor``, as FSDP2 makes them). Knows no fairseq."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard


def is_sharded(value: Any) -> TypeGuard[DTensor]:
    """Whether a value is split over processes."""
    return isinstance(value, DTensor)


def rows_of(rank: int, processes: int, rows: int) -> slice:
    """The rows that a process holds: blocks of ⌈rows / processes⌉, the last ones shorter or empty."""
    block = -(-rows // processes)
    start = min(rank * block, rows)
    return slice(start, min(start + block, rows))


def own_rows(like: DTensor) -> slice:
    """The rows of ``like`` that this process holds.

    Raises:
        ValueError: it is not split by rows over one group of processes.
    """
    mesh = like.device_mesh
    if mesh.ndim != 1 or like.placements != (Shard(0),):
        raise ValueError(f"expected a tensor split by rows over one group, found {like.placements} on {mesh}")
    return rows_of(mesh.get_local_rank(), mesh.size(), like.shape[0])


def from_own_rows(like: DTensor, rows: Tensor) -> DTensor:
    """A tensor split as ``like`` is, of which this process gives its own rows. No communication."""
    return DTensor.from_local(
        rows, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def shard_like(like: DTensor, whole: Tensor) -> DTensor:
    """``whole``, which every process has, split as ``like`` is; on that device, in ``whole``'s precision.

    No communication; of a tensor that is mapped from a file only the own rows are read.
    """
    rows = whole[own_rows(like)]
    return from_own_rows(like, rows.to(like.device_mesh.device_type, copy=True).contiguous())


@torch.no_grad()
def gathered(value: Any, *, keep: bool) -> Any:
    """A copy of nested dictionaries and lists with whole tensors, on the CPU, where there were split ones.

    All processes must call it with the same structure: tensors are gathered one at a time. Where ``keep`` is False
    tensors become None, so that one process alone needs the room for all.
    """
    if isinstance(value, dict):
        return type(value)((name, gathered(item, keep=keep)) for name, item in value.items())
    if isinstance(value, list | tuple):
        return type(value)(gathered(item, keep=keep) for item in value)
    if not isinstance(value, Tensor):
        return value
    whole = value.full_tensor() if is_sharded(value) else value
    return whole.detach().cpu() if keep else None


def local(tensor: Tensor) -> Tensor:
    """This process's rows of a split tensor, which share its memory; any other tensor as it is."""
    return (tensor.to_local() if is_sharded(tensor) else tensor).detach()


@torch.no_grad()
def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm ``[]`` over all values of tensors that are split over one group; float32, equal everywhere."""
    first = next(tensor for tensor in tensors if is_sharded(tensor))
    squares = _sum_of_squares(local(tensor) for tensor in tensors if is_sharded(tensor))
    torch.distributed.all_reduce(squares, group=first.device_mesh.get_group())
    replicated = [tensor for tensor in tensors if not is_sharded(tensor)]
    if replicated:
        squares += _sum_of_squares(replicated)
    return squares.sqrt().float()


def _sum_of_squares(tensors: Iterable[Tensor]) -> Tensor:
    norms = [torch.linalg.vector_norm(tensor, dtype=torch.float32) for tensor in tensors]
    return torch.stack(norms).double().square().sum()

"""One process of a group whose others do not exist: for what needs to know its place, and sends nothing."""

import contextlib
from collections.abc import Iterator

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh


@contextlib.contextmanager
def member(rank: int, processes: int) -> Iterator[DeviceMesh]:
    """Within the block this is process ``rank``; the group as a mesh."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=rank, world_size=processes, store=FakeStore())
    try:
        yield init_device_mesh("cpu", (processes,))
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def alone() -> Iterator[DeviceMesh]:
    """Within the block this is the only process of a real group."""
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()

"""Rows of tensors over processes; that the parts make up the whole is tested by whole trainings, too."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from plugin_common.sharded_tensors import gathered, local, own_rows, rows_of, shard_like, total_norm
from tests.process_group import alone, member


@given(st.integers(1, 40), st.integers(0, 200))
def test_rows_are_split_as_torch_chunks_them(processes: int, rows: int) -> None:
    parts = [rows_of(rank, processes, rows) for rank in range(processes)]
    assert parts[0].start == 0 and parts[-1].stop == rows
    assert all(one.stop == other.start for one, other in pairwise(parts))
    chunks = [len(chunk) for chunk in torch.arange(rows).chunk(processes)] if rows else []
    assert [part.stop - part.start for part in parts if part.stop > part.start] == chunks


@pytest.mark.parametrize("rows", [7, 8, 2])  # uneven; even; fewer than processes
@pytest.mark.parametrize("rank", [0, 2, 3])
def test_a_process_takes_its_rows_of_a_whole_tensor(rank: int, rows: int) -> None:
    whole = torch.arange(3.0 * rows).view(rows, 3)
    with member(rank, 4) as mesh:
        expected = distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None)
        found = shard_like(expected, whole.bfloat16())
        assert torch.equal(found.to_local(), expected.to_local().bfloat16())
        assert found.shape == whole.shape
        assert found.placements == expected.placements
        assert torch.equal(whole[own_rows(expected)], expected.to_local())


def test_the_rows_are_a_copy() -> None:
    whole = torch.zeros(4, 2)
    with member(1, 2) as mesh:
        part = shard_like(distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None), whole)
        part.to_local().fill_(1)
    assert not whole.any()


def test_another_way_of_splitting_is_refused() -> None:
    with member(0, 2) as mesh:
        tensor = distribute_tensor(torch.zeros(4, 2), mesh, [Replicate()], src_data_rank=None)
        with pytest.raises(ValueError, match="split by rows"):
            own_rows(tensor)


def _split(mesh: object, whole: torch.Tensor) -> DTensor:
    return distribute_tensor(whole, mesh, [Shard(0)])  # type: ignore[arg-type]


def test_gathering_keeps_the_structure() -> None:
    whole = torch.randn(4, 3)
    with alone() as mesh:
        state = {
            "state": {0: {"exp_avg": _split(mesh, whole), "step": torch.tensor(3.0)}},
            "groups": [{"lr": 0.1}],
            "n": (1,),
        }
        kept, dropped = gathered(state, keep=True), gathered(state, keep=False)
    assert torch.equal(kept["state"][0]["exp_avg"], whole)
    assert type(kept["state"][0]["exp_avg"]) is torch.Tensor
    assert kept["state"][0]["step"] == 3.0
    assert (kept["groups"], kept["n"]) == ([{"lr": 0.1}], (1,))
    assert dropped["state"][0] == {"exp_avg": None, "step": None}
    assert dropped["groups"] == [{"lr": 0.1}]


def test_the_norm_is_that_of_all_values() -> None:
    one, other = torch.randn(5, 3), torch.randn(4)
    with alone() as mesh:
        found = total_norm([_split(mesh, one), _split(mesh, other)])
    assert type(found) is torch.Tensor and found.dtype == torch.float32
    assert float(found) == pytest.approx(float(torch.cat([one.flatten(), other]).norm()), rel=1e-6)


def test_local_rows_share_memory() -> None:
    with alone() as mesh:
        tensor = _split(mesh, torch.ones(3, 2).requires_grad_())
        local(tensor).mul_(5)
        assert torch.equal(tensor.full_tensor().detach(), torch.full((3, 2), 5.0))

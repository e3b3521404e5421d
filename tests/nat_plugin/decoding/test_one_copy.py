import torch
from hypothesis import given
from hypothesis import strategies as st

from nat_plugin.decoding.one_copy import join, split

shapes = st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=2), st.booleans()), min_size=1, max_size=4)


@given(rows=st.integers(1, 4), parts=shapes, seed=st.integers(0, 99))
def test_what_was_joined_comes_back(rows: int, parts: list[tuple[list[int], bool]], seed: int) -> None:
    torch.manual_seed(seed)
    given_parts = [
        torch.randn(rows, *shape) if real else torch.randint(-(2**31), 2**31, (rows, *shape)) for shape, real in parts
    ]
    with torch.inference_mode():
        joined = join(given_parts)
    found = split(joined, [(tuple(shape), part.dtype) for (shape, _), part in zip(parts, given_parts, strict=True)])
    for one, other in zip(found, given_parts, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
        one.add_(1)  # it is no inference tensor and no view of the joined one

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nid_plugin.causal_lm import blocked_attention as module
from nid_plugin.causal_lm.blocked_attention import blocked_attention


def reference(query, key, value, lengths, *, scale, window=None):
    """torch's attention under a mask over the whole row."""
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = torch.arange(len(document))
    back = place[:, None] - place
    mask = (document[:, None] == document) & (back >= 0)
    if window is not None:
        mask &= back < window
    shared = query.size(0) // key.size(0)
    key, value = (part.repeat_interleave(shared, dim=0) for part in (key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale).transpose(0, 1)


def states(heads, groups, tokens, width, dtype=torch.float64):
    """As a model gives them: views of rows ``[N, H D]``."""
    generator = torch.Generator().manual_seed(tokens)

    def rows(count):
        return torch.randn(tokens, count, width, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    return rows(heads), rows(groups), rows(groups)


def both(inputs, lengths, **options):
    views = [part.transpose(0, 1) for part in inputs]
    return blocked_attention(*views, lengths, **options), reference(*views, lengths, **options)


def assert_same(inputs, lengths, tolerance, **options):
    ours, expected = both(inputs, lengths, **options)
    torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance)
    upstream = torch.randn(expected.shape, dtype=torch.float64).to(expected.dtype)
    for mine, theirs in zip(
        torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("window", [None, 1, 3, 40, 1000])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2), (3, 1)])
def test_documents_of_all_lengths(heads, groups, window):
    lengths = [1, 2, 7, 61, 1, 33]
    assert_same(states(heads, groups, sum(lengths), 8), lengths, 1e-12, scale=0.3, window=window)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 23), min_size=1, max_size=5),
    st.one_of(st.none(), st.integers(1, 30)),
    st.integers(1, 9),
)
def test_any_size_of_blocks(lengths, window, size):
    kept = module._BLOCK
    module._BLOCK = size
    try:
        assert_same(states(4, 2, sum(lengths), 4), lengths, 1e-12, scale=0.5, window=window)
    finally:
        module._BLOCK = kept


def test_float32_in_several_blocks():
    lengths = [400, 170]
    assert_same(states(4, 2, sum(lengths), 16, torch.float32), lengths, 2e-5, scale=0.25)


def test_bfloat16_is_as_near_to_the_exact_value_as_torchs_own():
    lengths = [300, 90]
    inputs = states(6, 2, sum(lengths), 32, torch.bfloat16)
    exact = [part.detach().double().requires_grad_() for part in inputs]
    ours, torchs = both(inputs, lengths, scale=32**-0.5)
    expected = reference(*(part.transpose(0, 1) for part in exact), lengths, scale=32**-0.5)
    upstream = torch.randn(expected.shape).bfloat16()
    columns = [
        (value, *torch.autograd.grad(value, leaves, upstream.to(value.dtype)))
        for value, leaves in ((ours, inputs), (torchs, inputs), (expected, exact))
    ]
    for mine, theirs, right in zip(*columns, strict=True):
        assert mine.dtype == torch.bfloat16

        def error(value, right=right):
            return float((value.double() - right).norm() / right.norm())

        assert error(mine) < max(2.5 * error(theirs), 0.006)


def test_a_document_does_not_see_another():
    lengths = [5, 8]
    query, key, value = (part.detach() for part in states(2, 2, 13, 4))
    whole = blocked_attention(*(part.transpose(0, 1) for part in (query, key, value)), lengths, scale=1.0)
    changed = [part.clone() for part in (query, key, value)]
    for part in changed:
        part[:5] += 100.0
    other = blocked_attention(*(part.transpose(0, 1) for part in changed), lengths, scale=1.0)
    assert torch.equal(whole[5:], other[5:])
    assert not torch.equal(whole[:5], other[:5])


def test_gradients_by_differences():
    inputs = states(2, 1, 6, 3)
    assert torch.autograd.gradcheck(
        lambda *parts: blocked_attention(*(part.transpose(0, 1) for part in parts), [2, 4], scale=0.7, window=3), inputs
    )

"""Products through either library are the same numbers up to fp32 rounding."""

import pytest
import torch

from plugin_common.cpu_matmul import linear, linear_into, product, transposed_product, uses_onednn


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("n", "d", "v"), [(3, 4, 5), (0, 4, 5), (70, 64, 4000), (200, 32, 70_001)])
def test_linear_into(dtype, bias, n, d, v):
    inputs, weight = torch.randn(n, d).to(dtype), torch.randn(v, d).to(dtype)
    b = torch.randn(v).to(dtype) if bias else None
    out = torch.full((n, v), torch.nan, dtype=dtype)
    assert linear_into(out, inputs, weight, b) is out
    expected = torch.nn.functional.linear(inputs.double(), weight.double(), None if b is None else b.double())
    close = {"rtol": 8 * torch.finfo(dtype).eps, "atol": 64 * torch.finfo(dtype).eps}
    torch.testing.assert_close(out.double(), expected, **close)
    torch.testing.assert_close(linear(inputs, weight, b).double(), expected, **close)


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize(("n", "m", "k"), [(3, 4, 5), (60, 4000, 128)])
def test_product(n, m, k, transposed):
    left = torch.randn(m, n).t() if transposed else torch.randn(n, m)
    right = torch.randn(m, k)
    expected = (left.double() @ right.double()).float()
    torch.testing.assert_close(product(left, right), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("n", "m", "k"), [(3, 4, 5), (0, 4, 5), (7, 70_001, 6)])
def test_transposed_product(dtype, n, m, k):
    left, right = torch.randn(n, m).to(dtype), torch.randn(n, k).to(dtype)
    close = {"rtol": 8 * torch.finfo(dtype).eps, "atol": 64 * torch.finfo(dtype).eps}
    torch.testing.assert_close(transposed_product(left, right).double(), left.double().t() @ right.double(), **close)


def test_torchs_switch_for_onednn_is_obeyed(monkeypatch):
    if not uses_onednn():
        pytest.skip("oneDNN is not the faster one here")
    inputs, weight = torch.randn(100, 64), torch.randn(4000, 64)
    expected = torch.mm(inputs, weight.t())
    torch._C._set_mkldnn_enabled(False)
    try:
        assert not uses_onednn()
        assert torch.equal(linear_into(torch.empty(100, 4000), inputs, weight, None), expected)
    finally:
        torch._C._set_mkldnn_enabled(True)

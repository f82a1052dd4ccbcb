from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from neurostorm_bids.model import operations
from neurostorm_bids.model.operations import multiply


@pytest.fixture
def forget_product():
    operations._find_onednn_product.cache_clear()
    yield
    operations._find_onednn_product.cache_clear()


@pytest.mark.parametrize("bias", [None, torch.randn(5)])
@pytest.mark.parametrize(
    "x",
    [
        torch.randn(3, 7),
        torch.randn(2, 3, 4, 7),
        torch.randn(7, 6).t(),
        torch.randn(6, 4, 20)[..., 3:10],
        torch.randn(6, 4, 7).transpose(0, 1),
        torch.randn(0, 7),
    ],
    ids=["matrix", "4d", "transposed", "part", "permuted", "empty"],
)
def test_products_equal_those_of_pytorch(x, bias):
    weight = torch.randn(5, 7)
    with torch.no_grad():
        found = multiply(x, weight, bias)
    torch.testing.assert_close(found, functional.linear(x, weight, bias))


def test_products_are_differentiable():
    x, weight = (torch.randn(4, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(multiply, (x, weight))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_left_to_pytorch(dtype):
    x, weight = torch.randn(3, 7, dtype=dtype), torch.randn(5, 7, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(multiply(x, weight), functional.linear(x, weight))


def test_autocast_is_honoured():
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert multiply(torch.randn(3, 7), torch.randn(5, 7)).dtype == torch.bfloat16


@pytest.mark.usefixtures("forget_product")
def test_a_pytorch_without_onednn_computes_the_same(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    x, weight = torch.randn(3, 7), torch.randn(5, 7)
    with torch.no_grad():
        assert operations._find_onednn_product() is None
        assert torch.equal(multiply(x, weight), functional.linear(x, weight))

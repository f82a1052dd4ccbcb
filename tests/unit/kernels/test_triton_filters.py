from __future__ import annotations

import os

import pytest
import torch
from torch.nn import functional

pytest.importorskip("triton", reason="Triton is not installed")
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not (IS_INTERPRETED or torch.cuda.is_available()):
    pytest.skip(
        "no GPU here; test_triton.py runs this file in Triton's interpreter",
        allow_module_level=True,
    )

from neurostorm_bids.kernels.triton.filters import SIZES, filter_causally

DEVICE = torch.device("cpu" if IS_INTERPRETED else "cuda")
pytestmark = pytest.mark.usefixtures("poison")


def measure_error(found, exact):
    """Return the relative error; NaN if anything is."""
    return float((found.detach().double() - exact.detach()).norm() / exact.detach().norm())


@pytest.mark.parametrize(
    ("b", "n_tokens", "d", "taps", "dtype"),
    [
        (3, SIZES["rows"] // 3 + 1, 36, 4, torch.float32),
        (2, 6, 72, 3, torch.float32),
        (1, 2, 5, 4, torch.float32),
        (2, SIZES["rows"], 9, 1, torch.float32),
        (3, 11, 40, 4, torch.bfloat16),
    ],
)
def test_the_filter_equals_a_convolution(b, n_tokens, d, taps, dtype):
    given = [
        torch.randn(b, n_tokens, 2 * d, device=DEVICE).to(dtype),
        torch.randn(d, 1, taps, device=DEVICE),
        torch.randn(d, device=DEVICE),
    ]
    x, weight, bias = (part.requires_grad_() for part in given)
    y = filter_causally(x[..., :d], weight, bias)
    grad = torch.randn_like(y)
    found = torch.autograd.grad(y, given, grad)
    doubled = [part.detach().double().requires_grad_() for part in given]
    padded = functional.pad(doubled[0][..., :d].mT, (taps - 1, 0))
    exact = functional.silu(functional.conv1d(padded, *doubled[1:], groups=d)).mT
    expected = torch.autograd.grad(exact, doubled, grad.double())
    bound = 1e-5 if dtype == torch.float32 else 2e-2
    assert y.dtype == torch.float32
    assert measure_error(y, exact) <= bound
    for one, other in zip(found, expected, strict=True):
        assert measure_error(one, other) <= bound


def test_no_tokens_give_no_output():
    weight = torch.randn(5, 1, 4, device=DEVICE, requires_grad=True)
    y = filter_causally(torch.zeros(2, 0, 5, device=DEVICE), weight, weight[:, 0, 0])
    assert y.shape == (2, 0, 5)
    assert not torch.autograd.grad(y.sum(), weight)[0].any()

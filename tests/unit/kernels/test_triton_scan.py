from __future__ import annotations

import os

import pytest
import torch

from neurostorm_bids.model.scan import selective_scan_ref
from neurostorm_bids.model.trial import (
    TOLERANCES,
    find_triton_scan,
    measure_block_error,
    measure_scan_error,
)

pytest.importorskip("triton", reason="Triton is not installed")
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not (IS_INTERPRETED or torch.cuda.is_available()):
    pytest.skip(
        "no GPU here; test_triton.py runs this file in Triton's interpreter",
        allow_module_level=True,
    )

from neurostorm_bids.kernels.triton.scan import TILE, selective_scan_triton

DEVICE = torch.device("cpu" if IS_INTERPRETED else "cuda")
pytestmark = pytest.mark.usefixtures("poison")
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def draw(b=2, d=36, n_tokens=6, n=16, *, dtype=torch.float32, **changed):
    """Return the scan's arguments; u has tokens first in memory, as a Mamba layer gives it."""
    wide, narrow = (b, d, n_tokens), (b, n, n_tokens)
    drawn = {
        "u": torch.randn(n_tokens, b, d).permute(1, 2, 0).to(dtype),
        "delta": torch.randn(wide).to(dtype),
        "A": -torch.randn(d, n).exp(),
        "B": torch.randn(narrow).to(dtype),
        "C": torch.randn(narrow).to(dtype),
        "D": torch.randn(d),
        "z": torch.randn(wide).to(dtype),
        "delta_bias": torch.randn(d) - 3,
        **changed,
    }
    return {k: None if x is None else x.to(DEVICE).requires_grad_() for k, x in drawn.items()}


def measure_error(found, exact):
    """Return the relative error; NaN if anything is."""
    return float((found.detach().double() - exact.detach()).norm() / exact.detach().norm())


def assert_as_exact(drawn, *, softplus=True, bound=1e-5):
    y = selective_scan_triton(**drawn, delta_softplus=softplus)
    with torch.no_grad():
        assert torch.equal(selective_scan_triton(**drawn, delta_softplus=softplus), y)
    given = {k: x for k, x in drawn.items() if x is not None}
    doubled = {k: x.detach().double().requires_grad_() for k, x in given.items()}
    exact = selective_scan_ref(**doubled, delta_softplus=softplus)
    assert measure_error(y, exact) <= bound
    grad = torch.randn_like(y)
    found = torch.autograd.grad(y, list(given.values()), grad)
    expected = torch.autograd.grad(exact, list(doubled.values()), grad.double())
    for name, one, other in zip(given, found, expected, strict=True):
        assert one.dtype == given[name].dtype
        assert measure_error(one, other) <= bound, name


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize(
    ("b", "d", "n_tokens"),
    [(3, 36, 6), (1, 72, TILE), (1, 33, 2 * TILE + 3), (1, 9, 2)],
)
def test_the_scan_equals_the_reference(b, d, n_tokens, dtype):
    assert_as_exact(draw(b, d, n_tokens, dtype=dtype), bound=BOUNDS[dtype])


@pytest.mark.parametrize("n", [1, 5])
def test_any_number_of_states_equals_the_reference(n):
    assert_as_exact(draw(1, n=n))


@pytest.mark.parametrize("absent", ["D", "z", "delta_bias"])
def test_what_is_optional_can_be_left_out(absent):
    assert_as_exact(draw(**{absent: None}))


def test_steps_can_be_given_as_they_are():
    assert_as_exact(draw(delta=torch.rand(2, 36, 6), delta_bias=None), softplus=False)


@pytest.mark.parametrize("offset", [-20.0, -8.0, 60.0])
def test_steps_of_any_size_equal_the_reference(offset):
    rates = -torch.rand(36, 16) if offset < 0 else -torch.randn(36, 16).exp()
    assert_as_exact(draw(delta_bias=torch.randn(36) + offset, A=rates))


def test_rates_of_any_size_equal_the_reference():
    scale = torch.logspace(-12, 6, 16)
    assert_as_exact(draw(A=-torch.rand(36, 16) * scale))


def test_views_with_channels_apart_are_read_as_they_stand():
    drawn = draw()
    apart = {
        k: x.detach().contiguous().requires_grad_() if k in {"u", "z"} else x
        for k, x in drawn.items()
    }
    found, expected = (selective_scan_triton(**x, delta_softplus=True) for x in (apart, drawn))
    assert torch.equal(found, expected)


def test_no_tokens_give_no_output():
    drawn = draw(n_tokens=0)
    y = selective_scan_triton(**drawn)
    assert y.shape == (2, 36, 0)
    assert not torch.autograd.grad(y.sum(), drawn["A"])[0].any()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"B": torch.zeros(2, 15, 6)}, r"B to be \(2, 16, 6\)"),
        ({"D": torch.zeros(35)}, r"D to be \(36,\)"),
        ({"z": torch.zeros(2, 36, 6, dtype=torch.float64)}, "z in float32 or half precision"),
    ],
)
def test_what_would_be_read_past_its_end_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        selective_scan_triton(**draw(**changed))


def test_a_trial_tells_a_right_scan_from_a_wrong_one():
    scan, _ = find_triton_scan()
    assert scan is selective_scan_triton
    before = torch.get_rng_state()
    with torch.inference_mode():
        assert measure_scan_error(scan, DEVICE) < TOLERANCES[torch.float32] / 10
    assert torch.equal(torch.get_rng_state(), before)

    def wrong(u, *arguments, **options):
        return scan(u, *arguments, **options) + 1e-3 * u

    assert measure_scan_error(wrong, DEVICE) > TOLERANCES[torch.float32]


def test_a_trial_finds_blocks_right():
    before = torch.get_rng_state()
    with torch.inference_mode():
        for dtype, tolerance in TOLERANCES.items():
            assert measure_block_error(DEVICE, dtype) < tolerance / 3
    assert torch.equal(torch.get_rng_state(), before)

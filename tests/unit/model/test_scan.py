from __future__ import annotations

import pytest
import torch

from neurostorm_bids.model import recurrence
from neurostorm_bids.model.scan import selective_scan_ref, selective_scan_torch


def make_arguments(n_sequences, n_channels, n_tokens, *, n_states=4, dtype=torch.float64, seed=0):
    """Draw all arguments of a scan; each asks for its gradient."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.to(dtype).requires_grad_()

    return {
        "u": draw(n_sequences, n_channels, n_tokens),
        "delta": draw(n_sequences, n_channels, n_tokens),
        "A": draw(n_channels, n_states).detach().exp().neg().requires_grad_(),
        "B": draw(n_sequences, n_states, n_tokens),
        "C": draw(n_sequences, n_states, n_tokens),
        "D": draw(n_channels),
        "z": draw(n_sequences, n_channels, n_tokens),
        "delta_bias": draw(n_channels),
    }


def differentiate(scan, arguments):
    """Return a scan's output and the gradients of a weighted sum of it."""
    y = scan(**arguments, delta_softplus=True)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return y, torch.autograd.grad((y * weights).sum(), list(arguments.values()))


def write_out(u, delta, A, B, C):
    """Run the formula of the module's docstring, number by number."""
    y = torch.zeros_like(u)
    for b in range(u.shape[0]):
        for d in range(u.shape[1]):
            h = torch.zeros_like(A[d])
            for t in range(u.shape[2]):
                h = torch.exp(delta[b, d, t] * A[d]) * h + delta[b, d, t] * B[b, :, t] * u[b, d, t]
                y[b, d, t] = C[b, :, t] @ h
    return y


def test_the_reference_computes_the_formula():
    arguments = make_arguments(2, 3, 5)
    with torch.no_grad():
        inputs = {name: arguments[name] for name in ("u", "B", "C")}
        inputs |= {"delta": arguments["delta"].abs(), "A": -arguments["A"].abs()}
        torch.testing.assert_close(selective_scan_ref(**inputs), write_out(**inputs))


@pytest.mark.parametrize("n_tokens", [1, 2, recurrence.TILE, recurrence.TILE + 1, 40])
def test_fast_equals_reference_with_all_gradients(n_tokens):
    arguments = make_arguments(3, 5, n_tokens)
    y, grads = differentiate(selective_scan_torch, arguments)
    expected, expected_grads = differentiate(selective_scan_ref, arguments)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    for name, grad, expected_grad in zip(arguments, grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-10, atol=1e-10, msg=name)


def test_blocks_of_sequences_change_nothing(monkeypatch):
    arguments = make_arguments(7, 5, 21)
    whole = differentiate(selective_scan_torch, arguments)
    monkeypatch.setattr(recurrence, "BLOCK_VALUES", 2 * recurrence.TILE * 5 * 4)
    blocks = differentiate(selective_scan_torch, arguments)
    torch.testing.assert_close(blocks, whole, rtol=1e-12, atol=1e-12)


def test_without_gradients_the_result_is_the_same():
    arguments = make_arguments(3, 5, 21, dtype=torch.float32)
    y = selective_scan_torch(**arguments, delta_softplus=True)
    with torch.no_grad():
        assert torch.equal(selective_scan_torch(**arguments, delta_softplus=True), y)


def test_gradients_agree_with_finite_differences():
    arguments = make_arguments(2, 2, recurrence.TILE + 2, n_states=2)

    def scan(*values):
        named = dict(zip(arguments, values, strict=True))
        return selective_scan_torch(**named, delta_softplus=True)

    assert torch.autograd.gradcheck(scan, tuple(arguments.values()))


@pytest.mark.parametrize("left_out", ["D", "z", "delta_bias"])
def test_arguments_may_be_left_out(left_out):
    arguments = make_arguments(2, 3, 9)
    del arguments[left_out]
    with torch.no_grad():
        y = selective_scan_torch(**arguments, delta_softplus=True)
        torch.testing.assert_close(y, selective_scan_ref(**arguments, delta_softplus=True))


@pytest.mark.parametrize("rate", [-1e6, -1e-6, 0.0, 0.5])
def test_any_rate_is_exact_and_finite(rate):
    arguments = {k: v.detach() for k, v in make_arguments(2, 3, 33, dtype=torch.float32).items()}
    arguments["A"] = torch.full_like(arguments["A"], rate)
    y = selective_scan_torch(**arguments, delta_softplus=True)
    exact = selective_scan_ref(
        **{name: value.double() for name, value in arguments.items()}, delta_softplus=True
    )
    assert y.isfinite().all()
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-5 * exact.abs().max().item())


@pytest.mark.parametrize("scan", [selective_scan_torch, selective_scan_ref])
def test_later_tokens_and_other_sequences_change_nothing(scan):
    arguments = {name: value.detach() for name, value in make_arguments(3, 4, 20).items()}
    changed = {name: value.clone() for name, value in arguments.items()}
    for name in ("u", "delta", "B", "C", "z"):
        changed[name][0, :, 12:] += 1
        changed[name][2] += 1
    y, y_changed = scan(**arguments), scan(**changed)
    assert torch.equal(y[0, :, :12], y_changed[0, :, :12])
    assert torch.equal(y[1], y_changed[1])
    assert not torch.equal(y[0, :, 12:], y_changed[0, :, 12:])


@pytest.mark.parametrize("scan", [selective_scan_torch, selective_scan_ref])
def test_half_precision_is_computed_in_float32(scan):
    arguments = {name: value.detach() for name, value in make_arguments(2, 3, 50).items()}
    half = {name: value.bfloat16() for name, value in arguments.items()}
    y = scan(**half, delta_softplus=True)
    exact = scan(**{name: value.double() for name, value in half.items()}, delta_softplus=True)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=1e-6)

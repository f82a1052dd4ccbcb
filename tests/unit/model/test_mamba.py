from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from neurostorm_bids.model.mamba import MambaMixer, convolve_causally


@pytest.fixture(scope="module")
def layer(read_golden):
    """A golden layer, with what was put into it and what came out."""
    arrays = {
        name: torch.from_numpy(value)
        for name, value in read_golden("mamba_layer").items()
        if value.dtype.kind == "f"
    }
    mixer = MambaMixer(20)
    weights = {name[2:]: value.float() for name, value in arrays.items() if name[:2] == "w."}
    mixer.load_state_dict(weights)
    return mixer, arrays


def test_the_layer_equals_the_published_one(layer, relative_error, ops):
    mixer, arrays = layer
    with torch.no_grad():
        assert relative_error(mixer(arrays["x"], ops=ops), arrays["out"]) < 1e-5
        assert relative_error(mixer(arrays["x"][:, :2], ops=ops), arrays["out_len2"]) < 1e-5


def test_the_gradients_equal_the_published_ones(layer, relative_error, ops):
    mixer, arrays = layer
    x = arrays["x"].clone().requires_grad_()
    names, parameters = zip(*mixer.named_parameters(), strict=True)
    loss = (mixer(x, ops=ops) * arrays["P"]).sum()
    grad_x, *grads = torch.autograd.grad(loss, [x, *parameters])
    assert relative_error(grad_x, arrays["grad_x"]) < 1e-5
    for name, grad in zip(names, grads, strict=True):
        assert relative_error(grad, arrays[f"grad.{name}"]) < 1e-5, name


def test_in_float64_the_layer_equals_the_published_one_to_the_last_digits(
    layer, relative_error, exact_ops
):
    mixer, arrays = layer
    exact = MambaMixer(20).double()
    exact.load_state_dict(mixer.state_dict())
    with torch.no_grad():
        assert relative_error(exact(arrays["x"].double(), ops=exact_ops), arrays["out_f64"]) < 1e-12


@pytest.mark.parametrize("n_tokens", [1, 3, 4, 9])
def test_the_convolution_reads_a_token_and_those_before_it(n_tokens):
    x, weight, bias = torch.randn(n_tokens, 2, 5), torch.randn(5, 1, 4), torch.randn(5)
    expected = functional.conv1d(x.permute(1, 2, 0), weight, bias, padding=3, groups=5)
    found = convolve_causally(x, weight, bias)
    torch.testing.assert_close(found, expected[..., :n_tokens].permute(2, 0, 1))
    torch.testing.assert_close(convolve_causally(x, weight, None), found - bias)


def test_a_new_layer_starts_with_steps_between_its_bounds():
    mixer = MambaMixer(64)
    steps = functional.softplus(mixer.dt_proj.bias)
    assert 1e-3 * 0.999 < steps.min() < 0.01
    assert 0.01 < steps.max() < 0.1 * 1.001

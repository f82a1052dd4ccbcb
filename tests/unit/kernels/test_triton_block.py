from __future__ import annotations

import dataclasses
import os

import pytest
import torch

from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.block import Block
from neurostorm_bids.model.config import ModelConfig
from neurostorm_bids.model.operations import REFERENCE, find_triton_operations
from neurostorm_bids.model.windows import fit_window, index_windows

pytest.importorskip("triton", reason="Triton is not installed")
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not (IS_INTERPRETED or torch.cuda.is_available()):
    pytest.skip(
        "no GPU here; test_triton.py runs this file in Triton's interpreter",
        allow_module_level=True,
    )

from neurostorm_bids.kernels.triton import block as triton_block
from neurostorm_bids.kernels.triton.block import update_block_triton

DEVICE = torch.device("cpu" if IS_INTERPRETED else "cuda")
pytestmark = pytest.mark.usefixtures("poison")
CONFIG = ModelConfig.published()
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def make_block(dim, *, window=(2, 2, 2, 2), shifted=True, prompt_len=0, **sizes):
    """Return a block whose every weight is drawn anew, and none is what it is for a new block."""
    config = dataclasses.replace(CONFIG, **sizes)
    block = Block(config, dim=dim, window=window, shifted=shifted, prompt_len=prompt_len).eval()
    with torch.no_grad():
        for name, part in block.named_parameters():
            part.add_(torch.randn_like(part) * (0.3 if "norm" in name or part.ndim == 1 else 0.05))
    return block.to(DEVICE)


def update(block, x, **options):
    window, steps = fit_window(x.shape[1:5], block.window, shifted=block.shifted)
    index = index_windows(x.shape[:5], window, steps, device=x.device)
    tokens, weights = x.reshape(-1, x.shape[-1]), block._gather_weights()
    return update_block_triton(tokens, index, weights, epsilon=1e-5, **options).view(x.shape)


def measure_error(found, exact):
    """Return the relative error; NaN if anything is."""
    return float((found.detach().double() - exact.detach()).norm() / exact.detach().norm())


def compare(dim, grid, *, dtype=torch.float32, batch=1, **options):
    """Return what comes out of a new block, and all gradients: found, and exact in float64."""
    block = make_block(dim, **options).to(dtype)
    x = torch.randn(batch, *grid, dim, device=DEVICE).to(dtype).requires_grad_()
    y = update(block, x)
    grad = torch.randn_like(y)
    found = [y, *torch.autograd.grad(y, [x, *block.parameters()], grad)]
    assert {part.dtype for part in found} == {dtype}
    x = x.detach().double().requires_grad_()
    y = block.double()(x, ops=REFERENCE)
    exact = [y, *torch.autograd.grad(y, [x, *block.parameters()], grad.double())]
    names = ["y", "x", *(name for name, _ in block.named_parameters())]
    return {name: pair for name, *pair in zip(names, found, exact, strict=True)}


def assert_as_exact(dim, grid, *, dtype=torch.float32, **options):
    """Compare over several blocks in half precision: one gradient may be next to nothing."""
    drawn = [
        compare(dim, grid, dtype=dtype, **options)
        for _ in range(1 if dtype == torch.float32 else 3)
    ]
    for name in drawn[0]:
        found, exact = (
            torch.cat([part[name][place].flatten() for part in drawn]) for place in (0, 1)
        )
        assert measure_error(found, exact) <= BOUNDS[dtype], name


@pytest.mark.parametrize(
    ("dim", "grid", "dtype"),
    [
        (36, (2, 1, 2, 6), torch.float32),
        (36, (1, 2, 2, 3), torch.bfloat16),
        (72, (1, 1, 2, 3), torch.float32),
        (144, (1, 2, 1, 2), torch.float32),
        (288, (1, 1, 2, 1), torch.float32),
    ],
)
def test_a_block_equals_the_reference(dim, grid, dtype):
    assert_as_exact(dim, grid, dtype=dtype)


@pytest.mark.parametrize(
    ("window", "grid", "shifted"),
    [((4, 4, 4, 4), (2, 1, 2, 6), False), ((2, 1, 2, 4), (3, 1, 1, 6), True)],
)
def test_clipped_windows_padding_and_prompts_equal_the_reference(window, grid, shifted):
    assert_as_exact(12, grid, batch=2, window=window, shifted=shifted, prompt_len=3)


def test_other_sizes_of_the_mamba_layer_are_honoured():
    assert_as_exact(8, (2, 2, 2, 4), d_state=5, d_conv=3, expand=3)


def test_shares_multiply_the_updates_of_each_window():
    block = make_block(20, shifted=False)
    x = torch.randn(2, 2, 2, 2, 2, 20, device=DEVICE)
    shares = torch.tensor([[0.0, 0.0], [2.0, 0.5]], device=DEVICE)
    found = update(block, x, shares=shares)
    assert torch.equal(found[0], x[0])
    between = x + 2 * block.mamba(block.norm1(x[1]).view(1, 16, 20)).view(x.shape[1:])
    expected = between + 0.5 * block.mlp(block.norm2(between))
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-5)
    composed = torch.autograd.grad(update(block, x, shares=shares).sum(), block.norm2.bias)[0]
    expected = torch.autograd.grad(expected[1].sum(), block.norm2.bias)[0]
    torch.testing.assert_close(composed, expected, rtol=1e-4, atol=1e-4)


def test_autocast_takes_products_in_its_precision_and_leaves_the_tokens_in_theirs():
    block = make_block(36)
    x = torch.randn(1, 2, 2, 1, 3, 36, device=DEVICE, requires_grad=True)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        y = update(block, x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert y.dtype == grad.dtype == torch.float32
    exact = block.double()(x.detach().double(), ops=REFERENCE)
    assert 1e-5 < measure_error(y, exact) < 2e-2


def test_a_block_that_finds_no_room_on_the_chip_is_put_together(monkeypatch):
    block, x = make_block(8), torch.randn(1, 2, 2, 1, 3, 8, device=DEVICE)
    expected = update(block, x)

    def refuse(*_arguments):
        raise triton_block.OutOfResources(300_000, 232_448, "shared memory")

    monkeypatch.setattr(triton_block, "_run_kernels", refuse)
    torch.testing.assert_close(update(block, x), expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_the_same_every_time():
    block, x = make_block(12), torch.randn(2, 2, 1, 1, 3, 12, device=DEVICE)
    grads = [torch.autograd.grad(update(block, x).sum(), block.parameters()) for _ in range(2)]
    assert all(map(torch.equal, *grads))


def test_a_network_of_three_stages_equals_the_reference():
    config = dataclasses.replace(
        CONFIG,
        img_size=(8, 8, 8, 6),
        patch_size=(2, 2, 2, 1),
        embed_dim=8,
        depths=(1, 1, 1),
    )
    backbone, ops = Backbone(config).to(DEVICE), find_triton_operations()
    x = torch.randn(1, 1, 8, 8, 8, 3, device=DEVICE)
    found = backbone(x, ops=ops)
    grads = torch.autograd.grad(found.square().sum(), list(backbone.parameters()))
    exact = backbone.double()(x.double(), ops=REFERENCE)
    expected = torch.autograd.grad(exact.square().sum(), list(backbone.parameters()))
    assert measure_error(found, exact) <= 1e-5
    for (name, _), one, other in zip(backbone.named_parameters(), grads, expected, strict=True):
        assert measure_error(one, other) <= 1e-5, name

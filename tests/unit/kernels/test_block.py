from __future__ import annotations

import dataclasses

import pytest
import torch

from neurostorm_bids.kernels.block import update_block_c
from neurostorm_bids.model.block import Block
from neurostorm_bids.model.config import ModelConfig
from neurostorm_bids.model.operations import COMPILED, REFERENCE

pytestmark = pytest.mark.usefixtures("library")

CONFIG = ModelConfig.published()
GRIDS = {
    "whole windows": (4, 4, 4, 4),
    "padding": (5, 3, 4, 6),
    "short axes": (2, 1, 3, 2),
    "one token": (1, 1, 1, 1),
}


def make_block(dim=20, *, window=(2, 2, 2, 4), shifted=False, prompt_len=0, **sizes):
    """Return a block whose every weight is drawn anew, and none is what it is for a new block."""
    config = dataclasses.replace(CONFIG, **sizes)
    block = Block(config, dim=dim, window=window, shifted=shifted, prompt_len=prompt_len).eval()
    with torch.no_grad():
        for name, part in block.named_parameters():
            part.add_(torch.randn_like(part) * (0.3 if "norm" in name or part.ndim == 1 else 0.05))
    return block.requires_grad_(requires_grad=False)


def assert_as_exact(block, x, *, tolerance=2e-6):
    found = block(x, ops=COMPILED)
    exact = block.double()(x.double(), ops=REFERENCE)
    block.float()
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < tolerance * exact.abs().max()


@pytest.mark.usefixtures("level", "poison")
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize(
    ("shifted", "prompt_len"), [(False, 0), (True, 0), (True, 3)], ids=["still", "shifted", "tuned"]
)
def test_a_block_equals_the_reference(grid, shifted, prompt_len):
    block = make_block(shifted=shifted, prompt_len=prompt_len)
    assert_as_exact(block, torch.randn(2, *grid, 20))


@pytest.mark.usefixtures("level", "poison")
@pytest.mark.parametrize("dim", [1, 4, 16, 36, 72, 100])
def test_any_width_equals_the_reference(dim):
    assert_as_exact(make_block(dim, shifted=True), torch.randn(1, 4, 4, 3, 6, dim))


@pytest.mark.usefixtures("level", "poison")
def test_other_sizes_of_the_mamba_layer_are_honoured():
    block = make_block(8, d_state=5, d_conv=3, expand=3)
    assert_as_exact(block, torch.randn(1, 4, 4, 4, 4, 8))


@pytest.mark.usefixtures("level", "poison")
def test_windows_longer_than_a_piece_of_the_perceptron_equal_the_reference():
    assert_as_exact(make_block(window=(4, 4, 4, 4)), torch.randn(1, 5, 4, 4, 4, 20))


@pytest.mark.usefixtures("level", "poison")
@pytest.mark.parametrize("n_volumes", range(1, 10))
def test_any_number_of_volumes_equals_the_reference(n_volumes):
    block = make_block(shifted=True, prompt_len=1)
    assert_as_exact(block, torch.randn(1, 3, 2, 4, n_volumes, 20))


@pytest.mark.usefixtures("level", "poison")
@pytest.mark.parametrize("log_rate", [-30.0, -3.0, 3.0, 60.0])
def test_any_rate_of_decay_equals_the_reference(log_rate):
    block = make_block()
    block.mamba.A_log.copy_(log_rate + torch.randn_like(block.mamba.A_log))
    assert_as_exact(block, torch.randn(1, 4, 4, 4, 4, 20))


@pytest.mark.usefixtures("level")
def test_large_values_give_numbers():
    block = make_block()
    block.mamba.dt_proj.bias.fill_(1e4)
    assert block(1e4 * torch.randn(1, 4, 4, 4, 4, 20), ops=COMPILED).isfinite().all()


@pytest.mark.usefixtures("level")
def test_what_is_not_a_number_stays_in_its_window():
    block = make_block()
    x = torch.randn(1, 4, 4, 4, 4, 20)
    expected = block(x, ops=COMPILED)
    x[0, 0, 0, 0, 0, 3] = torch.nan
    found = block(x, ops=COMPILED)
    assert found[:, :2, :2, :2].isnan().any()
    expected[:, :2, :2, :2] = found[:, :2, :2, :2] = 0
    assert torch.equal(found, expected)


def test_views_are_read_as_they_stand():
    block = make_block()
    x = torch.randn(1, 4, 4, 4, 20, 4).transpose(-1, -2)
    assert torch.equal(block(x, ops=COMPILED), block(x.contiguous(), ops=COMPILED))


@pytest.mark.parametrize("n_threads", [1, 3])
def test_tokens_are_overwritten_where_they_may_be(n_threads):
    torch.set_num_threads(n_threads)
    block, x = make_block(shifted=True, prompt_len=2), torch.randn(2, 5, 3, 4, 6, 20)
    expected = block(x, ops=COMPILED)
    found = block(x, ops=COMPILED, may_overwrite=True)
    assert torch.equal(found, expected)
    assert found.data_ptr() == x.data_ptr()


def test_tokens_that_a_gradient_needs_are_not_overwritten():
    block, x = make_block().requires_grad_(), torch.randn(1, 4, 4, 4, 4, 20)
    before = x.clone()
    block(x, ops=COMPILED, may_overwrite=True)
    assert torch.equal(x, before)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("n_threads", [2, 3])
def test_the_number_of_threads_changes_no_digit(n_threads):
    block, x = make_block(shifted=True), torch.randn(2, 4, 4, 4, 8, 20)
    torch.set_num_threads(1)
    one = block(x, ops=COMPILED)
    torch.set_num_threads(n_threads)
    assert torch.equal(block(x, ops=COMPILED), one)


def test_half_precision_and_autocast_are_left_to_others():
    def refuse(*_arguments, **_options):
        raise AssertionError

    ops = COMPILED._replace(update=refuse)
    block, x = make_block(), torch.randn(1, 4, 4, 4, 4, 20)
    with pytest.raises(AssertionError):
        block(x, ops=ops)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        block(x, ops=ops)
    block.bfloat16()(x.bfloat16(), ops=ops)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"linear1": torch.zeros(80, 19)}, "linear1 to be"),
        ({"skip": torch.zeros(39)}, "skip to be"),
        ({"skip": torch.zeros(40, dtype=torch.float64)}, "skip to be .* found .*float64"),
        ({"prompts": torch.zeros(2, 19)}, "prompts to be"),
    ],
)
def test_shapes_that_would_be_read_past_their_end_are_refused(changed, message):
    weights = make_block()._gather_weights()._replace(**changed)
    with pytest.raises(ValueError, match=message):
        update_block_c(torch.zeros(8, 20), torch.arange(8).view(1, 8), weights, epsilon=1e-5)


def test_shares_that_would_be_read_past_their_end_are_refused():
    tokens, index, shares = torch.zeros(8, 20), torch.arange(8).view(1, 8), torch.ones(1)
    weights = make_block()._gather_weights()
    with pytest.raises(ValueError, match="shares to be"):
        update_block_c(tokens, index, weights, epsilon=1e-5, shares=shares)


@pytest.mark.parametrize("index", [torch.tensor([[0, 8]]), torch.tensor([[-2]])])
def test_tokens_that_are_not_there_are_refused(index):
    weights = make_block()._gather_weights()
    with pytest.raises(ValueError, match="from -1 to 7"):
        update_block_c(torch.zeros(8, 20), index, weights, epsilon=1e-5)

from __future__ import annotations

import dataclasses

import pytest
import torch

from neurostorm_bids.model import block as block_module
from neurostorm_bids.model.block import Block
from neurostorm_bids.model.operations import FAST, REFERENCE, TORCH

GRIDS = {
    "whole windows": (4, 4, 4, 4),
    "padding": (5, 3, 4, 7),
    "short axes": (2, 1, 3, 2),
}


def make_block(config, *, shifted=False, prompt_len=0, drop_path_rate=0.0):
    torch.manual_seed(0)
    return Block(
        config,
        dim=8,
        window=(2, 2, 2, 4),
        shifted=shifted,
        prompt_len=prompt_len,
        drop_path_rate=drop_path_rate,
    ).eval()


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("shifted", [False, True], ids=["still", "shifted"])
@pytest.mark.parametrize("prompt_len", [0, 3])
def test_chunks_of_windows_equal_whole_tensors(tiny_config, monkeypatch, grid, shifted, prompt_len):
    monkeypatch.setattr(block_module, "CHUNK_VALUES", 5 * 32 * 16)  # five windows at once
    block = make_block(tiny_config, shifted=shifted, prompt_len=prompt_len)
    x = torch.randn(2, *grid, 8)
    with_gradients = block(x)
    with torch.no_grad():
        for ops in (TORCH, REFERENCE):
            torch.testing.assert_close(block(x, ops=ops), with_gradients, rtol=1e-5, atol=1e-5)


def test_a_chunk_holds_one_window_at_least(tiny_config, monkeypatch):
    block = make_block(tiny_config)
    x = torch.randn(1, 4, 4, 4, 4, 8)
    with torch.no_grad():
        expected = block(x, ops=TORCH)
        monkeypatch.setattr(block_module, "CHUNK_VALUES", 1)
        torch.testing.assert_close(make_block(tiny_config)(x, ops=TORCH), expected)


def test_a_block_leaves_its_input_alone(tiny_config, ops):
    x = torch.randn(1, 4, 4, 4, 4, 8)
    before = x.clone()
    with torch.no_grad():
        make_block(tiny_config)(x, ops=ops)
    assert torch.equal(x, before)


def test_tokens_of_other_clips_change_nothing(tiny_config):
    block = make_block(tiny_config, shifted=True)
    x = torch.randn(2, 4, 4, 4, 8, 8)
    with torch.no_grad():
        together = block(x)
        torch.testing.assert_close(together, torch.cat([block(x[:1]), block(x[1:])]))


def test_gradients_do_not_depend_on_the_operations(tiny_config):
    block = make_block(tiny_config, shifted=True, prompt_len=2).double()
    x = torch.randn(1, 4, 4, 3, 6, 8, dtype=torch.float64)
    fast, reference = (
        torch.autograd.grad(block(x, ops=ops).square().sum(), list(block.parameters()))
        for ops in (FAST, REFERENCE)
    )
    torch.testing.assert_close(fast, reference, rtol=1e-10, atol=1e-10)


def test_dropping_every_path_leaves_the_input(tiny_config):
    block = make_block(tiny_config, drop_path_rate=1 - 1e-12).train()
    x = torch.randn(3, 2, 2, 2, 4, 8)
    assert torch.equal(block(x), x)


def test_paths_are_dropped_clip_by_clip_and_kept_ones_scaled(tiny_config):
    block = make_block(tiny_config, drop_path_rate=0.5).train()
    update = torch.ones(200, 1, 1, 1, 1, 8)
    dropped = block._drop_path(update)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped.amin(dim=-1), dropped.amax(dim=-1))
    assert torch.equal(block.eval()._drop_path(update), update)


def test_prompts_are_parameters_only_when_asked_for(tiny_config):
    assert "prompt" not in make_block(tiny_config).state_dict()
    assert make_block(tiny_config, prompt_len=3).state_dict()["prompt"].shape == (1, 3, 8)


def test_other_sizes_of_the_mamba_layer_are_honoured(tiny_config):
    config = dataclasses.replace(tiny_config, d_state=5, d_conv=3, expand=3)
    block = make_block(config)
    assert block.mamba.A_log.shape == (24, 5)
    assert block.mamba.conv1d.weight.shape == (24, 1, 3)
    x = torch.randn(1, 2, 2, 2, 4, 8)
    with torch.no_grad():
        torch.testing.assert_close(block(x), block(x, ops=REFERENCE), rtol=1e-5, atol=1e-5)

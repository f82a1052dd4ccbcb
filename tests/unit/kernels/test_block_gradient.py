from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from neurostorm_bids.kernels import block as block_module
from neurostorm_bids.model.operations import COMPILED, REFERENCE, TORCH
from tests.unit.kernels.test_block import GRIDS, make_block

pytestmark = pytest.mark.usefixtures("library")


def differentiate(block, x, *, ops=COMPILED):
    """Return a block's output, and the gradients of a weighted sum of it, by name."""
    x = x.detach().requires_grad_()
    leaves = {"x": x} | {n: part for n, part in block.named_parameters() if part.requires_grad}
    torch.manual_seed(5)  # of the clips that are left out
    out = block(x, ops=ops)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).cos().view(out.shape)
    gradients = torch.autograd.grad((out * weights).sum(), list(leaves.values()))
    return {"out": out.detach()} | dict(zip(leaves, gradients, strict=True))


def assert_as_exact(block, x, *, tolerance=5e-6):
    found = differentiate(block, x)
    exact = differentiate(block.double(), x.double(), ops=REFERENCE)
    block.float()
    assert found.keys() == exact.keys()
    for name, expected in exact.items():
        assert found[name].dtype == torch.float32
        error = (found[name] - expected).abs().max()
        assert error <= tolerance * expected.abs().max(), name


def make_learner(*arguments, **options):
    return make_block(*arguments, **options).requires_grad_()


@pytest.fixture(autouse=True)
def count_backwards(monkeypatch):
    """Note what was asked of each backward in C."""
    asked = []
    run = block_module._run_backward

    def note(*arguments):
        asked.append(arguments[-1])
        return run(*arguments)

    monkeypatch.setattr(block_module, "_run_backward", note)
    return asked


@pytest.mark.usefixtures("level", "poison")
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize(
    ("shifted", "prompt_len"), [(False, 0), (True, 0), (True, 3)], ids=["still", "shifted", "tuned"]
)
def test_all_gradients_equal_the_reference(grid, shifted, prompt_len, count_backwards):
    block = make_learner(shifted=shifted, prompt_len=prompt_len)
    assert_as_exact(block, torch.randn(2, *grid, 20))
    assert len(count_backwards) == 1


@pytest.mark.usefixtures("level", "poison")
@pytest.mark.parametrize("dim", [4, 36, 100])
def test_gradients_of_any_width_equal_the_reference(dim):
    assert_as_exact(make_learner(dim, shifted=True), torch.randn(1, 4, 4, 3, 6, dim))


@pytest.mark.usefixtures("level", "poison")
@pytest.mark.parametrize("n_volumes", [1, 3, 4, 7])
def test_gradients_of_any_number_of_volumes_equal_the_reference(n_volumes):
    block = make_learner(shifted=True, prompt_len=1)
    assert_as_exact(block, torch.randn(1, 3, 2, 4, n_volumes, 20))


@pytest.mark.usefixtures("level", "poison")
def test_gradients_of_other_sizes_of_the_mamba_layer_equal_the_reference():
    block = make_learner(8, d_state=5, d_conv=3, expand=3)
    assert_as_exact(block, torch.randn(1, 4, 4, 4, 4, 8))


@pytest.mark.usefixtures("level", "poison")
def test_gradients_over_windows_longer_than_what_is_summed_at_a_time_equal_the_reference():
    block = make_learner(window=(4, 4, 4, 5), prompt_len=7)
    assert_as_exact(block, torch.randn(1, 5, 4, 4, 5, 20))


@pytest.mark.usefixtures("level", "poison")
@pytest.mark.parametrize("log_rate", [-30.0, -3.0, 3.0])
def test_gradients_at_any_rate_of_decay_equal_the_reference(log_rate):
    block = make_learner()
    with torch.no_grad():
        block.mamba.A_log.copy_(log_rate + torch.randn_like(block.mamba.A_log))
    assert_as_exact(block, torch.randn(1, 4, 4, 4, 4, 20))


@pytest.mark.usefixtures("level", "poison")
@pytest.mark.parametrize("drop_path_rate", [0.3, 1 - 1e-6])
def test_gradients_with_paths_dropped_clip_by_clip_equal_the_reference(drop_path_rate):
    block = make_learner(shifted=True, prompt_len=1).train()
    block.drop_path_rate = drop_path_rate
    assert_as_exact(block, torch.randn(6, 2, 3, 2, 4, 20))


@pytest.mark.usefixtures("level")
def test_large_values_give_gradients():
    block = make_learner()
    with torch.no_grad():
        block.mamba.dt_proj.bias.fill_(1e4)
        block.mlp.linear1.bias.fill_(1e4)
    found = differentiate(block, 1e3 * torch.randn(1, 4, 4, 4, 4, 20))
    assert all(value.isfinite().all() for value in found.values())


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("n_threads", [2, 3])
def test_the_number_of_threads_changes_no_digit_of_a_gradient(n_threads):
    block, x = make_learner(shifted=True, prompt_len=2), torch.randn(2, 6, 4, 4, 8, 20)
    torch.set_num_threads(1)
    one = differentiate(block, x)
    torch.set_num_threads(n_threads)
    several = differentiate(block, x)
    assert all(torch.equal(several[name], one[name]) for name in one)


@pytest.mark.parametrize("learning", [(), ("prompt",), ("mamba.in_proj.weight", "norm2.bias")])
def test_frozen_weights_change_no_gradient_of_the_others(learning, count_backwards):
    block, x = make_learner(prompt_len=2), torch.randn(1, 4, 4, 4, 4, 20)
    whole = differentiate(block, x)
    block.requires_grad_(requires_grad=False)
    for name in learning:
        block.get_parameter(name).requires_grad_()
    some = differentiate(block, x)
    assert some.keys() == {"out", "x", *learning}
    assert all(torch.equal(some[name], whole[name]) for name in some)
    assert sum(count_backwards[1].values()) == len(learning)


def test_gradients_reach_what_a_weight_is_made_of():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.5))

        def forward(self, weight):
            return weight * self.scale

    block = make_learner()
    for layer in (block.mamba.in_proj, block.mamba.x_proj, block.mlp.linear2):
        parametrize.register_parametrization(layer, "weight", Scale())
    assert_as_exact(block, torch.randn(1, 4, 4, 4, 4, 20))


def test_gradients_through_views_and_expanded_ones_equal_the_reference():
    block = make_learner()
    x = torch.randn(1, 4, 4, 4, 20, 4)
    results = []
    for ops in (COMPILED, TORCH):
        leaf = x.clone().requires_grad_()
        block(leaf.transpose(-1, -2), ops=ops).sum().backward()
        results.append(leaf.grad)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_a_gradient_keeps_no_memory_but_its_own():
    block = make_learner()
    block(torch.randn(1, 4, 4, 4, 4, 20), ops=COMPILED).sum().backward()
    for part in block.parameters():
        assert part.grad.untyped_storage().nbytes() == part.numel() * 4


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_in_training_a_layer_that_is_hooked_is_called(kind, count_backwards):
    seen = []
    block = make_learner().train()
    getattr(block.mamba, kind)(lambda *_arguments: seen.append(1))
    differentiate(block, torch.randn(1, 4, 4, 4, 4, 20))
    assert (len(seen), count_backwards) == (1, [])

from __future__ import annotations

import pytest
import torch

from neurostorm_bids.kernels.patches import embed_patches_c
from neurostorm_bids.model.backbone import PatchEmbed
from neurostorm_bids.model.operations import COMPILED, REFERENCE

pytestmark = pytest.mark.usefixtures("library")


@pytest.mark.usefixtures("level", "poison")
@pytest.mark.parametrize(
    ("dim", "n_channels", "patch", "n_volumes"),
    [
        (36, 1, (6, 6, 6), 20),
        (4, 1, (2, 2, 2), 1),
        (70, 2, (2, 3, 1), 6),
        (48, 1, (3, 2, 4), 7),
        (1, 3, (1, 1, 1), 5),
    ],
)
def test_patches_equal_the_reference(dim, n_channels, patch, n_volumes):
    embed = PatchEmbed((*patch, 1), in_chans=n_channels, dim=dim).requires_grad_(
        requires_grad=False
    )
    grid = [side * count for side, count in zip(patch, (2, 1, 3), strict=True)]
    x = torch.randn(2, n_channels, *grid, n_volumes)
    exact = embed.double()(x.double(), ops=REFERENCE)
    found = embed.float()(x, ops=COMPILED)
    assert found.shape == exact.shape
    assert (found - exact).abs().max() < 1e-6 * exact.abs().max().clamp(min=1)
    view = x.movedim(-1, 0).contiguous().movedim(0, -1)
    assert torch.equal(embed(view, ops=COMPILED), found)


def test_the_number_of_threads_changes_no_digit():
    x, weight, bias = torch.randn(1, 1, 8, 8, 8, 5), torch.randn(36, 8), torch.randn(36)
    torch.set_num_threads(1)
    one = embed_patches_c(x, weight, bias, patch=(2, 2, 2))
    torch.set_num_threads(3)
    assert torch.equal(embed_patches_c(x, weight, bias, patch=(2, 2, 2)), one)


@pytest.mark.usefixtures("level", "poison")
@pytest.mark.parametrize(
    ("dim", "n_channels", "patch", "n_volumes"), [(36, 1, (6, 6, 6), 5), (7, 2, (2, 3, 1), 6)]
)
def test_gradients_of_the_weights_equal_the_reference(dim, n_channels, patch, n_volumes):
    embed = PatchEmbed((*patch, 1), in_chans=n_channels, dim=dim)
    grid = [side * count for side, count in zip(patch, (2, 1, 3), strict=True)]
    x = torch.randn(2, n_channels, *grid, n_volumes)
    found = differentiate(embed, x, ops=COMPILED)
    exact = differentiate(embed.double(), x.double(), ops=REFERENCE)
    for one, other in zip(found, exact, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() < 1e-6 * other.abs().max()


def differentiate(embed, x, *, ops):
    out = embed(x, ops=ops)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).cos().view(out.shape)
    return torch.autograd.grad((out * weights).sum(), [embed.fc.weight, embed.fc.bias])


def test_a_gradient_of_the_clip_is_left_to_pytorch():
    embed = PatchEmbed((2, 2, 2, 1), in_chans=1, dim=4)
    x = torch.randn(1, 1, 4, 4, 4, 3, requires_grad=True)
    embed(x, ops=COMPILED).sum().backward()
    assert x.grad.abs().min() > 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": torch.zeros(36, 7)}, "weights of shape"),
        ({"bias": torch.zeros(35)}, "weights of shape"),
        ({"patch": (3, 2, 2)}, "weights of shape|to fill"),
        ({"clips": torch.zeros(1, 1, 5, 4, 4, 2)}, "to fill"),
        ({"clips": torch.zeros(1, 1, 4, 4, 4, 2).double()}, "float32 on the CPU"),
    ],
)
def test_shapes_that_would_be_read_past_their_end_are_refused(changed, message):
    arguments = {
        "clips": torch.zeros(1, 1, 4, 4, 4, 2),
        "weight": torch.zeros(36, 8),
        "bias": torch.zeros(36),
        "patch": (2, 2, 2),
    }
    with pytest.raises(ValueError, match=message):
        embed_patches_c(**arguments | changed)

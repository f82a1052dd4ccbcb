from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from neurostorm_bids.errors import DataError
from neurostorm_bids.model.augment import (
    AugmentConfig,
    augment_clips,
    rotate,
    smooth_clips,
    transform_clips,
)

NOTHING = AugmentConfig(
    max_rotation_deg=0, max_scaling=0, noise_probability=0, smoothing_probability=0
)
ALWAYS = AugmentConfig(noise_probability=1.0, smoothing_probability=1.0)


def make_generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make_clips(*shape, seed=0):
    return torch.randn(shape or (2, 1, 9, 8, 7, 3), generator=make_generator(seed))


def make_blob(shape, voxel_size_mm, *, sd_mm=4.0):
    """Return a clip with a round blob, as seen in mm, in the middle of its grid."""
    places = [
        (torch.arange(size) - (size - 1) / 2) * mm
        for size, mm in zip(shape, voxel_size_mm, strict=True)
    ]
    x, y, z = torch.meshgrid(*places, indexing="ij")
    blob = torch.exp(-(x**2 + y**2 + z**2) / (2 * sd_mm**2))
    return blob.view(1, 1, *shape, 1)


def test_identity_parameters_change_nothing():
    clips = make_clips()
    torch.testing.assert_close(
        augment_clips(clips, config=NOTHING, generator=make_generator()), clips, atol=1e-5, rtol=0
    )


def test_the_input_is_not_touched():
    clips = make_clips()
    before = clips.clone()
    augmented = augment_clips(clips, config=ALWAYS, generator=make_generator())
    assert torch.equal(clips, before)
    assert (augmented - clips).abs().max() > 0.1


def test_all_volumes_of_a_clip_are_changed_alike():
    volume = make_clips(3, 2, 9, 8, 7, 1)
    clips = volume.expand(-1, -1, -1, -1, -1, 5)
    augmented = augment_clips(clips, config=ALWAYS, generator=make_generator())
    assert torch.equal(augmented, augmented[..., :1].expand_as(augmented))
    alone = augment_clips(volume, config=ALWAYS, generator=make_generator())
    torch.testing.assert_close(augmented[..., :1], alone)


def test_the_clips_of_a_batch_are_changed_differently():
    clips = make_clips(1, 1, 9, 8, 7, 2).expand(4, -1, -1, -1, -1, -1)
    augmented = augment_clips(clips, config=AugmentConfig(), generator=make_generator())
    for other in range(1, 4):
        assert (augmented[0] - augmented[other]).abs().max() > 0.1


def test_the_generator_decides():
    clips = make_clips()
    first, again, other = (
        augment_clips(clips, config=ALWAYS, generator=make_generator(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("axis", "plane"), [(0, (3, 4)), (1, (4, 2)), (2, (2, 3))])
def test_a_quarter_turn_is_a_turn_of_the_array(axis, plane):
    clips = make_clips(1, 2, 8, 8, 8, 3)
    angles = torch.zeros(1, 3)
    angles[0, axis] = math.pi / 2
    turned = transform_clips(clips, rotate(angles))
    # The matrix says where a place reads from, so the array turns the other way.
    torch.testing.assert_close(turned, torch.rot90(clips, -1, plane), atol=1e-4, rtol=0)


def test_turning_there_and_back_changes_nothing():
    angles = torch.tensor([[0.1, -0.15, 0.12]])
    matrices = rotate(angles)
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3).unsqueeze(0))
    blob = make_blob((24, 24, 24), (1, 1, 1))
    blob[:, :, 14:] = 0
    back = transform_clips(transform_clips(blob, matrices), matrices.mT)
    assert (back - blob)[:, :, :12].abs().max() < 0.05
    assert (transform_clips(blob, matrices) - blob).abs().max() > 0.3


def test_rotation_keeps_a_round_blob_round_on_a_grid_of_flat_voxels():
    voxel_size_mm = (2.0, 2.0, 4.0)
    blob = make_blob((20, 18, 10), voxel_size_mm, sd_mm=8.0)
    matrices = rotate(torch.tensor([[0.9, 0.3, 0.2]]))
    kept = transform_clips(blob, matrices, voxel_size_mm=voxel_size_mm)
    bent = transform_clips(blob, matrices)
    # Corners read from outside the grid, so look at the middle.
    middle = (slice(None), slice(None), slice(5, 15), slice(5, 13), slice(3, 7))
    assert (kept - blob)[middle].abs().max() < 0.05  # what linear interpolation cuts off the top
    assert (bent - blob)[middle].abs().max() > 0.2


def test_scaling_up_by_two_doubles_the_size():
    blob = make_blob((32, 32, 32), (1, 1, 1), sd_mm=3.0)
    grown = transform_clips(blob, torch.eye(3).unsqueeze(0) / 2)
    torch.testing.assert_close(
        grown, make_blob((32, 32, 32), (1, 1, 1), sd_mm=6.0), atol=0.04, rtol=0
    )


def test_what_was_outside_the_grid_is_the_clips_own_minimum():
    clips = make_clips(2, 1, 8, 8, 8, 3) + torch.tensor([5.0, -7.0]).view(2, 1, 1, 1, 1, 1)
    shrunk = transform_clips(clips, 3 * torch.eye(3).expand(2, 3, 3))
    lowest = clips.flatten(1).amin(1)
    for clip, value in zip(shrunk, lowest, strict=True):
        torch.testing.assert_close(clip[:, 0], value.expand_as(clip[:, 0]))
        assert clip.min() == pytest.approx(value.item())


def test_rotation_and_scaling_stay_within_their_limits(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "neurostorm_bids.model.augment.transform_clips",
        lambda clips, matrices, **_: seen.append(matrices) or clips,
    )
    config = AugmentConfig(max_rotation_deg=10, max_scaling=0.1, noise_probability=0)
    augment_clips(make_clips(500, 1, 2, 2, 2, 1), config=config, generator=make_generator())
    scales = 1 / seen[0].norm(dim=1)
    assert 0.9 <= scales.min() < 0.91
    assert 1.09 < scales.max() <= 1.1001
    # Three turns of 10 degrees tilt an axis by less than their sum.
    tilt = torch.rad2deg(torch.acos(seen[0].diagonal(dim1=1, dim2=2) * scales))
    assert 10 < tilt.max() < 20


def test_noise_has_its_deviation_and_its_share_of_the_clips():
    clips = torch.zeros(600, 1, 4, 4, 4, 2)
    config = AugmentConfig(
        max_rotation_deg=0, max_scaling=0, noise_sd=0.25, smoothing_probability=0
    )
    noise = augment_clips(clips, config=config, generator=make_generator())
    is_noisy = noise.flatten(1).abs().amax(1) > 0
    assert is_noisy.float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert noise[is_noisy].std().item() == pytest.approx(0.25, rel=0.03)


def test_smoothing_is_a_gaussian_filter():
    clips = make_clips(3, 2, 9, 8, 7, 2)
    sd_voxels = torch.tensor([[0.5, 0.8, 1.0], [0.0, 0.0, 0.0], [0.3, 0.0, 0.6]])
    smoothed = smooth_clips(clips, sd_voxels)
    for clip, sd, found in zip(clips, sd_voxels, smoothed, strict=True):
        sigma = [0, *sd.tolist(), 0]
        expected = ndimage.gaussian_filter(clip.numpy(), sigma, mode="nearest", radius=4)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_smoothing_takes_its_share_of_the_clips():
    clips = make_clips(400, 1, 5, 5, 5, 1)
    config = AugmentConfig(max_rotation_deg=0, max_scaling=0, noise_probability=0)
    changed = augment_clips(clips, config=config, generator=make_generator()) - clips
    is_smoothed = changed.flatten(1).abs().amax(1) > 1e-3
    assert is_smoothed.float().mean().item() == pytest.approx(0.1, abs=0.04)


def test_limits_out_of_range_are_refused():
    with pytest.raises(DataError, match="as noise_probability, found 30"):
        AugmentConfig(noise_probability=30)

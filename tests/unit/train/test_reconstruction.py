from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from neurostorm_bids.errors import UsageError
from neurostorm_bids.model.autoencoder import MaskedAutoencoder, cut_patches
from neurostorm_bids.model.masking import MaskScheme
from neurostorm_bids.train.objectives import average_masked
from neurostorm_bids.train.reconstruction import measure_baselines, pick_example
from tests.unit.masked_clips import CONFIG, PATCH, TOKENS, make_clips, make_mask

SCHEMES = ["random/random", "random/tube", "window/random", "window/tube"]


@pytest.fixture
def clips():
    return make_clips()


@pytest.fixture
def mask():
    return make_mask()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MaskedAutoencoder(CONFIG, scheme=MaskScheme.parse("random/random")).eval()


def token_of(x, y, z, t):
    return x // PATCH[0], y // PATCH[1], z // PATCH[2], t


def list_voxels():
    return itertools.product(*(range(size) for size in CONFIG.img_size))


def predict_naively(clip, hidden):
    """Predict each hidden voxel of a clip (C, X, Y, Z, T) by two means, looking at one by one."""
    clip = clip.double().numpy()
    by_place, by_voxel = {}, {}
    for x, y, z, t in list_voxels():
        if hidden[token_of(x, y, z, t)]:
            continue
        for channel in range(len(clip)):
            value = clip[channel, x, y, z, t]
            place = channel, x % PATCH[0], y % PATCH[1], z % PATCH[2]
            by_place.setdefault(place, []).append(value)
            by_voxel.setdefault((channel, x, y, z), []).append(value)
    patch_mean, voxel_mean = np.zeros(clip.shape), np.zeros(clip.shape)
    for channel, (x, y, z, t) in itertools.product(range(len(clip)), list_voxels()):
        seen = by_place[channel, x % PATCH[0], y % PATCH[1], z % PATCH[2]]
        patch_mean[channel, x, y, z, t] = np.mean(seen)
        voxel_mean[channel, x, y, z, t] = np.mean(by_voxel.get((channel, x, y, z), seen))
    return patch_mean, voxel_mean


def average_over_hidden(squared, hidden):
    """Average squared errors (C, X, Y, Z, T) over the voxels of each hidden patch, and these."""
    of_patches = {}
    for x, y, z, t in list_voxels():
        token = token_of(x, y, z, t)
        if hidden[token]:
            of_patches.setdefault(token, []).extend(squared[:, x, y, z, t])
    return np.mean([np.mean(values) for values in of_patches.values()])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_baselines_are_what_two_naive_predictors_lose(clips, scheme):
    mask = make_mask(scheme, n_clips=3)
    losses = [
        [
            average_over_hidden((predicted - clip.double().numpy()) ** 2, hidden)
            for predicted in predict_naively(clip, hidden)
        ]
        for clip, hidden in zip(clips, mask, strict=True)
    ]
    expected = np.mean(losses, axis=0)
    assert measure_baselines(clips, mask, PATCH) == pytest.approx(tuple(expected), rel=1e-5)


def test_an_autoencoder_that_answers_with_the_mean_patch_has_the_loss_of_that_baseline(
    clips, model
):
    mask = make_mask("window/random", n_clips=3)
    assert len(set(mask.flatten(1).sum(1).tolist())) > 1  # clips count alike all the same
    answer = torch.randn(12)
    patches = torch.where(mask.unsqueeze(-1), cut_patches(clips, PATCH), answer)
    clips = torch.from_numpy(join_naively(patches))
    torch.nn.init.zeros_(model.decoder_pred.weight)
    with torch.no_grad():
        model.decoder_pred.bias.copy_(answer)
        loss = average_masked(model(clips, mask).patch_error, mask).item()
    assert measure_baselines(clips, mask, PATCH).patch_mean == pytest.approx(loss, rel=1e-5)


def test_a_voxel_that_never_changes_is_predicted_by_its_own_mean_without_error(clips, mask):
    still = clips[..., :1].expand_as(clips)
    mask[..., 0] = False  # visible once
    patch_mean, voxel_mean = measure_baselines(still, mask, PATCH)
    assert voxel_mean < 1e-12
    assert patch_mean > 0.1


@pytest.mark.parametrize("scheme", ["random/tube", "window/tube"])
def test_under_tubes_both_baselines_are_the_same(clips, scheme):
    patch_mean, voxel_mean = measure_baselines(clips, make_mask(scheme, n_clips=3), PATCH)
    assert voxel_mean == pytest.approx(patch_mean, rel=1e-6)


def test_baselines_look_at_nothing_that_is_masked(clips, mask):
    hidden = mask.unsqueeze(-1)
    _, before = measure_baselines(clips, mask, PATCH)
    patches = torch.where(hidden, cut_patches(clips, PATCH) + 1000, cut_patches(clips, PATCH))
    moved = torch.from_numpy(join_naively(patches))
    _, after = measure_baselines(moved, mask, PATCH)
    assert math.sqrt(after) == pytest.approx(1000, abs=3 * math.sqrt(before))


def join_naively(patches):
    clips = np.zeros((len(patches), 2, *CONFIG.img_size), dtype=np.float32)
    values = patches.reshape(*patches.shape[:5], *PATCH[:3], 2).numpy()
    for x, y, z, t in list_voxels():
        place = x % PATCH[0], y % PATCH[1], z % PATCH[2]
        clips[:, :, x, y, z, t] = values[:, *token_of(x, y, z, t), *place]
    return clips


def test_a_clip_without_visible_tokens_is_predicted_to_be_zero(clips):
    everything = torch.ones(3, *TOKENS, dtype=torch.bool)
    patch_mean, voxel_mean = measure_baselines(clips, everything, PATCH)
    assert patch_mean == voxel_mean == pytest.approx(clips.square().mean().item(), rel=1e-5)


def test_half_precision_is_averaged_in_single(clips, mask):
    rounded = clips.bfloat16()
    exact = measure_baselines(rounded.float(), mask, PATCH)
    assert measure_baselines(rounded, mask, PATCH) == pytest.approx(exact, rel=1e-6)


def test_a_mask_that_hides_nothing_of_a_clip_is_refused(clips, mask):
    with pytest.raises(UsageError, match=r"clips \[1\]"):
        measure_baselines(clips, mask & torch.tensor([1, 0, 1]).bool().view(3, 1, 1, 1, 1), PATCH)


def test_the_example_is_the_median_clip(clips, mask, model):
    with torch.no_grad():
        found = model(clips, mask)
    patch_error = found.patch_error * torch.tensor([3.0, 1.0, 2.0]).view(3, 1, 1, 1, 1)
    picked = pick_example(
        clips,
        mask,
        found._replace(patch_error=patch_error),
        patch_size=PATCH,
        labels=["worst", "best", "median"],
    )
    assert picked.label == "median"


def test_the_example_shows_a_volume_with_a_usual_share_of_masked_patches(clips, model):
    mask = torch.zeros(1, *TOKENS, dtype=torch.bool)
    mask[..., 0] = mask[:, :2, ..., 2] = mask[:, :, :1, :, 3] = True  # 1, 0, 1/2, 1/4 and 0
    with torch.no_grad():
        found = model(clips[:1], mask)
    picked = pick_example(clips[:1], mask, found, patch_size=PATCH, labels=["a"])
    assert (picked.volume, picked.n_volumes) == (3, 5)
    assert picked.masked.mean() == pytest.approx(0.25)


def test_the_example_has_only_masked_voxels_replaced(clips, mask, model):
    with torch.no_grad():
        found = model(clips, mask)
    picked = pick_example(clips, mask, found, patch_size=PATCH, labels=["a", "b", "c"])
    clip, volume = "abc".index(picked.label), picked.volume
    rebuilt = join_naively(found.patches)[clip, 0, ..., volume]
    expected = clips[clip, 0, ..., volume].numpy().copy()
    assert np.array_equal(picked.original, expected)
    for x, y, z in np.ndindex(expected.shape):
        assert picked.masked[x, y, z] == mask[clip][token_of(x, y, z, volume)]
        if picked.masked[x, y, z]:
            expected[x, y, z] = rebuilt[x, y, z]
    assert np.array_equal(picked.reconstructed, expected)
    assert np.array_equal(picked.error, expected - picked.original)
    assert 0 < picked.masked.mean() < 1

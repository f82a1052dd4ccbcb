"""Errors by region: those of a naive loop, however the batches are cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from neurostorm_bids.errors import UsageError
from neurostorm_bids.model.autoencoder import MaskedAutoencoder, cut_patches
from neurostorm_bids.model.masking import MaskScheme
from neurostorm_bids.model.region_errors import RegionErrors
from tests.unit.masked_clips import CONFIG, PATCH, TOKENS, make_clips, make_mask


@pytest.fixture
def clips():
    return make_clips()


@pytest.fixture
def mask():
    return make_mask()


@pytest.fixture
def regions():
    return torch.randint(-1, 3, TOKENS[:3], generator=torch.Generator().manual_seed(2))


@pytest.fixture
def names():
    return {0: "left", 1: "right", 2: "middle", 7: "lost"}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MaskedAutoencoder(CONFIG, scheme=MaskScheme.parse("random/random")).eval()


def measure_naively(clips, mask, patch_error, regions):
    """Collect the errors and the voxels of each region's masked patches one by one."""
    found = {}
    patches = cut_patches(clips, PATCH).double()
    for token in itertools.product(range(len(clips)), *(range(size) for size in TOKENS)):
        if mask[token]:
            errors, voxels = found.setdefault(int(regions[token[1:4]]), ([], []))
            errors.append(patch_error[token].item())
            voxels.extend(patches[token].tolist())
    return {region: (np.mean(e), np.var(v), len(e)) for region, (e, v) in found.items()}


def test_errors_of_regions_are_those_of_a_naive_loop(clips, mask, regions, names):
    patch_error = torch.rand(3, *TOKENS)
    errors = RegionErrors(regions, names, PATCH)
    errors.add(clips, mask, patch_error)
    table = errors.tabulate().set_index("index")
    expected = measure_naively(clips, mask, patch_error, regions)
    assert set(expected) == {-1, 0, 1, 2}
    for region, (error, variance, n_patches) in expected.items():
        row = table.loc[region]
        assert row["n_patches"] == n_patches
        assert row["error"] == pytest.approx(error, rel=1e-6)
        assert row["variance"] == pytest.approx(variance, rel=1e-5)
        assert row["relative_error"] == pytest.approx(error / variance, rel=1e-5)


def test_batches_may_be_cut_anywhere(clips, mask, regions, names):
    patch_error = torch.rand(3, *TOKENS)
    whole, parts = (RegionErrors(regions, names, PATCH) for _ in range(2))
    whole.add(clips, mask, patch_error)
    for part in (slice(0, 1), slice(1, 3)):
        parts.add(clips[part], mask[part], patch_error[part])
    assert np.allclose(
        whole.tabulate().select_dtypes("number"),
        parts.tabulate().select_dtypes("number"),
        rtol=1e-12,
        equal_nan=True,
    )


def test_regions_together_have_the_loss_of_the_autoencoder(clips, mask, regions, names, model):
    with torch.no_grad():
        found = model(clips, mask)
    errors = RegionErrors(regions, names, PATCH)
    errors.add(clips, mask, found.patch_error)
    table = errors.tabulate().dropna()
    loss = np.average(table["error"], weights=table["n_patches"])
    assert loss == pytest.approx(found.loss.item(), rel=1e-5)


def test_predicting_the_mean_of_a_region_has_a_relative_error_of_one(clips, mask, regions, names):
    patches = cut_patches(clips, PATCH)
    patch_error = torch.zeros(3, *TOKENS)
    for region in (-1, 0, 1, 2):
        chosen = mask & (regions == region).unsqueeze(-1)
        mean = patches[chosen].mean()
        patch_error[chosen] = (patches[chosen] - mean).square().mean(-1)
    errors = RegionErrors(regions, names, PATCH)
    errors.add(clips, mask, patch_error)
    assert errors.tabulate()["relative_error"].dropna().to_numpy() == pytest.approx(1, rel=1e-5)


def test_a_region_in_which_nothing_was_masked_has_no_error(clips, mask, regions, names):
    errors = RegionErrors(regions, names, PATCH)
    errors.add(clips, mask, torch.rand(3, *TOKENS))
    lost = errors.tabulate().set_index("name").loc["lost"]
    assert lost["n_patches"] == 0
    assert lost[["error", "variance", "relative_error"]].isna().all()


def test_a_constant_region_has_an_error_but_no_relative_one(mask, regions, names):
    errors = RegionErrors(regions, names, PATCH)
    errors.add(torch.full((3, 2, 8, 4, 12, 5), 0.3), mask, torch.ones(3, *TOKENS))
    table = errors.tabulate().set_index("index").loc[[0, 1, 2]]
    assert (table["error"] == 1).all()
    assert table["relative_error"].isna().all()


def test_tokens_outside_all_regions_have_a_row_only_where_some_were_masked(
    clips, mask, regions, names
):
    errors = RegionErrors(regions, names, PATCH)
    errors.add(clips, mask & (regions >= 0).unsqueeze(-1), torch.rand(3, *TOKENS))
    assert errors.tabulate()["index"].tolist() == [0, 1, 2, 7]
    errors.add(clips, mask, torch.rand(3, *TOKENS))
    assert errors.tabulate()["name"].tolist()[0] == "outside all regions"


def test_a_region_without_a_name_is_refused(regions):
    with pytest.raises(UsageError, match=r"none for \[1, 2\]"):
        RegionErrors(regions, {0: "left"}, PATCH)

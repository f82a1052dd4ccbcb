from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation

from neurostorm_bids import predict
from neurostorm_bids.attribute import Settings, attribute_series, see_regions
from neurostorm_bids.attribute.gradients import integrate_gradients
from neurostorm_bids.attribute.occlusion import occlude_regions
from neurostorm_bids.attribute.quantity import choose_quantity
from neurostorm_bids.attribute.result import Completeness
from neurostorm_bids.attribute.run import _doubt, spread_evenly
from neurostorm_bids.errors import DataError, TemporaryError, UsageError
from neurostorm_bids.grid.atlas import place_on_tokens
from neurostorm_bids.model.autoencoder import MaskedAutoencoder
from neurostorm_bids.model.config import TargetSpec
from neurostorm_bids.model.masking import MaskScheme

METHODS = ["occlusion", "ig"]
SECOND = np.array([0.2, 0.8])
GROUPS = TargetSpec(name="group", kind="classification", classes=("a", "b", "c"))


def attribute(model, series, regions, *, method="occlusion", batch_size=None, **settings):
    """Attribute with one clip unless told otherwise; float64 networks predict the second class."""
    output = None
    settings = {"n_clips": 1, **settings}
    if model.target is not None:
        is_double = next(model.backbone.parameters()).dtype == torch.float64
        output = SECOND if is_double else predict.predict_series(model, series).output
    return attribute_series(
        model,
        series,
        regions=regions,
        settings=Settings(method=method, **settings),
        output=output,
        batch_size=batch_size,
    )


def by_number(attribution):
    numbers = attribution.regions.indices.tolist()
    return dict(zip(numbers, attribution.found.attributions.tolist(), strict=True))


@pytest.fixture
def series(planted):
    return planted.series()


@pytest.fixture
def regions(planted, series):
    return see_regions(planted.parcellation(), series)


@pytest.fixture
def doubled(planted):
    """A network in float64, where nothing is lost to rounding."""
    model = planted.model()
    model.backbone.double()
    model.head.double()
    return model


@pytest.fixture
def clip(doubled, series):
    return torch.from_numpy(series.read_clip(0, doubled.clip_length))[None, None].double()


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_region_ranks_first(taught, planted, series, regions, method):
    found = by_number(attribute(taught, series, regions, method=method, n_steps=8))
    strengths = {number: abs(value) for number, value in found.items() if number not in {0, 90}}
    first, second = sorted(strengths, key=strengths.get, reverse=True)[:2]
    assert first == planted.region
    assert strengths[first] > 1.5 * strengths[second]


@pytest.mark.parametrize("method", METHODS)
def test_randomised_weights_destroy_the_map(taught, planted, series, regions, method):
    how = {"method": method, "n_steps": 4}
    learnt = attribute(taught, series, regions, **how).found.voxels
    inside = planted.brain()
    similar = []
    for seed in (11, 12):
        other = attribute(planted.model(seed=seed), series, regions, **how).found.voxels
        similar.append(abs(np.corrcoef(learnt[inside], other[inside])[0, 1]))
    again = attribute(taught, planted.series(seed=1), regions, **how).found.voxels
    assert max(similar) < abs(np.corrcoef(learnt[inside], again[inside])[0, 1])


@pytest.mark.parametrize("target", ["age", "groups"])
def test_integrated_gradients_add_up_to_what_they_explain(planted, series, regions, target):
    chosen = {"age": planted.age, "groups": GROUPS}[target]
    attribution = attribute(planted.model(chosen), series, regions, method="ig", n_steps=16)
    total = np.nansum(attribution.found.attributions)
    completeness = attribution.found.completeness
    explained = completeness.output - completeness.baseline_output
    assert total == pytest.approx(completeness.total, abs=1e-6)
    assert total == pytest.approx(explained, rel=0.05)
    assert completeness.relative_error < 0.05
    assert attribution.found.voxels.sum(dtype=np.float64) == pytest.approx(total, abs=1e-5)
    assert not attribution.found.warnings


def test_too_few_steps_are_told(planted, series, regions):
    attribution = attribute(planted.model(), series, regions, method="ig", n_steps=1)
    assert attribution.found.completeness.relative_error > 0.05
    (warning,) = attribution.found.warnings
    assert "With 1 steps the attributions add up to" in warning


def test_an_output_that_equals_that_of_the_baseline_is_told_in_words():
    (warning,) = _doubt(Completeness(output=0.5, baseline_output=0.5, total=0.1), n_steps=8)
    assert "the same of the baseline as of the clips" in warning
    assert "nan" not in warning


def test_more_steps_come_nearer_in_float64(doubled, clip, planted):
    quantity = choose_quantity(planted.sex, SECOND)
    baseline = torch.full_like(clip, -3.0)
    errors = []
    for n_steps in (3, 9, 27):
        found = integrate_gradients(doubled, clip, baseline, quantity=quantity, n_steps=n_steps)
        errors.append(abs(found.voxels.sum() - (found.output - found.baseline_output)))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3 * abs(found.output - found.baseline_output)


def test_occlusion_is_that_of_captum(doubled, clip, planted, regions):
    quantity = choose_quantity(planted.sex, SECOND)
    baseline = torch.full_like(clip, -3.0)
    found = occlude_regions(doubled, clip, baseline, regions=regions, quantity=quantity)
    # Rows from 0, and one more for voxels outside the brain, which are not looked at.
    mask = torch.from_numpy(np.where(regions.rows < 0, len(regions.indices), regions.rows))
    with torch.no_grad():
        expected = FeatureAblation(lambda x: quantity.measure(doubled, x)).attribute(
            clip, baselines=-3.0, feature_mask=mask[None, None, ..., None]
        )[0, 0, ..., 0]
    for row in regions.seen_rows:
        (value,) = expected[mask == row].unique().tolist()
        assert found.drops[row] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_float32_agrees_with_float64(planted, series, regions, doubled, method):
    settings = Settings(method=method, n_clips=1, n_steps=4)
    single, double = (
        attribute_series(model, series, regions=regions, settings=settings, output=SECOND).found
        for model in (planted.model(), doubled)
    )
    np.testing.assert_allclose(single.attributions, double.attributions, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(single.voxels, double.voxels, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_batch_changes_nothing(doubled, series, regions, method):
    one, many = (
        attribute(
            doubled, series, regions, method=method, batch_size=size, n_steps=7
        ).found.attributions
        for size in (1, 5)
    )
    np.testing.assert_allclose(one, many, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_flipped_atlas_with_its_affine_gives_the_same_table(planted, series, method):
    labels, flip = planted.labels(), np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = labels.shape[0] - 1
    flipped = planted.parcellation(labels[::-1].copy(), planted.grid.affine_matrix @ flip)
    model = planted.model()
    tables = [
        attribute(model, series, see_regions(one, series), method=method, n_steps=4)
        for one in (planted.parcellation(), flipped)
    ]
    assert by_number(tables[0]) == pytest.approx(by_number(tables[1]), nan_ok=True)


def test_the_logit_of_the_predicted_class_is_attributed(planted, series, regions):
    model = planted.model()
    attribution = attribute(model, series, regions, n_clips=None)
    output = predict.predict_series(model, series).output
    label = planted.sex.classes[int(output.argmax())]
    assert attribution.found.quantity.label == label
    assert label in attribution.found.quantity.description
    assert attribution.found.output > 0  # log-odds of the class that won
    model.head.head.weight.data.neg_()
    model.head.head.bias.data.neg_()
    other = attribute(model, series, regions, n_clips=None)
    assert other.found.quantity.label != label
    np.testing.assert_allclose(
        other.found.attributions, attribution.found.attributions, rtol=1e-4, atol=1e-6
    )


def test_values_are_attributed_in_their_own_unit(planted, series, regions):
    model = planted.model(planted.age)
    plain = planted.model(replace(planted.age, mean=None, sd=None, unit=None))
    years, z = (attribute(one, series, regions) for one in (model, plain))
    assert (years.found.unit, z.found.unit) == ("years", "z-score")
    np.testing.assert_allclose(years.found.attributions, 10 * z.found.attributions, rtol=1e-3)


def test_the_mean_as_baseline_leaves_a_still_run_as_it_is(planted, regions):
    series = planted.series()
    still = replace(series, frames=np.repeat(series.frames[:1], len(series.frames), axis=0))
    model = planted.model()
    for method in METHODS:
        found = attribute(model, still, regions, method=method, baseline="mean", n_steps=2).found
        assert np.nanmax(np.abs(found.attributions)) < 1e-5
        assert np.abs(found.voxels).max() < 1e-5


def test_regions_without_a_voxel_have_no_attribution(planted, series, regions):
    found = by_number(attribute(planted.model(), series, regions))
    assert np.isnan(found.pop(90))
    assert np.isfinite(list(found.values())).all()
    assert list(found) == sorted(found)


def test_the_map_shows_each_region_its_own_value_and_nothing_outside_the_brain(
    planted, series, regions
):
    attribution = attribute(planted.model(), series, regions)
    labels, brain = planted.labels(), planted.brain()
    for number, value in by_number(attribution).items():
        inside = attribution.found.voxels[(labels == number) & brain]
        np.testing.assert_array_equal(inside, np.float32(value))
    assert not attribution.found.voxels[~brain].any()


def test_what_lies_outside_the_brain_is_counted(planted):
    brain = planted.brain()
    brain[:8] = False  # the first half of X: regions 10 to 40
    regions = see_regions(planted.parcellation(), planted.series(brain=brain))
    share = dict(zip(regions.indices.tolist(), regions.share_outside.tolist(), strict=True))
    assert share[10] == 1
    assert share[50] == 0
    assert np.isnan([share[0], share[90]]).all()
    counts = dict(zip(regions.indices.tolist(), regions.n_voxels.tolist(), strict=True))
    assert counts[10] == counts[90] == 0
    assert counts[50] == 6**3
    assert sum(counts.values()) == brain.sum()


def test_an_atlas_that_misses_the_brain_is_refused(planted, series):
    affine = planted.grid.affine_matrix
    affine[0, 3] += 1000
    with pytest.raises(DataError, match=r"None of the 9 regions of octants .*--atlas"):
        see_regions(planted.parcellation(affine=affine), series)


def test_clips_are_spread_evenly():
    assert spread_evenly(10, None) == list(range(10))
    assert spread_evenly(10, 20) == list(range(10))
    assert spread_evenly(10, 1) == [5]
    assert spread_evenly(9, 3) == [1, 4, 7]
    assert spread_evenly(1, 4) == [0]


def test_the_mean_over_clips_is_weighted_as_predictions_are(planted, regions):
    series = planted.series(n_volumes=10)  # clips from 0, 4 and 6: the last overlaps
    model = planted.model()
    whole = attribute(model, series, regions, n_clips=None)
    assert whole.onsets_s == (0.0, 3.2, 4.8)
    outputs = predict.predict_series(model, series)
    logits = np.log(outputs.clip_outputs / outputs.clip_outputs[:, ::-1])
    sign = int(outputs.output.argmax())
    assert whole.found.output == pytest.approx(
        float(outputs.clip_weights @ logits[:, sign]), rel=1e-4
    )
    part = attribute(model, series, regions, n_clips=1)
    assert part.onsets_s == (3.2,)
    assert part.n_clips == 3


def test_gradients_leave_the_weights_as_they_were(planted, series, regions):
    model = planted.model()
    model.head.head.bias.requires_grad = False
    attribute(model, series, regions, method="ig", n_steps=2)
    assert not model.head.head.bias.requires_grad
    assert all(p.requires_grad and p.grad is None for p in model.backbone.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_the_batch_shrinks_when_memory_ends(planted, series, regions, method, monkeypatch):
    model = planted.model()
    expected = attribute(model, series, regions, method=method, n_steps=4).found.attributions
    forward, sizes = model.backbone.forward, []

    def crowded(clips, *, room, **kwargs):
        sizes.append(len(clips))
        if len(clips) > room:
            raise torch.OutOfMemoryError
        return forward(clips, **kwargs)

    monkeypatch.setattr(model.backbone, "forward", lambda x, **kw: crowded(x, room=2, **kw))
    found = attribute(model, series, regions, method=method, n_steps=4, batch_size=4)
    np.testing.assert_allclose(found.found.attributions, expected, rtol=1e-4, atol=1e-6)
    assert max(sizes) == 4
    monkeypatch.setattr(model.backbone, "forward", lambda x, **kw: crowded(x, room=0, **kw))
    with pytest.raises(TemporaryError, match="does not fit"):
        attribute_series(
            model, series, regions=regions, settings=Settings(method=method), output=SECOND
        )


def with_decoder(model, *, scheme="random/random", seed=5):
    torch.manual_seed(seed)
    autoencoder = MaskedAutoencoder(model.config, scheme=MaskScheme.parse(scheme))
    own = model.backbone.state_dict()
    weights = {k: v for k, v in autoencoder.published_state().items() if k not in own}
    return replace(model, decoder_weights=weights, mask_scheme=scheme)


def test_a_decoder_gives_the_error_of_each_region_by_itself(planted, series, regions):
    model = with_decoder(planted.model(None))
    attribution = attribute(model, series, regions, n_clips=1)
    assert attribution.found.method == "reconstruction"
    found = by_number(attribution)
    autoencoder = MaskedAutoencoder(model.config, scheme=MaskScheme.parse(model.mask_scheme))
    autoencoder.load_published_state({**model.backbone.state_dict(), **model.decoder_weights})
    clip = torch.from_numpy(series.read_clip(4, model.clip_length))[None, None]
    tokens = place_on_tokens(planted.labels(), model.config.patch_size)
    for number in range(10, 90, 10):
        mask = torch.from_numpy(tokens == number)[None, ..., None].expand(1, 4, 4, 4, 4)
        with torch.no_grad():
            loss = autoencoder.eval()(clip, mask).loss.item()
        assert found[number] == pytest.approx(loss, rel=1e-5)
    assert np.isnan([found[0], found[90]]).all()
    relative = attribution.found.columns["relative_error"]
    assert np.isfinite(relative[1:9]).all()


def test_a_region_that_is_harder_to_make_up_has_a_larger_error(planted, series, regions):
    loud = series.frames.copy()
    loud[:, planted.labels()[planted.brain()] == planted.region] *= 4
    model = with_decoder(planted.model(None))
    found = by_number(attribute(model, replace(series, frames=loud), regions))
    seen = {number: value for number, value in found.items() if np.isfinite(value)}
    assert max(seen, key=seen.get) == planted.region


def test_the_learned_token_is_the_one_that_was_trained(planted, series, regions):
    model = with_decoder(planted.model(None))
    tokens = dict(model.decoder_weights)
    tokens["atlas_mask_token"] = tokens["atlas_mask_token"] + 1
    changed = replace(model, decoder_weights=tokens)
    before, after = (by_number(attribute(one, series, regions)) for one in (model, changed))
    assert before == pytest.approx(after, nan_ok=True)
    with_atlas = [replace(one, mask_scheme="atlas/tube") for one in (model, changed)]
    before, after = (by_number(attribute(one, series, regions)) for one in with_atlas)
    assert before != pytest.approx(after, nan_ok=True)


def test_an_unknown_mask_is_told(planted, series, regions):
    model = replace(with_decoder(planted.model(None)), mask_scheme=None)
    (warning,) = attribute(model, series, regions).found.warnings
    assert "window/random was taken" in warning


def test_a_model_without_head_and_decoder_has_nothing_to_attribute(planted, series, regions):
    with pytest.raises(UsageError, match="neither a head that predicts nor a decoder"):
        attribute(planted.model(None), series, regions)

"""Time embeddings for clips of another length, and what a checkpoint cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from neurostorm_bids.errors import DataError
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import HeadConfig, TargetSpec
from neurostorm_bids.model.published import read_published
from neurostorm_bids.model.weights import Checkpoint, Provenance, fit_clip_length

PROVENANCE = Provenance(name="a", source="a.ckpt", sha256="0" * 64, format="published")


@pytest.fixture
def checkpoint(publish):
    return read_published(publish())


def time_embeds(checkpoint):
    return [value for key, value in checkpoint.weights.items() if key.endswith("time_embed")]


def with_time_embeds(checkpoint, values):
    """Give every stage these values, one per volume."""
    weights = {
        key: torch.tensor(values).expand_as(value).clone() if key.endswith("time_embed") else value
        for key, value in checkpoint.weights.items()
    }
    return replace(checkpoint, weights=weights)


def test_the_same_length_changes_nothing(checkpoint):
    assert fit_clip_length(checkpoint, 4) is checkpoint


@pytest.mark.parametrize("clip_length", [1, 3, 5, 8, 40])
def test_another_length_loads_strictly_and_is_noted(checkpoint, clip_length):
    fitted = fit_clip_length(checkpoint, clip_length)
    Backbone(fitted.config).load_state_dict(fitted.weights, strict=True)
    assert fitted.config == replace(checkpoint.config, img_size=(16, 16, 16, clip_length))
    assert f"for {clip_length} volumes" in fitted.provenance.notes[-1]
    assert "that for 4" in fitted.provenance.notes[-1]


def test_only_time_embeddings_change(checkpoint):
    fitted = fit_clip_length(checkpoint, 9)
    changed = {k for k, v in fitted.weights.items() if v is not checkpoint.weights[k]}
    assert changed == {f"pos_embeds.{stage}.time_embed" for stage in range(3)}


def test_a_shorter_clip_takes_the_first_part(checkpoint):
    for short, full in zip(
        time_embeds(fit_clip_length(checkpoint, 3)), time_embeds(checkpoint), strict=True
    ):
        assert torch.equal(short, full[..., :3])


def test_a_constant_stays_constant(checkpoint):
    fitted = fit_clip_length(with_time_embeds(checkpoint, [2.5] * 4), 11)
    assert all(bool((value == 2.5).all()) for value in time_embeds(fitted))


def test_twice_the_length_interpolates_between_the_centres_of_the_volumes(checkpoint):
    fitted = fit_clip_length(with_time_embeds(checkpoint, [0.0, 4.0, 8.0, 12.0]), 8)
    for value in time_embeds(fitted):
        assert value[0, 0, 0, 0, 0].tolist() == [0, 1, 3, 5, 7, 9, 11, 12]


def test_a_length_that_the_model_cannot_read_is_refused(checkpoint):
    with pytest.raises(DataError, match="as img_size"):
        fit_clip_length(checkpoint, 0)


def test_a_transformer_head_bounds_the_length(tiny_config):
    checkpoint = Checkpoint(
        config=tiny_config,
        head=HeadConfig(version="v3", n_outputs=1, n_tokens=40),
        target=TargetSpec(name="sex", kind="classification", classes=("F", "M")),
        weights={},
        provenance=PROVENANCE,
    )
    assert fit_clip_length(checkpoint, 5).config.clip_length == 5
    with pytest.raises(DataError, match="48 tokens, but the head has positions for 40"):
        fit_clip_length(checkpoint, 6)


@pytest.mark.parametrize(
    ("head", "target", "message"),
    [
        (None, TargetSpec(name="age", kind="regression"), "no such head and the target 'age'"),
        (HeadConfig(version="v1", n_outputs=1), None, "a head and no target"),
        (
            HeadConfig(version="v1", n_outputs=1),
            TargetSpec(name="age", kind="regression"),
            "does not fit",
        ),
        (
            HeadConfig(version="v1", n_outputs=3),
            TargetSpec(name="sex", kind="classification", classes=("F", "M")),
            "does not fit",
        ),
    ],
)
def test_head_and_target_must_go_together(tiny_config, head, target, message):
    with pytest.raises(DataError, match=message):
        Checkpoint(config=tiny_config, head=head, target=target, weights={}, provenance=PROVENANCE)


def test_provenance_comes_back_from_its_values():
    provenance = replace(PROVENANCE, notes=("one", "two"))
    assert Provenance.from_dict(provenance.to_dict()) == provenance


@pytest.mark.parametrize(
    "change", [{"sha256": None}, {"notes": "x"}, {"notes": [1]}, {"format": "zip"}, {"more": 1}]
)
def test_provenance_of_another_kind_is_refused(change):
    with pytest.raises(DataError, match="Provenance"):
        Provenance.from_dict(PROVENANCE.to_dict() | change)

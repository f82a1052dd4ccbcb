from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.train.pictures import draw_curves, draw_slices

FIELDS = ("original", "masked", "reconstructed", "error")


@pytest.fixture
def affine():
    return GridSpec.published(24).affine_matrix


def map_volumes(example, change):
    return replace(example, **{name: change(getattr(example, name)) for name in FIELDS})


def draw_rows(step_loss, *, levels=None):
    training = [{"step": s, "loss": loss, "learning_rate": 0.1} for s, loss in step_loss]
    picture = draw_curves(
        training,
        [{"step": 1, "loss": 1.0}],
        columns=["loss"],
        best_step=1,
        levels=levels or {},
    )
    return imread(io.BytesIO(picture), format="png")


def test_flipping_volumes_and_affine_together_changes_nothing(example, affine):
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = 23
    flipped = map_volumes(example, lambda volume: volume[::-1])
    lopsided = replace(example, original=example.original + np.linspace(0, 2, 24)[:, None, None])
    assert draw_slices(flipped, affine @ flip) == draw_slices(example, affine)
    assert draw_slices(lopsided, affine) != draw_slices(lopsided, affine @ flip)


def test_what_is_bright_on_the_right_is_drawn_on_the_right(example, affine):
    world_x = affine[0, 0] * np.arange(24)[:, None, None] + affine[0, 3]
    bright = np.where(example.original > 0, np.where(world_x > 0, 1.0, 0.3), 0)
    picture = draw_slices(replace(example, original=bright.astype(np.float32)), affine)
    pixels = imread(io.BytesIO(picture), format="png")[..., :3].mean(axis=-1)
    height, width = pixels.shape
    axial = pixels[int(height * 0.6) : int(height * 0.85), int(width * 0.11) : int(width * 0.29)]
    brain = (axial > 0.05) & (axial < 0.999)
    half = axial.shape[1] // 2
    assert brain[:, :half].any()
    assert axial[:, half:].mean() > axial[:, :half].mean() * 1.5


@pytest.mark.parametrize("share", [0, 1])
def test_an_example_with_nothing_or_everything_masked_is_drawn(example, affine, share):
    masked = np.full(example.original.shape, bool(share))
    assert draw_slices(replace(example, masked=masked), affine).startswith(b"\x89PNG")


def test_a_volume_without_any_contrast_is_drawn(example, affine):
    flat = map_volumes(example, np.zeros_like)
    assert draw_slices(flat, affine).startswith(b"\x89PNG")


def test_curves_with_a_level_differ_from_those_without():
    rows = [(step, 1 / step) for step in range(1, 20)]
    plain = draw_rows(rows)
    assert not np.array_equal(plain, draw_rows(rows, levels={"loss": {"mean": 0.7}}))
    assert np.array_equal(plain, draw_rows(rows))


def test_a_loss_of_zero_is_drawn_on_a_plain_axis():
    assert draw_rows([(1, 0.5), (2, 0.0)]).ndim == 3


def test_each_column_has_axes_of_its_own():
    rows = [{"step": 1, "loss": 1.0, "mae": 0.5, "learning_rate": 0.1}]
    heights = [
        imread(
            io.BytesIO(draw_curves(rows, rows, columns=columns, best_step=1, levels={})),
            format="png",
        ).shape[0]
        for columns in (["loss"], ["loss", "mae"])
    ]
    assert heights[1] > heights[0]


def test_long_trainings_are_drawn_by_means_of_neighbouring_rows():
    # Noise around 1 with as many rows above as below: its means lie on a line.
    rows = [(step, 1 + 0.5 * (-1) ** step) for step in range(1, 40_001)]
    noisy, thinned = draw_rows(rows[:900]), draw_rows(rows)
    assert measure_ink(thinned) < measure_ink(noisy) / 5


def measure_ink(pixels):
    """Count the pixels in the colour of the training's line."""
    return (np.abs(pixels[..., :3] - 0x8C / 255).max(axis=-1) < 0.02).sum()

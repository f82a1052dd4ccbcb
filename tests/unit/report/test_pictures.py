from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from neurostorm_bids.grid.planes import turn_to_ras
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.model.assessment import Assessment
from neurostorm_bids.report.carpet import draw_carpet
from neurostorm_bids.report.montage import AXIAL, CORONAL, find_template_brain, plan_montage
from neurostorm_bids.report.predictions import (
    compare_clips,
    draw_predictions,
    draw_recurrence,
    measure_distances,
)
from neurostorm_bids.report.signals import measure_signals
from neurostorm_bids.report.volumes import draw_mosaic, draw_noise

from .conftest import AGE, GRID


def read_texts(picture):
    root = ET.fromstring(picture.content)
    return ["".join(one.itertext()) for one in root.iter() if one.tag.endswith("}text")]


def read_images(picture):
    found = re.findall(rb"data:image/png;base64,([^\"]+)", picture.content)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("side", "is_left"), [(-1, True), (1, False)])
def test_what_is_bright_on_the_left_of_the_head_is_drawn_on_the_left(
    make_series, flip, side, is_left
):
    series = make_series(bright_side=side, flip=flip)
    picture = draw_mosaic(series, measure_signals(series))
    axial = read_images(picture)[0].astype(float)
    tiles = np.array_split(axial, 7, axis=1)
    tile = tiles[6][: len(axial) // 2]  # the middle of the head is the end of the first row
    left, right = tile[:, : tile.shape[1] // 2].sum(), tile[:, -(tile.shape[1] // 2) :].sum()
    assert (left > right) == is_left
    texts = read_texts(picture)
    assert texts.count("L") == texts.count("R") == 21


def test_flipping_a_run_and_its_affine_together_changes_no_picture(make_series):
    pictures = [
        draw_mosaic(series, measure_signals(series)).content
        for series in (make_series(bright_side=1), make_series(bright_side=1, flip=True))
    ]
    assert pictures[0] == pictures[1]


def test_the_letters_of_a_tile_stand_at_its_sides(series):
    mask, affine = turn_to_ras(series.brain_mask, GRID.affine_matrix)
    for view in (AXIAL, CORONAL):
        plan = plan_montage(mask, affine, view, n_tiles=6, n_columns=3)
        assert plan.n_rows == 2
        right_of_head = np.indices(mask.shape)[0].astype(float)
        image = plan.lay(right_of_head, background=-1)
        tile = image[: plan.shown[0], : plan.shown[1]]
        assert (np.diff(tile, axis=1) > 0).all()  # the right of the head is on the right: R
        assert view.ends[:2] == ("L", "R")


def test_the_brain_of_the_template_lies_on_every_grid_of_its_space():
    small, large = GridSpec.published(24), GridSpec.published(48)
    volumes = []
    for grid in (small, large):
        inside = find_template_brain(grid.space, grid.shape, grid.affine_matrix)
        volumes.append(inside.sum() * np.prod(grid.voxel_size_mm) / 1e6)
        world_x = grid.affine_matrix[0, 0] * np.arange(grid.shape[0]) + grid.affine_matrix[0, 3]
        assert abs(np.average(world_x, weights=inside.sum(axis=(1, 2)))) < 2
    assert volumes == pytest.approx([1.88, 1.88], rel=0.05)  # litres of a head like the template
    assert find_template_brain("T1w", small.shape, small.affine_matrix) is None


def test_noise_is_told_by_its_median(series):
    signals = measure_signals(series)
    picture = draw_noise(series, signals)
    assert picture.measures["MedianTSNR"] == pytest.approx(np.nanmedian(signals.tsnr))
    assert picture.measures["MedianTSNR"] == pytest.approx(100, rel=0.1)
    frames = series.frames - series.frames.mean(axis=0)
    demeaned = replace(series, frames=frames)
    picture = draw_noise(demeaned, measure_signals(demeaned))
    assert "MedianTSNR" not in picture.measures
    assert "was removed" in picture.caption


def test_displacement_is_drawn_where_it_is_known(series):
    signals = measure_signals(series)
    without = draw_carpet(signals, repetition_time_s=2.0, displacement=None)
    moved = np.full(20, 0.1)
    moved[0], moved[5] = np.nan, 2.0
    drawn = draw_carpet(signals, repetition_time_s=2.0, displacement=moved)
    assert "(mm)" in read_texts(drawn)
    assert "(mm)" not in read_texts(without)
    assert drawn.measures["MeanFramewiseDisplacement"] == pytest.approx(0.2)
    assert drawn.measures["MaximumFramewiseDisplacement"] == 2.0
    assert "0.20 mm on average" in drawn.caption
    assert "no framewise displacement" in without.caption
    nothing = draw_carpet(signals, repetition_time_s=2.0, displacement=np.full(20, np.nan))
    assert nothing.measures == {}


def test_a_long_run_is_averaged_to_what_a_picture_can_show(series):
    long = replace(series, frames=np.tile(series.frames, (100, 1)))
    picture = draw_carpet(measure_signals(long), repetition_time_s=0.5, displacement=None)
    (carpet,) = read_images(picture)
    assert carpet.shape == (300, 600)
    assert len(picture.content) < 500_000


def test_predictions_say_their_numbers_in_words(make_prediction):
    sex = make_prediction()
    picture = draw_predictions(sex)
    winner = sex.target.classes[int(sex.output.argmax())]
    assert f"sex = {winner}, with a probability of {sex.output.max():.3f}" in picture.alt
    found = Assessment(interval=(20.0, 30.0), coverage=0.9, n_participants=40, novelty_rank=0.25)
    age = draw_predictions(make_prediction(AGE, assessment=found))
    assert "from 20 to 30" in age.caption
    assert "90%" in age.caption
    assert "than 25%" in age.caption
    assert draw_predictions(make_prediction(None)) is None


def test_a_single_clip_has_a_prediction_and_no_recurrence(make_prediction):
    spread = np.full(2, np.nan, dtype="f4")
    one = make_prediction(n_clips=1, spread=spread)
    assert "spread over clips" not in draw_predictions(one).alt
    assert draw_recurrence(one) is None
    assert draw_recurrence(make_prediction(n_clips=2)) is None


def test_clips_of_two_states_are_alike_within_and_unlike_between():
    states = np.array([0, 0, 1, 1, 0])
    embeddings = np.where(states[:, None] == 0, [[5.0, 1.0]], [[5.0, -1.0]]).astype("f4")
    similarity = compare_clips(embeddings)
    same = states[:, None] == states
    assert np.allclose(similarity[same], 1)
    assert np.allclose(similarity[~same], -1)
    assert np.isfinite(compare_clips(np.ones((4, 3), dtype="f4"))).all()


def test_distances_are_shares_of_the_length_of_the_mean():
    embeddings = np.array([[3.0, 4.0], [3.0, 9.0]], dtype="f4")
    assert np.allclose(measure_distances(embeddings, np.array([3.0, 4.0])), [0, 100])
    assert np.isfinite(measure_distances(embeddings, np.zeros(2))).all()


def test_a_recurrence_names_the_clip_unlike_all_others(make_prediction):
    embeddings = np.ones((5, 6), dtype="f4")
    embeddings[3] = 9
    picture = draw_recurrence(make_prediction(clip_embeddings=embeddings, embedding=np.ones(6)))
    assert "clip 3, from 24 s on, is the farthest with 8e+02 %" in picture.alt


def test_clips_that_were_censored_are_left_out_of_a_recurrence(make_prediction):
    embeddings = make_prediction().clip_embeddings.copy()
    embeddings[1] = np.nan
    mean = np.nanmean(embeddings, axis=0)
    picture = draw_recurrence(make_prediction(clip_embeddings=embeddings, embedding=mean))
    assert "nan" not in picture.alt
    embeddings[2:4] = np.nan
    assert draw_recurrence(make_prediction(clip_embeddings=embeddings, embedding=mean)) is None

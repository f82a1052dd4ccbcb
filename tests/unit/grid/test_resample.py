from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids.errors import DataError
from neurostorm_bids.grid.resample import (
    build_interpolation,
    find_clock,
    find_positions,
    interpolate_in_time,
    is_inside,
    is_pick,
    reflect_in_time,
    resample_in_space,
)

SHAPE = (7, 6, 5)
ANGLES = st.floats(-0.5, 0.5)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(20)


def rotate(angle: float, axes: tuple[int, int]) -> np.ndarray:
    rotation = np.eye(4)
    i, j = axes
    rotation[i, i] = rotation[j, j] = np.cos(angle)
    rotation[i, j], rotation[j, i] = -np.sin(angle), np.sin(angle)
    return rotation


def all_voxels(shape: tuple[int, int, int]) -> np.ndarray:
    return np.indices(shape).reshape(3, -1).T


def test_positions_between_equal_affines_are_the_voxels_themselves() -> None:
    affine = rotate(0.3, (0, 2)) @ np.diag([2, 3, 2.5, 1])
    np.testing.assert_array_equal(
        find_positions(all_voxels(SHAPE), affine, affine), all_voxels(SHAPE)
    )


@given(a=ANGLES, b=ANGLES, size=st.floats(1, 4))
def test_positions_there_and_back_are_where_they_began(a, b, size) -> None:
    one = rotate(a, (0, 1)) @ np.diag([size, 2, 3, 1])
    other = rotate(b, (1, 2)) @ np.diag([-2, 2, 2, 1])
    there = find_positions(all_voxels(SHAPE), one, other)
    back = find_positions(there, other, one)
    np.testing.assert_allclose(back, all_voxels(SHAPE), atol=4e-3)


def test_positions_are_rounded_only_within_the_tolerance() -> None:
    affine, near, far = np.eye(4), np.eye(4), np.eye(4)
    near[:3, 3], far[:3, 3] = 9e-4, 2e-3
    assert find_positions(np.zeros((1, 3), int), near, affine).tolist() == [[0, 0, 0]]
    assert find_positions(np.zeros((1, 3), int), far, affine).tolist() == [[2e-3] * 3]


def test_field_of_view_holds_its_outermost_voxels_whole() -> None:
    positions = np.array([[-0.5, 0, 0], [6.5, 5.5, 4.5], [-0.51, 0, 0], [0, 5.51, 0]])
    assert is_inside(positions, SHAPE).tolist() == [True, True, False, False]


@given(seed=st.integers(0, 999))
def test_interpolation_reproduces_a_linear_image_at_any_position(seed) -> None:
    random = np.random.default_rng(seed)
    slopes = random.normal(size=3)
    positions = random.uniform(0, np.array(SHAPE) - 1, size=(50, 3))
    image = np.tensordot(np.indices(SHAPE), slopes, axes=(0, 0)) + 4
    values = build_interpolation(positions, SHAPE) @ image.ravel(order="F")
    np.testing.assert_allclose(values, positions @ slopes + 4, atol=1e-5)


@given(seed=st.integers(0, 999))
def test_weights_of_a_position_are_positive_and_sum_to_one(seed) -> None:
    random = np.random.default_rng(seed)
    positions = random.uniform(-0.5, np.array(SHAPE) - 0.5, size=(50, 3))
    interpolation = build_interpolation(positions, SHAPE)
    np.testing.assert_allclose(interpolation.sum(axis=1), 1, atol=1e-6)
    assert interpolation.data.min() > 0


def test_interpolation_at_voxels_picks_them_unchanged_in_any_order(random) -> None:
    image = random.normal(size=SHAPE).astype(np.float32)
    voxels = random.permutation(all_voxels(SHAPE))
    interpolation = build_interpolation(voxels.astype(float), SHAPE)
    assert is_pick(interpolation)
    np.testing.assert_array_equal(interpolation @ image.ravel(order="F"), image[tuple(voxels.T)])


def test_interpolation_half_a_voxel_outside_holds_the_outermost_value(random) -> None:
    image = random.normal(size=SHAPE).astype(np.float32)
    positions = np.array([[-0.5, 2, 2], [6.5, 5.4, 4.2], [3, -0.2, 1]])
    values = build_interpolation(positions, SHAPE) @ image.ravel(order="F")
    np.testing.assert_allclose(values, [image[0, 2, 2], image[6, 5, 4], image[3, 0, 1]])


def test_voxel_that_weighs_nothing_does_no_harm_when_it_is_nan() -> None:
    image = np.ones(SHAPE, dtype=np.float32)
    image[3] = np.nan
    interpolation = build_interpolation(np.array([[2.0, 1.5, 2.5], [4, 1, 1]]), SHAPE)
    np.testing.assert_array_equal(interpolation @ image.ravel(order="F"), [1, 1])


@pytest.mark.parametrize("positions", [np.zeros((4, 3)), np.full((4, 3), 0.25)])
def test_frames_tell_which_voxels_are_finite_in_every_volume(positions) -> None:
    positions[:, 0] += range(4)
    volumes = np.ones((3, *SHAPE), dtype=np.float32)
    volumes[1, 3, :2, :2] = np.inf
    frames = resample_in_space(
        (volume.ravel(order="F") for volume in volumes),
        build_interpolation(positions, SHAPE),
        n_volumes=3,
    )
    reaches_next = bool(positions[0, 0])
    assert frames.finite.tolist() == [True, True, not reaches_next, False]


def test_series_beyond_any_run_is_refused_before_it_is_allocated() -> None:
    interpolation = build_interpolation(np.zeros((10**4, 3)), SHAPE)
    with pytest.raises(DataError, match="expected a single run"):
        resample_in_space(iter([]), interpolation, n_volumes=10**8)


@pytest.mark.parametrize(
    ("n_volumes", "repetition_time_s"), [(12, 2.0), (12, 0.72), (9, 1.5), (40, 0.8), (5, 3.1)]
)
def test_time_is_resampled_as_torch_interpolates_half_sample_centres(
    random, n_volumes, repetition_time_s
) -> None:
    frames = random.normal(size=(n_volumes, 30)).astype(np.float32)
    clock = find_clock(n_volumes, source_repetition_time_s=repetition_time_s, repetition_time_s=0.8)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(frames.T)[None], size=clock.n_volumes, mode="linear", align_corners=False
    )[0].T
    found = interpolate_in_time(frames, clock, range(clock.n_volumes))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("n_volumes", "repetition_time_s", "expected"),
    [(300, 2.0, 750), (1200, 0.72, 1080), (1, 2.0, 2), (3, 2.0, 8), (5, 2.0, 12), (1, 0.4, 0)],
)
def test_number_of_volumes_is_rounded_half_to_even(n_volumes, repetition_time_s, expected) -> None:
    clock = find_clock(n_volumes, source_repetition_time_s=repetition_time_s, repetition_time_s=0.8)
    assert clock.n_volumes == expected


def test_equal_repetition_times_take_volumes_as_they_are(random) -> None:
    frames = random.normal(size=(9, 4)).astype(np.float32)
    clock = find_clock(9, source_repetition_time_s=0.8, repetition_time_s=0.8)
    np.testing.assert_array_equal(interpolate_in_time(frames, clock, range(9)), frames)


def test_flipping_time_commutes_with_resampling_it(random) -> None:
    frames = random.normal(size=(11, 4)).astype(np.float32)
    clock = find_clock(11, source_repetition_time_s=1.1, repetition_time_s=0.8)
    volumes = range(clock.n_volumes)
    flipped = interpolate_in_time(frames[::-1], clock, volumes)[::-1]
    np.testing.assert_allclose(interpolate_in_time(frames, clock, volumes), flipped, atol=1e-5)


@pytest.mark.parametrize(("n_volumes", "length"), [(2, 9), (7, 20), (19, 20), (20, 20)])
def test_reflection_is_that_of_numpy(n_volumes, length) -> None:
    expected = np.pad(np.arange(n_volumes), (0, length - n_volumes), mode="reflect")
    np.testing.assert_array_equal(reflect_in_time(np.arange(length), n_volumes), expected)

from __future__ import annotations

import numpy as np

from neurostorm_bids.grid.nearest import look_up_nearest, look_up_scattered

COARSE = np.array([[-4.0, 0, 0, 12], [0, 4, 0, -12], [0, 0, 4, -12], [0, 0, 0, 1]])
FINE = np.array([[2.0, 0, 0, -13], [0, 2, 0, -13], [0, 0, 2, -13], [0, 0, 0, 1]])
SHAPE = (7, 7, 7)


def make_image():
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def find_world(affine, shape):
    return np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]


def test_left_stays_left():
    image = make_image()
    image[find_world(COARSE, SHAPE)[..., 0] > 0] = 0
    found = look_up_nearest(image, COARSE, at_shape=(14, 14, 14), at_affine=FINE)
    world = find_world(FINE, (14, 14, 14))
    assert found[world[..., 0] < -2].any()
    assert not found[world[..., 0] > 2].any()


def test_every_voxel_has_the_value_of_the_one_it_lies_in():
    image = make_image()
    found = look_up_nearest(image, COARSE, at_shape=(14, 14, 14), at_affine=FINE)
    assert found[0, 0, 0] == image[6, 0, 0]
    np.testing.assert_array_equal(np.unique(found), np.unique(image))


def test_outside_the_field_of_view_is_nothing():
    away = FINE.copy()
    away[:3, 3] += 100
    assert not look_up_nearest(make_image(), COARSE, at_shape=(3, 3, 3), at_affine=away).any()


def test_scattered_values_on_a_grid_are_looked_up_as_an_image_is():
    image, world = make_image(), find_world(COARSE, SHAPE).astype(np.float32)
    expected = look_up_nearest(image, COARSE, at_shape=(14, 14, 14), at_affine=FINE)
    found = look_up_scattered(image, world, at_shape=(14, 14, 14), at_affine=FINE)
    np.testing.assert_array_equal(found, expected)


def test_scattered_values_move_with_a_warp_and_reach_no_further_than_their_neighbours():
    image, world = make_image(), find_world(COARSE, SHAPE).astype(np.float32)
    image[:] = 0
    image[3, 3, 3] = 1
    moved = world + np.array([4, 0, 0], dtype=np.float32)
    found = look_up_scattered(image, moved, at_shape=(14, 14, 14), at_affine=FINE)
    centre = find_world(FINE, (14, 14, 14))[found == 1].mean(axis=0)
    np.testing.assert_allclose(centre, moved[3, 3, 3], atol=1)
    away = FINE.copy()
    away[0, 3] += 100
    filled = look_up_scattered(image + 1, world, at_shape=(14, 14, 14), at_affine=away)
    assert not filled.any()

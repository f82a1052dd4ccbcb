from __future__ import annotations

import numpy as np
import pytest

from neurostorm_bids.grid.planes import VIEWS, cut_slice, turn_to_ras
from neurostorm_bids.grid.spec import GridSpec

SAGITTAL, CORONAL, AXIAL = VIEWS


def find_world(shape, affine):
    """Return the world coordinates of all voxels, shape (3, X, Y, Z)."""
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    return np.einsum("ij,jxyz->ixyz", affine[:3, :3], voxels) + affine[:3, 3, None, None, None]


@pytest.mark.parametrize("signs", [(-1, 1, 1), (1, 1, 1), (1, -1, -1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_slices_show_the_world_however_the_volume_is_stored(signs, order):
    affine = np.eye(4)
    affine[:3, :3] = np.diag(signs)[:, order] * [2.0, 3.0, 5.0]
    affine[:3, 3] = 7, -11, 13
    world = find_world((6, 5, 4), affine)
    for view in VIEWS:
        for plane in range(4):
            right = cut_slice(*turn_to_ras(world[view.right], affine), view, plane)
            up = cut_slice(*turn_to_ras(world[view.up], affine), view, plane)
            through = cut_slice(*turn_to_ras(world[view.through], affine), view, plane)
            assert (np.diff(right.image, axis=1) > 0).all()
            assert (np.diff(up.image, axis=0) > 0).all()
            assert np.allclose(through.image, through.position_mm)


def test_the_sides_of_a_slice_are_those_of_its_voxels():
    grid = GridSpec.published((48, 96, 24))  # all of them over 192 mm
    volume, turned = turn_to_ras(np.zeros(grid.shape), grid.affine_matrix)
    for view in VIEWS:
        assert cut_slice(volume, turned, view, 0).size_mm == pytest.approx((192, 192))
    half, turned = turn_to_ras(np.zeros((24, 96, 24)), grid.affine_matrix)
    assert cut_slice(half, turned, CORONAL, 0).size_mm == pytest.approx((96, 192))


def test_right_in_the_brain_is_on_the_right_and_said_to_be():
    for view in (CORONAL, AXIAL):
        assert view.right == 0  # the world's x, which grows to the right of the brain
        assert view.ends[:2] == ("L", "R")
    assert SAGITTAL.ends[:2] == ("P", "A")

"""A brain that is known at every point of the world, seen by any scanner."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.grid.spec import GridSpec

if TYPE_CHECKING:
    from collections.abc import Callable

REPETITION_TIME_S = 2.0


class Scan(NamedTuple):
    """A run, its brain mask and its repetition time."""

    bold: nib.Nifti1Image
    brain_mask: nib.Nifti1Image
    repetition_time_s: float


@pytest.fixture(scope="session")
def scan() -> Callable[..., Scan]:
    """Return a function that images one lopsided brain in MNI coordinates.

    Its values are smooth in space (millimetres of the world) and change from volume to volume;
    outside they are 0. By default voxels are 4 mm, RAS, in the field of view of MNI152NLin6Asym.
    """

    def image_brain(
        affine: np.ndarray | None = None,
        shape: tuple[int, int, int] = (49, 58, 49),
        n_volumes: int = 3,
    ) -> Scan:
        affine = np.diag([4.0, 4, 4, 1]) if affine is None else np.array(affine, dtype=float)
        if not affine[:3, 3].any():
            affine[:3, 3] = (-96, -132, -78)
        voxels = np.moveaxis(np.indices(shape), 0, -1)
        x, y, z = np.moveaxis(voxels @ affine[:3, :3].T + affine[:3, 3], -1, 0)
        brain = ((x - 4) / 60) ** 2 + ((y + 18) / 75) ** 2 + ((z - 10) / 58) ** 2 < 1
        brain &= ~((x > 30) & (z > 35))
        volumes = [
            1000 + 3 * x + 200 * np.sin(y / 25 + 0.7 * t) + 150 * np.cos(z / 20 - 0.4 * t)
            for t in range(n_volumes)
        ]
        bold = nib.Nifti1Image(
            np.stack([volume * brain for volume in volumes], axis=-1).astype(np.float32), affine
        )
        bold.header.set_zooms((*bold.header.get_zooms()[:3], REPETITION_TIME_S))
        bold.header.set_xyzt_units("mm", "sec")
        return Scan(bold, nib.Nifti1Image(brain.astype(np.uint8), affine), REPETITION_TIME_S)

    return image_brain


@pytest.fixture(scope="session")
def spec() -> GridSpec:
    """Return the model's field of view with voxels of 8 mm, small enough for many tests."""
    return GridSpec.published(24)

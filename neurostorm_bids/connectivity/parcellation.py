"""Regions whose signals are correlated: those of an atlas, or spheres that come with nilearn."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import KDTree

from neurostorm_bids.grid.atlas import Atlas, find_atlas, place_on_grid
from neurostorm_bids.grid.atlas_sources import find_local_atlas

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from neurostorm_bids.grid.spec import GridSpec

    Floats = NDArray[np.float64]

logger = logging.getLogger(__name__)

AUTO = "auto"
"""What stands for the regions that are at hand."""

ATLAS = "Schaefer2018:200Parcels7Networks"
"""Taken where it lies in TemplateFlow's folder on this machine."""

SPHERES = "Seitzman2018"


@dataclass(frozen=True, kw_only=True, eq=False)
class Parcellation:
    """Regions whose mean signals are correlated: of an atlas, or spheres.

    Attributes
    ----------
    name : for tables and reports.
    names : of the regions, in order.
    atlas : an image; None for spheres.
    centres_mm, radii_mm : shape (R, 3) and (R,), in MNI space; empty for an atlas.
    notes : what to know about it, in sentences.
    """

    name: str
    names: tuple[str, ...]
    atlas: Atlas | None
    centres_mm: Floats
    radii_mm: Floats
    notes: tuple[str, ...] = ()

    @property
    def n_pairs(self) -> int:
        """How many correlations a run has."""
        return len(self.names) * (len(self.names) - 1) // 2

    @property
    def fingerprint(self) -> str:
        """A hash of the names and of where the regions lie, by which two are told apart."""
        places: list[NDArray[Any]] = [self.centres_mm, self.radii_mm]
        if self.atlas is not None:
            places = [self.atlas.labels, self.atlas.affine]
        digest = hashlib.sha256(repr((self.name, self.names)).encode())
        for place in places:
            digest.update(f"{place.dtype} {place.shape}".encode())
            digest.update(np.ascontiguousarray(place).tobytes())
        return digest.hexdigest()


def find_parcellation(
    space: str, name_or_path: str | Path | None = None, *, option: str = "--atlas"
) -> Parcellation:
    """Find the regions for connectivity.

    Nothing is downloaded but an atlas that is asked for by name.

    Parameters
    ----------
    space : standard space of the runs.
    name_or_path : of an atlas, see `grid.atlas.find_atlas`; or ``Seitzman2018``, 300 spheres
        (Seitzman et al., NeuroImage 2020, 206:116290) whose coordinates come with nilearn. None or
        ``auto`` takes Schaefer's 200 regions where they lie on this machine, else the spheres.
    option : that names an atlas, for the note that tells how to get another.

    Raises
    ------
    UsageError, MissingFileError, DataError
        If an atlas that was asked for cannot be had.
    """
    if name_or_path == SPHERES:
        return make_spheres()
    if name_or_path is not None and name_or_path != AUTO:
        return _wrap_atlas(find_atlas(name_or_path, space))
    local = find_local_atlas(ATLAS, space)
    if local is not None:
        logger.info("Connectivity of %s, found on this machine", ATLAS)
        return _wrap_atlas(find_atlas(ATLAS, space, source=local))
    note = (
        f"{ATLAS} is not on this machine in {space}, and {SPHERES}, 300 spheres, were taken "
        f"instead: nothing is downloaded that was not asked for. {option} {ATLAS} downloads it."
    )
    logger.info("%s", note)
    return make_spheres(notes=(note,))


def _wrap_atlas(atlas: Atlas) -> Parcellation:
    return Parcellation(
        name=atlas.name,
        names=tuple(atlas.names[number] for number in sorted(atlas.names)),
        atlas=atlas,
        centres_mm=np.empty((0, 3)),
        radii_mm=np.empty(0),
        notes=atlas.warnings,
    )


def make_spheres(*, notes: tuple[str, ...] = ()) -> Parcellation:
    """Return 300 spheres over cortex, subcortex and cerebellum, without any download."""
    from nilearn.datasets import fetch_coords_seitzman_2018  # noqa: PLC0415 - seconds

    fetched = fetch_coords_seitzman_2018(ordered_regions=False)
    rois = fetched.rois
    centres = np.array([[row["x"], row["y"], row["z"]] for row in rois.to_dict("records")])
    networks = [str(network) for network in fetched.networks]
    return Parcellation(
        name=SPHERES,
        names=tuple(f"{network}_{number}" for number, network in enumerate(networks, start=1)),
        atlas=None,
        centres_mm=centres.astype(np.float64),
        radii_mm=np.asarray(fetched.radius, dtype=np.float64),
        notes=notes,
    )


def place_parcellation(parcellation: Parcellation, spec: GridSpec) -> NDArray[np.int64]:
    """Give every voxel of a grid its region, counted from 1, or 0 for none; shape (X, Y, Z)."""
    if parcellation.atlas is not None:
        on_grid = place_on_grid(parcellation.atlas, spec)
        known = np.array(sorted(parcellation.atlas.names))
        position = np.searchsorted(known, on_grid)
        is_region = np.isin(on_grid, known)
        return np.where(is_region, position + 1, 0).astype(np.int64)
    voxels = np.indices(spec.shape).reshape(3, -1).T
    affine = spec.affine_matrix
    distance, nearest = KDTree(parcellation.centres_mm).query(
        voxels @ affine[:3, :3].T + affine[:3, 3],
        distance_upper_bound=parcellation.radii_mm.max(initial=0) * (1 + 1e-9),
    )
    is_near = np.isfinite(distance)
    is_near[is_near] = distance[is_near] <= parcellation.radii_mm[nearest[is_near]] * (1 + 1e-9)
    return np.where(is_near, nearest + 1, 0).astype(np.int64).reshape(spec.shape)

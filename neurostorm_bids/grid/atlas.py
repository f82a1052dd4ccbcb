"""Regions of a brain atlas on the grid, and on the tokens that a model cuts the grid into."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.grid.atlas_sources import locate_atlas
from neurostorm_bids.grid.labels import find_label_table, match_names, read_label_table
from neurostorm_bids.grid.nearest import look_up_nearest
from neurostorm_bids.grid.read import open_volumes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neurostorm_bids.grid.atlas_sources import AtlasSource
    from neurostorm_bids.grid.read import Volumes
    from neurostorm_bids.grid.spec import GridSpec

logger = logging.getLogger(__name__)

BACKGROUND = -1
"""The region of a token that lies in none."""

MAX_LABEL = 2**24
"""Up to here float32, in which images are read, holds every whole number."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Atlas:
    """A parcellation of the brain in a standard space.

    Parameters
    ----------
    name : as it was asked for, or the file's name without its ending.
    path : the image.
    labels : int32, shape (X, Y, Z) of the image; the region of each voxel, 0 for none.
    affine : float64, shape (4, 4); voxels of the image to world millimetres.
    names : the name of every region in the image, by its number.
    warnings : what a reader of the results should know.
    """

    name: str
    path: Path
    labels: NDArray[np.int32]
    affine: NDArray[np.float64]
    names: Mapping[int, str]
    warnings: tuple[str, ...] = ()


def find_atlas(
    name_or_path: str | Path,
    space: str,
    *,
    table: Path | None = None,
    source: AtlasSource | None = None,
) -> Atlas:
    """Find an atlas by name or path, and read it.

    Parameters
    ----------
    name_or_path : a NIfTI file; or ``NAME[:VARIANT]`` of an atlas in TemplateFlow, the variant
        being the beginning of its ``desc-`` (``Schaefer2018:200``, ``HOCPA:th25``,
        ``DiFuMo:64``); or ``AAL3`` or ``AAL``. An image with a volume for each region, of
        probabilities or weights, gives a voxel to the region that is largest there.
    space : the standard space of the grid.
    table : names of the regions; None to look for it beside the image. Names that contradict the
        image are not used, with a warning.
    source : where it lies, if that is known; nothing is looked for then.

    Raises
    ------
    UsageError
        If no atlas has this name.
    MissingFileError
        If the atlas is not on this machine and cannot be downloaded.
    DataError
        If the image is not an atlas, or the table not a table.
    """
    source = source or locate_atlas(name_or_path, space)
    image = open_volumes(source.path)
    labels = _read_labels(image)
    names, doubts = _find_names(source, labels, table)
    warnings = (*image.warnings, *_doubt_space(source, space), *doubts)
    for warning in warnings:
        logger.warning("Atlas %s: %s", source.name, warning)
    return Atlas(
        name=source.name,
        path=source.path,
        labels=labels,
        affine=image.affine,
        names=names,
        warnings=warnings,
    )


def place_on_grid(atlas: Atlas, spec: GridSpec) -> NDArray[np.int32]:
    """Look up the region of every voxel of a grid: the nearest voxel of the atlas, by affines.

    Returns
    -------
    int32, shape (X, Y, Z) of the grid; 0 where there is no region.
    """
    return look_up_nearest(
        atlas.labels, atlas.affine, at_shape=spec.shape, at_affine=spec.affine_matrix
    )


def place_on_tokens(
    on_grid: NDArray[np.int32], patch_size: Sequence[int], *, min_labelled_share: float = 0.25
) -> NDArray[np.int64]:
    """Give every patch of a grid the region that most of its labelled voxels belong to.

    Voxels without a region do not vote, or most of a cortex thinner than half a patch would be
    lost; a patch with too few voxels in any region is background. Of regions with as many voxels
    the one with the smallest number wins.

    Parameters
    ----------
    on_grid : shape (X, Y, Z), from `place_on_grid`.
    patch_size : voxels of a patch along X, Y, Z; each divides its axis. A model's fourth, volumes
        along T, may follow.
    min_labelled_share : share of a patch's voxels that must lie in a region, 0 to 1.

    Returns
    -------
    int64, shape (X', Y', Z'); -1 for background, as `number_units` of the model's masks takes it.
    """
    sides = tuple(patch_size[:3])
    if len(sides) < on_grid.ndim or any(
        side < 1 or n % side for n, side in zip(on_grid.shape, sides, strict=True)
    ):
        raise UsageError(
            f"Expected a patch whose sides divide the grid's {on_grid.shape} voxels; found "
            f"{tuple(patch_size)}. Take patch size and grid from the same model."
        )
    tokens = tuple(n // side for n, side in zip(on_grid.shape, sides, strict=True))
    patches = on_grid.reshape(tokens[0], sides[0], tokens[1], sides[1], tokens[2], sides[2])
    patches = patches.transpose(0, 2, 4, 1, 3, 5).reshape(np.prod(tokens), np.prod(sides))

    token, voxel = np.nonzero(patches)
    votes, n_votes = np.unique(token * (MAX_LABEL + 1) + patches[token, voxel], return_counts=True)
    token, region = np.divmod(votes, MAX_LABEL + 1)
    order = np.lexsort((region, -n_votes, token))
    winners = order[np.unique(token[order], return_index=True)[1]]
    on_tokens = np.full(len(patches), BACKGROUND, dtype=np.int64)
    on_tokens[token[winners]] = region[winners]
    on_tokens[(patches > 0).mean(axis=1) < min_labelled_share] = BACKGROUND
    return on_tokens.reshape(tokens)


def describe_survivors(
    atlas: Atlas, on_grid: NDArray[np.int32], on_tokens: NDArray[np.int64]
) -> pd.DataFrame:
    """Tell what is left of each region on the grid and at the resolution of patches.

    Parameters
    ----------
    on_grid : shape (X, Y, Z), from `place_on_grid`.
    on_tokens : shape (X', Y', Z'), from `place_on_tokens`.

    Returns
    -------
    A row for each region of the atlas: ``index``, ``name``, ``n_voxels_atlas`` (in the image),
    ``n_voxels_grid``, ``n_patches`` that carry its number, and ``n_voxels_patches``: its voxels of
    the grid that lie in these.
    """
    sides = [n // n_tokens for n, n_tokens in zip(on_grid.shape, on_tokens.shape, strict=True)]
    of_patch = np.kron(on_tokens, np.ones(sides, dtype=np.int64))
    regions = sorted(atlas.names)
    counted = {
        "n_voxels_atlas": atlas.labels,
        "n_voxels_grid": on_grid,
        "n_patches": on_tokens,
        "n_voxels_patches": on_grid[on_grid == of_patch],
    }
    columns = {name: _count(labels, regions) for name, labels in counted.items()}
    names = [atlas.names[region] for region in regions]
    return pd.DataFrame({"index": regions, "name": names, **columns})


def _count(labels: NDArray[np.integer], regions: Sequence[int]) -> NDArray[np.int64]:
    found, counts = np.unique(labels, return_counts=True)
    by_region = dict(zip(found.tolist(), counts.tolist(), strict=True))
    return np.array([by_region.get(region, 0) for region in regions], dtype=np.int64)


def _read_labels(image: Volumes) -> NDArray[np.int32]:
    """Read the numbers of an image, or the volume in which each voxel is largest, from 1."""
    labels = np.zeros(np.prod(image.shape), dtype=np.int32)
    if image.n_volumes > 1:
        largest = np.zeros(labels.shape, dtype=np.float32)
        for region, weights in enumerate(image.read(), start=1):
            np.copyto(labels, region, where=weights > largest)
            np.fmax(weights, largest, out=largest)
    else:
        (values,) = image.read()
        if not np.all((values >= 0) & (values <= MAX_LABEL) & (values == np.rint(values))):
            raise DataError(
                f"Expected an atlas, whole numbers from 0 to {MAX_LABEL}; found other values in "
                f"{image.name}. It may have been resampled by interpolation: take the original."
            )
        labels[:] = values
    if not labels.any():
        raise DataError(f"Expected an atlas with regions; found only background in {image.name}.")
    return labels.reshape(image.shape, order="F")


def _find_names(
    source: AtlasSource, labels: NDArray[np.int32], table: Path | None
) -> tuple[Mapping[int, str], tuple[str, ...]]:
    table = table or find_label_table(source.path)
    rows = read_label_table(table) if table else source.rows
    regions = np.unique(labels[labels > 0]).tolist()
    return match_names(regions, rows or (), table=table.name if table else source.name)


def _doubt_space(source: AtlasSource, space: str) -> tuple[str, ...]:
    if source.space == space:
        return ()
    if source.space is None:
        return (f"The file's name does not say its space; it was taken to be in {space}.",)
    doubt = (
        f"It is in {source.space}, the grid in {space}; it was used as it is, without a transform "
        "between the two spaces."
    )
    return (doubt,)

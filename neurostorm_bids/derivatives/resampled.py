"""A run on a model's grid and clock, as an image."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from neurostorm_bids.derivatives.atomic import remove_leftovers, write_files
from neurostorm_bids.derivatives.images import encode_image
from neurostorm_bids.derivatives.run import (
    Pair,
    describe_reference,
    describe_source,
    have_hash,
    name_pair,
)
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.grid.bring import find_space

if TYPE_CHECKING:
    from pathlib import Path

    from neurostorm_bids.grid.series import Series
    from neurostorm_bids.grid.spec import GridSpec
    from neurostorm_bids.inputs import BoldRun

logger = logging.getLogger(__name__)


def is_resampled(
    output_dir: Path, run: BoldRun, *, grid: GridSpec, configuration_hash: str
) -> bool:
    """Return whether the run on this grid is there, made with this configuration."""
    return have_hash([_name_pair(output_dir, run, grid)], configuration_hash)


def write_resampled(
    output_dir: Path, run: BoldRun, series: Series, *, configuration_hash: str
) -> list[Path]:
    """Write a run as the model's grid and clock have it, in the file's own unit, without z-score.

    Float32, volume by volume: memory holds one. Read again with its own voxels as brain mask, it
    gives the same series.

    Raises
    ------
    OutputError
        If the operating system refuses.
    """
    spec = series.spec
    sides = " x ".join(f"{side:g}" for side in spec.voxel_size_mm)
    about = {
        "Description": "The run on the grid and the clock of a model, before the z-score; 0 "
        "outside the brain.",
        "RepetitionTime": spec.repetition_time_s,
        **({"TaskName": run.entities["task"]} if "task" in run.entities else {}),
        "SkullStripped": True,
        "Resolution": f"The model's grid: voxels of {sides} mm.",
        **describe_reference(run),
        **describe_source(run, series, configuration_hash=configuration_hash),
    }
    pair = _name_pair(output_dir, run, spec)
    remove_leftovers(pair.sidecar.parent)
    write_files(
        {
            pair.content: encode_image(
                (series.read_volume(volume) for volume in range(series.n_volumes)),
                shape=spec.shape,
                n_volumes=series.n_volumes,
                affine=spec.affine_matrix,
                space=find_space(run, spec),
                repetition_time_s=spec.repetition_time_s,
            ),
            pair.sidecar: format_json(about),
        },
        seals=[pair.sidecar],
    )
    for path in pair:
        logger.info("Wrote %s", path.relative_to(output_dir))
    return list(pair)


def _name_pair(output_dir: Path, run: BoldRun, grid: GridSpec) -> Pair:
    return name_pair(
        output_dir,
        run,
        suffix="bold",
        extension=".nii.gz",
        space=find_space(run, grid),
        res=grid.label,
        desc="resampled",
    )

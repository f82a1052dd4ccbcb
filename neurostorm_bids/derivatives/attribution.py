"""The files of an attribution: a table of regions, a map of voxels, and their sidecars."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostorm_bids.derivatives.atomic import remove_leftovers, write_files
from neurostorm_bids.derivatives.images import encode_image
from neurostorm_bids.derivatives.names import make_label
from neurostorm_bids.derivatives.run import (
    Pair,
    describe_model,
    describe_reference,
    describe_source,
    have_hash,
    name_pair,
)
from neurostorm_bids.derivatives.tables import Column, format_table
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.errors import UserError
from neurostorm_bids.inputs.files import read_json_object

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from neurostorm_bids.attribute import RunAttribution
    from neurostorm_bids.derivatives.names import OutputNames
    from neurostorm_bids.grid.spec import GridSpec
    from neurostorm_bids.inputs import BoldRun
    from neurostorm_bids.pretrained import Model

logger = logging.getLogger(__name__)

_SUFFIXES = {"dseg", "probseg"}
_PLACES = {"tpl", "space", "cohort", "res"}  # entities of where an atlas lies
_KINDS = {"atlas", "seg", "desc"}

_METHODS = {
    "occlusion": "Occlusion: output of the clip minus its output with the region replaced by the "
    "baseline in all volumes; positive where the region raises the output.",
    "ig": "Integrated gradients (Sundararajan et al., 2017, arXiv 1703.01365) along the straight "
    "way from the baseline to the clip, summed over volumes and over the region's voxels; "
    "positive where they raise the output.",
    "reconstruction": "Reconstruction error: the region's tokens are hidden in all volumes of a "
    "clip, one region at a time, and made up from all others; squared error, mean over the voxels "
    "of the hidden patches.",
}


def label_atlas(name: str) -> str:
    """Return the ``atlas-`` label of an atlas; of a BIDS file name only what tells atlases apart.

    ``tpl-X_res-02_atlas-Schaefer2018_desc-200Parcels_dseg`` becomes ``Schaefer2018200Parcels``.
    """
    words = []
    for part in name.split("_"):
        key, dash, value = part.partition("-")
        if part not in _SUFFIXES and not (dash and key in _PLACES):
            words.append(value if dash and key in _KINDS else part)
    return make_label(" ".join(words) or name, fallback="atlas")


def is_attributed(
    output_dir: Path,
    run: BoldRun,
    *,
    names: OutputNames,
    atlas: str,
    grid: GridSpec,
    configuration_hash: str,
) -> bool:
    """Return whether the files of an attribution are there, made with this configuration."""
    pairs = _name_pairs(output_dir, run, names=names, atlas=atlas, grid=grid)
    return have_hash(pairs, configuration_hash)


def write_attribution(
    output_dir: Path,
    run: BoldRun,
    attribution: RunAttribution,
    *,
    model: Model,
    names: OutputNames,
    voxels: NDArray[np.float32],
    configuration_hash: str,
) -> list[Path]:
    """Write what drove a model's output for a run, and return the paths of the files.

    The map lies on the run's own voxels: each has the value of the nearest voxel of the grid.

    Parameters
    ----------
    voxels : float32, shape of the run along X, Y, Z; the map on them, see `return_to_run`.

    Raises
    ------
    OutputError
        If the operating system refuses.
    """
    series, found = attribution.series, attribution.found
    table, image = _name_pairs(
        output_dir, run, names=names, atlas=attribution.regions.atlas, grid=series.spec
    )
    about = {
        **describe_attribution(attribution),
        **describe_source(run, series, configuration_hash=configuration_hash),
        **describe_model(model),
    }
    about["Warnings"] = list(
        dict.fromkeys([*about["Warnings"], *attribution.regions.warnings, *found.warnings])
    )
    columns = tabulate_attribution(attribution)
    declared = {column.name: column.declare() for column in columns}
    sidecars = {
        table.sidecar: {**about, **declared},
        image.sidecar: {**about, **_describe_image(run, attribution)},
    }
    remove_leftovers(table.sidecar.parent)
    write_files(
        {
            table.content: format_table(columns),
            image.content: encode_image(
                [voxels],
                shape=(voxels.shape[0], voxels.shape[1], voxels.shape[2]),
                n_volumes=1,  # BIDS lets an image called bold have no fewer than four axes
                affine=series.source_affine,
                space=run.space,
                repetition_time_s=attribution.series.source_repetition_time_s,
            ),
            **{path: format_json(content) for path, content in sidecars.items()},
        },
        seals=list(sidecars),
    )
    paths = [*table, *image]
    for path in paths:
        logger.info("Wrote %s", path.relative_to(output_dir))
    return paths


def tabulate_attribution(attribution: RunAttribution) -> list[Column]:
    """Return the columns of the table: a row per region, in the order of the atlas's numbers."""
    found, regions = attribution.found, attribution.regions
    # What was outside all regions was looked at unless tokens were hidden region by region.
    rows = np.arange(int(found.method == "reconstruction"), len(regions.indices))
    return [
        Column(
            name="index",
            cells=regions.indices[rows].tolist(),
            description="Number of the region in the atlas; 0 is the brain outside all regions.",
        ),
        Column(
            name="name",
            cells=[regions.names[row] for row in rows],
            description="Name of the region.",
        ),
        Column(
            name="attribution",
            cells=found.attributions[rows].tolist(),
            description=f"{_METHODS[found.method]} n/a for a region that the run does not show.",
            unit=found.unit,
        ),
        *(
            Column(
                name=name,
                cells=values[rows].tolist(),
                description="The error as a share of the variance of the same voxels about their "
                "common mean: 1 is no better than the region's mean.",
            )
            for name, values in found.columns.items()
        ),
        Column(
            name="n_voxels",
            cells=regions.n_voxels[rows].tolist(),
            description="Voxels of the region on the model's grid and in the run's brain.",
        ),
        Column(
            name="share_outside",
            cells=[round(share, 6) for share in regions.share_outside[rows].tolist()],
            description="Share, 0 to 1, of the region's volume in the atlas that lies outside the "
            "model's grid or the run's brain.",
        ),
    ]


def describe_attribution(attribution: RunAttribution) -> dict[str, Any]:
    """Return what the sidecars say of how attributions were made."""
    from neurostorm_bids.attribute.baseline import DESCRIPTIONS  # noqa: PLC0415 - needs torch

    found, settings = attribution.found, attribution.settings
    about: dict[str, Any] = {
        "Description": _tell(attribution),
        "Method": found.method,
        "MethodDescription": _METHODS[found.method],
        "Units": found.unit,
        "Atlas": attribution.regions.atlas,
        "NumberOfClips": attribution.n_clips,
        "NumberOfClipsUsed": len(attribution.onsets_s),
        "ClipOnsets": list(attribution.onsets_s),
    }
    if found.quantity is not None:
        about["Target"] = found.quantity.target.to_dict()
        about["Class"] = found.quantity.label
        about["Baseline"] = settings.baseline
        about["BaselineDescription"] = DESCRIPTIONS[settings.baseline]
        about["Output"] = found.output
    if found.completeness is not None:
        share = found.completeness.relative_error
        about["NumberOfSteps"] = settings.n_steps
        about["BaselineOutput"] = found.completeness.baseline_output
        about["SumOfAttributions"] = found.completeness.total
        about["CompletenessError"] = found.completeness.error
        about["RelativeCompletenessError"] = share if math.isfinite(share) else None
    return about


def _name_pairs(
    output_dir: Path, run: BoldRun, *, names: OutputNames, atlas: str, grid: GridSpec
) -> tuple[Pair, Pair]:
    """Name the table of regions and the map, with their sidecars.

    BIDS lets no ``atlas-`` stand in the name of a person's image: it goes into the ``desc`` of the
    map, and only where the map of another atlas has the name without it.
    """
    label = label_atlas(atlas)
    table = name_pair(
        output_dir,
        run,
        suffix="attribution",
        extension=".tsv",
        atlas=label,
        desc=names.attribution,
    )
    plain, own = (
        name_pair(output_dir, run, suffix="bold", extension=".nii.gz", res=grid.label, desc=desc)
        for desc in (name_map(names.attribution), name_map(names.attribution, label))
    )
    return table, plain if read_map_atlas(plain.sidecar) in {None, label} else own


def name_map(desc: str, atlas: str = "") -> str:
    """Return the ``desc`` of a map, from that of its table and the label of an atlas."""
    return f"{desc}{atlas[:1].upper()}{atlas[1:]}Attribution"


def read_map_atlas(sidecar: Path) -> str | None:
    """Return the label of the atlas that a map is of; None if no sidecar tells."""
    try:
        name = read_json_object(sidecar).get("Atlas")
    except UserError:
        return None
    return label_atlas(name) if isinstance(name, str) else None


def _tell(attribution: RunAttribution) -> str:
    found = attribution.found
    clips = f"mean over {len(attribution.onsets_s)} of {attribution.n_clips} clips"
    if found.quantity is None:
        return f"How badly a masked autoencoder makes up each region, {clips}."
    return f"What drove the {found.quantity.description}; {clips}."


def _describe_image(run: BoldRun, attribution: RunAttribution) -> dict[str, Any]:
    sides = " x ".join(f"{side:g}" for side in attribution.series.spec.voxel_size_mm)
    about: dict[str, Any] = {
        # BIDS wants it of every bold image; one volume has none of its own.
        "RepetitionTime": attribution.series.source_repetition_time_s,
        "SkullStripped": True,
        "Resolution": f"Computed on the model's grid ({sides} mm); each of the run's own voxels, "
        "on which this image lies, has the value of the nearest voxel of that grid.",
    }
    return about | describe_reference(run)

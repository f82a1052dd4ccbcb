"""What is made of a run only on request: attributions, and the run on a model's grid."""

from __future__ import annotations

import hashlib
import logging
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids import __version__
from neurostorm_bids.attribute import (
    Settings,
    attribute_series,
    check_attributable,
    see_regions,
)
from neurostorm_bids.connectivity import Parcellation, find_parcellation
from neurostorm_bids.derivatives import (
    hash_configuration,
    is_attributed,
    is_resampled,
    name_outputs,
    write_attribution,
)
from neurostorm_bids.errors import UsageError
from neurostorm_bids.grid.bring import return_to_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neurostorm_bids.grid.spec import GridSpec
    from neurostorm_bids.inputs import BoldRun
    from neurostorm_bids.options import ParticipantOptions
    from neurostorm_bids.predict import RunPrediction
    from neurostorm_bids.pretrained import Model

logger = logging.getLogger(__name__)


def check_extras(models: Sequence[Model], options: ParticipantOptions) -> None:
    """Check, before any work, that what is asked for on top can be made.

    Raises
    ------
    UsageError
        If a model has nothing to attribute, or two models' grids would share a file.
    MissingFileError, DataError
        If the atlas cannot be had.
    """
    if options.attribution != "none":
        for model in models:
            check_attributable(model)
            find_regions(model.grid.space, options.atlas)
    elif options.atlas is not None:
        logger.warning("--atlas has no effect without --attribution")
    if options.write_resampled:
        grids = {model.grid.label: model.grid for model in models}
        other = next((model.grid for model in models if model.grid not in grids.values()), None)
        if other is not None:
            raise UsageError(
                f"Two of the models read different grids of {other.label}, and --write-resampled "
                "would write both to the same file. Give them output folders of their own."
            )


def plan_attributions(
    run: BoldRun,
    hashes: Mapping[int, str],
    models: Sequence[Model],
    options: ParticipantOptions,
) -> dict[int, str]:
    """Return the configuration hash of each attribution of a run that is still to do, by model.

    Parameters
    ----------
    hashes : those of the predictions, of all models.
    """
    settings = take_settings(options)
    if settings is None:
        return {}
    names = name_outputs(models)
    todo = {}
    for i, value in hashes.items():
        parcellation = find_regions(models[i].grid.space, options.atlas)
        configuration = {
            "prediction": value,
            "method": settings.method,
            "baseline": settings.baseline,
            "n_clips": settings.n_clips,
            "n_steps": settings.n_steps,
            "mask_scheme": models[i].mask_scheme,
            "atlas": digest_regions(parcellation),
        }
        own = hash_configuration(configuration)
        if options.overwrite or not is_attributed(
            options.output_dir,
            run,
            names=names[i],
            atlas=parcellation.name,
            grid=models[i].grid,
            configuration_hash=own,
        ):
            todo[i] = own
    return todo


def plan_resampled(
    run: BoldRun,
    sources: Mapping[GridSpec, Mapping[str, object]],
    options: ParticipantOptions,
) -> dict[GridSpec, str]:
    """Return the configuration hash of each grid on which a run is still to be written.

    Parameters
    ----------
    sources : what decides what the run is on each grid.
    """
    todo: dict[GridSpec, str] = {}
    if not options.write_resampled:
        return todo
    for grid, source in sources.items():
        own = hash_configuration({**source, "version": __version__})
        if options.overwrite or not is_resampled(
            options.output_dir, run, grid=grid, configuration_hash=own
        ):
            todo[grid] = own
    return todo


def attribute_and_write(
    run: BoldRun,
    prediction: RunPrediction,
    *,
    place: int,
    models: Sequence[Model],
    options: ParticipantOptions,
    batch_size: int | None,
    configuration_hash: str,
) -> tuple[str, ...]:
    """Attribute what a model says of a run, write it, and return the warnings.

    Parameters
    ----------
    place : which of the models.
    """
    model, settings = models[place], take_settings(options)
    if settings is None:
        return ()
    parcellation = find_regions(model.grid.space, options.atlas)
    attribution = attribute_series(
        model,
        prediction.series,
        regions=see_regions(parcellation, prediction.series),
        settings=settings,
        output=prediction.output,
        batch_size=batch_size,
    )
    write_attribution(
        options.output_dir,
        run,
        attribution,
        model=model,
        names=name_outputs(models)[place],
        voxels=return_to_run(attribution.found.voxels, run, model.grid),
        configuration_hash=configuration_hash,
    )
    return (*attribution.regions.warnings, *attribution.found.warnings)


def take_settings(options: ParticipantOptions) -> Settings | None:
    """Return how attributions are to be made; None where none are asked for."""
    if options.attribution == "none":
        return None
    return Settings(
        method=options.attribution,
        baseline=options.attribution_baseline,
        n_clips=options.attribution_clips,
    )


@lru_cache(maxsize=8)
def find_regions(space: str, atlas: str | None) -> Parcellation:
    """Find the regions, once per process; see `find_parcellation`."""
    return find_parcellation(space, atlas)


@lru_cache(maxsize=8)
def digest_regions(parcellation: Parcellation) -> str:
    """Return a SHA-256 of all that says where regions lie and what they are called."""
    digest = hashlib.sha256("\n".join((parcellation.name, *parcellation.names)).encode())
    atlas = parcellation.atlas
    arrays = (
        (parcellation.centres_mm, parcellation.radii_mm)
        if atlas is None
        else (atlas.labels, atlas.affine, np.array(sorted(atlas.names)))
    )
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()

"""What is to do: runs and models whose results are not there with this configuration."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from neurostorm_bids import __version__
from neurostorm_bids.derivatives import (
    RunStatus,
    hash_configuration,
    is_finished,
    name_outputs,
)
from neurostorm_bids.errors import UserError
from neurostorm_bids.grid.bring import describe_choices
from neurostorm_bids.inputs.fingerprint import fingerprint_file
from neurostorm_bids.participant.connectivity import find_regions, plan_connectivity
from neurostorm_bids.participant.extras import check_extras, plan_attributions, plan_resampled
from neurostorm_bids.participant.models import load_models
from neurostorm_bids.report.places import locate_seal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neurostorm_bids.grid.spec import GridSpec
    from neurostorm_bids.inputs import BoldRun, Discovery
    from neurostorm_bids.options import ParticipantOptions
    from neurostorm_bids.pretrained import Model

logger = logging.getLogger(__name__)


class Job(NamedTuple):
    """A run, and of everything that is still to do for it the configuration hash.

    Attributes
    ----------
    hashes, attributions : of predictions and of what drove them, by the model's position.
    resampled : of the run as an image, by the grid.
    connectivity : of the run's connectivity; None if there is nothing to do.
    batch_size : clips at once that memory allows; None leaves the choice.
    """

    run: BoldRun
    hashes: dict[int, str]
    attributions: dict[int, str]
    resampled: dict[GridSpec, str]
    connectivity: str | None = None
    batch_size: int | None = None


def plan_jobs(
    discovery: Discovery, options: ParticipantOptions
) -> tuple[list[Job], list[RunStatus]]:
    """Split the runs into those with something to do and those that are finished or unusable."""
    models = load_models(options)
    names = name_outputs(models)
    find_regions(discovery.runs, options)
    check_extras(models, options)
    grids = list(dict.fromkeys(model.grid for model in models))
    jobs: list[Job] = []
    settled = [
        RunStatus.of_failure(item.error, run=item.label, participant=item.participant)
        for item in discovery.unusable
    ]
    for run in discovery.runs:
        try:
            sources = {grid: _describe_source(run, grid) for grid in grids}
            connectivity = plan_connectivity(run, options)
        except UserError as err:
            settled.append(RunStatus.of_failure(err, run=run.label, participant=run.participant))
            continue
        hashes = {i: _hash(sources[model.grid], model) for i, model in enumerate(models)}
        todo = {
            i: value
            for i, value in hashes.items()
            if options.overwrite
            or not is_finished(options.output_dir, run, names=names[i], configuration_hash=value)
            # A call may have been killed between the results and their figures.
            or not locate_seal(options.output_dir, run, names[i]).exists()
        }
        attributions = plan_attributions(run, hashes, models, options)
        resampled = plan_resampled(run, sources, options)
        if todo or attributions or resampled or connectivity is not None:
            jobs.append(Job(run, todo, attributions, resampled, connectivity))
        else:
            settled.append(RunStatus(run=run.label, participant=run.participant, state="skipped"))
    return jobs, settled


def _describe_source(run: BoldRun, grid: GridSpec) -> dict[str, Any]:
    """Return all that decides what a run is on a grid."""
    return {
        "bold": fingerprint_file(run.path),
        "brain_mask": fingerprint_file(run.brain_mask) if run.brain_mask else None,
        "repetition_time_s": run.repetition_time_s,
        "space": run.space,
        "grid": grid.to_dict(),
        **describe_choices(run, grid),
    }


def _hash(source: Mapping[str, Any], model: Model) -> str:
    """Return the hash of all that decides what the files of a run and a model hold."""
    configuration = {
        **source,
        "version": __version__,
        "model": model.provenance.sha256,
        "config": model.config.to_dict(),
        "head": model.head_config.to_dict() if model.head_config else None,
        "target": model.target.to_dict() if model.target else None,
        "precision": model.precision,
    }
    # The arrays of a novelty lie beside the weights, so that the model's hash is also theirs.
    if model.calibration is not None:
        configuration["calibration"] = model.calibration.to_dict()
    return hash_configuration(configuration)

"""A folder for each configuration: what decides the results, and a name made of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostorm_bids import __version__
from neurostorm_bids.derivatives import hash_configuration
from neurostorm_bids.grid.atlas_sources import is_path
from neurostorm_bids.grid.labels import find_label_table
from neurostorm_bids.inputs.files import check_readable
from neurostorm_bids.inputs.fingerprint import fingerprint_file
from neurostorm_bids.participant.models import load_models

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neurostorm_bids.options import ParticipantOptions

WITHOUT_EFFECT = {
    *("participant-label", "exclude-participant-label", "session-id", "task-id", "run-id"),
    *("bids-filter-file", "derivatives", "skip-bids-validation", "drop-after"),
    *("device", "batch-size", "nprocs", "omp-nthreads", "mem", "mem-mb"),
    *("work-dir", "clean-workdir", "overwrite", "stop-on-first-crash", "resource-monitor"),
    *("output-layout", "debug", "verbose", "reports-only", "boilerplate-only"),
    *("executor", "participants-per-task", "slurm-time", "slurm-option", "wait"),
    *("run-fmriprep", "fs-license-file", "fmriprep-args"),
}
"""Options that choose runs or say how work is done, and leave what is computed of a run alone."""

MEANT = {
    *("model", "denoise", "dummy-scans", "fd-threshold", "target-scale"),
    *("atlas", "connectivity", "attribution-clips"),
}
"""Options that count by what they mean, for a text may mean different things and two the same."""

N_DIGITS = 8


def name_universe(options: ParticipantOptions, configuration: Mapping[str, object]) -> str:
    """Return the name of the folder of a configuration: ``neurostorm-<version>-<hash>``.

    Calls for other participants, or on another machine, come to the same name; any option that is
    not known to leave the results alone makes another one. Models count by their checksums, and
    files by their contents.

    Parameters
    ----------
    configuration : the options in effect, by their names on the command line.

    Raises
    ------
    MissingFileError, ReadError
        If an atlas that is given by its path cannot be read.
    """
    deciding: dict[str, object] = {
        name: value
        for name, value in configuration.items()
        if name not in WITHOUT_EFFECT and name not in MEANT
    }
    deciding["version"] = __version__
    return (
        f"neurostorm-{__version__}-{hash_configuration(deciding | _describe(options))[:N_DIGITS]}"
    )


def _describe(options: ParticipantOptions) -> dict[str, Any]:
    """Return what the options of `MEANT` mean, ready for JSON."""
    return {
        "model": [model.provenance.sha256 for model in load_models(options)],
        "cleaning": options.cleaning.describe(),
        "target-scale": sorted(
            (asdict(scale) for scale in options.target_scales), key=lambda scale: scale["name"]
        ),
        "atlas": _describe_regions(options.atlas),
        "connectivity": _describe_regions(options.connectivity),
        "attribution-clips": options.attribution_clips,
    }


def _describe_regions(name_or_path: str | None) -> dict[str, str | None] | str | None:
    """Return the name of an atlas; of an image, what it and the table beside it hold."""
    if name_or_path is None or not is_path(name_or_path):
        return name_or_path
    image = Path(name_or_path)
    check_readable(image)
    table = find_label_table(image)
    return {
        "name": image.name,
        "image": fingerprint_file(image),
        "table": None if table is None else fingerprint_file(table),
    }

"""A folder for each configuration: what decides the results, and a name made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neurostorm_bids import __version__
from neurostorm_bids.derivatives import hash_configuration
from neurostorm_bids.participant.models import load_models

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neurostorm_bids.options import ParticipantOptions

WITHOUT_EFFECT = {
    *("participant-label", "exclude-participant-label", "session-id", "task-id", "run-id"),
    *("bids-filter-file", "derivatives", "skip-bids-validation"),
    *("device", "batch-size", "nprocs", "omp-nthreads", "mem", "mem-mb"),
    *("work-dir", "clean-workdir", "overwrite", "stop-on-first-crash", "resource-monitor"),
    *("output-layout", "debug", "verbose", "reports-only", "boilerplate-only"),
    *("executor", "participants-per-task", "slurm-time", "slurm-option", "wait"),
    *("run-fmriprep", "fs-license-file", "fmriprep-args"),
}
"""Options that choose runs or say how work is done, and leave what is computed of a run alone."""

N_DIGITS = 8


def name_universe(options: ParticipantOptions, configuration: Mapping[str, object]) -> str:
    """Return the name of the folder of a configuration: ``neurostorm-<version>-<hash>``.

    Calls for other participants, or on another machine, come to the same name; any option that is
    not known to leave the results alone makes another one. Models count by their checksums.

    Parameters
    ----------
    configuration : the options in effect, by their names on the command line.
    """
    deciding: dict[str, object] = {
        name: value for name, value in configuration.items() if name not in WITHOUT_EFFECT
    }
    deciding["model"] = [model.provenance.sha256 for model in load_models(options)]
    deciding["version"] = __version__
    return f"neurostorm-{__version__}-{hash_configuration(deciding)[:N_DIGITS]}"

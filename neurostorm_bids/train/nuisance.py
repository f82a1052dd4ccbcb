"""What is no brain activity and still predicts: motion, the length of a run, the site."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from neurostorm_bids.grid.read import open_volumes
from neurostorm_bids.inputs.displacement import read_displacement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from neurostorm_bids.inputs import BoldRun


def tabulate_nuisance(runs: Sequence[BoldRun]) -> pd.DataFrame:
    """Return what is known of each run without looking at the brain.

    Returns
    -------
    A row per run: ``mean_fd`` (mean framewise displacement, mm; NaN without a table of confounds),
    ``n_volumes`` and ``repetition_time_s``.
    """
    return pd.DataFrame(
        {
            "mean_fd": [
                np.nan if run.confounds is None else read_mean_displacement(run.confounds)
                for run in runs
            ],
            "n_volumes": [float(open_volumes(run.path).n_volumes) for run in runs],
            "repetition_time_s": [run.repetition_time_s for run in runs],
        }
    )


def read_mean_displacement(confounds: Path) -> float:
    """Read the mean framewise displacement, mm, from a table of fMRIPrep; NaN if it has none.

    Errors are those of `read_displacement`.
    """
    values = read_displacement(confounds)
    known = np.empty(0) if values is None else values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")

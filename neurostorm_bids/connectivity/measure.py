"""The connectivity of one run: mean signals of regions, freed of nuisance, correlated."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from neurostorm_bids.connectivity.parcellation import place_parcellation
from neurostorm_bids.connectivity.regressors import read_regressors
from neurostorm_bids.errors import UserError
from neurostorm_bids.grid.brain import make_brain_mask, place_brain_mask, read_brain_mask
from neurostorm_bids.grid.read import open_volumes
from neurostorm_bids.grid.spec import MAX_REPETITION_TIME_S, GridSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neurostorm_bids.connectivity.parcellation import Parcellation
    from neurostorm_bids.grid.read import Volumes
    from neurostorm_bids.inputs import BoldRun

    Floats = NDArray[np.float64]

logger = logging.getLogger(__name__)

HIGH_PASS_HZ = 0.01

Found = TypeVar("Found")

_RELATIVE_ROUNDING = 1e-9
_MICROSECOND = 1e-6


class Connectivity(NamedTuple):
    """The connectivity of one run.

    Attributes
    ----------
    values : float32, shape (R * (R - 1) / 2,); Fisher's z of the correlations, the lower triangle
        row by row; 0 for a region that the run does not show.
    is_shown : (R,) whether the run shows the region.
    steps : what was done, in words.
    """

    values: NDArray[np.float32]
    is_shown: NDArray[np.bool_]
    steps: tuple[str, ...]

    @property
    def n_missing(self) -> int:
        """How many regions the run does not show."""
        return int((~self.is_shown).sum())


class RegionSignals(NamedTuple):
    """The mean signals of the regions of one run, freed of nuisance.

    Attributes
    ----------
    signals : (T, R), in standard deviations over the run; 0 for a region that the run does not
        show.
    is_shown : (R,) whether the run shows the region.
    steps : what was done, in words.
    volumes : (T,) position in the run's file of each volume, ascending.
    """

    signals: Floats
    is_shown: NDArray[np.bool_]
    steps: tuple[str, ...]
    volumes: NDArray[np.intp]

    def relate(self) -> NDArray[np.float32]:
        """Return Fisher's z of the correlations, as the values of `Connectivity`.

        All 0 for a single volume.
        """
        n_regions = len(self.is_shown)
        matrix = np.zeros((n_regions, n_regions))
        if len(self.signals) > 1:
            own = np.ix_(self.is_shown, self.is_shown)
            matrix[own] = _correlate(self.signals[:, self.is_shown])
        rows, columns = np.tril_indices(n_regions, k=-1)
        values = np.arctanh(np.clip(matrix[rows, columns], -0.9999999, 0.9999999))
        return values.astype(np.float32)


class ClipConnectivity(NamedTuple):
    """The connectivity of K clips of one run, each by itself.

    Attributes
    ----------
    values : float32, (K, R * (R - 1) / 2), as of `Connectivity`.
    means : float32, (K, R), mean signal of each region in each clip.
    n_volumes : (K,) of the source that each clip shows.
    """

    values: NDArray[np.float32]
    means: NDArray[np.float32]
    n_volumes: NDArray[np.int64]


def measure_connectivity(
    bold: Path,
    parcellation: Parcellation,
    *,
    space: str,
    repetition_time_s: float,
    brain_mask: Path | None = None,
    confounds: Path | None = None,
) -> Connectivity:
    """Correlate the mean signals of regions over a run.

    Correlations are of the covariance shrunk after Ledoit and Wolf. Parameters and errors are those
    of `read_signals`.
    """
    found = read_signals(
        bold,
        parcellation,
        space=space,
        repetition_time_s=repetition_time_s,
        brain_mask=brain_mask,
        confounds=confounds,
    )
    return Connectivity(found.relate(), found.is_shown, found.steps)


def measure_clips(
    found: RegionSignals, onsets_s: Sequence[float], duration_s: float, *, repetition_time_s: float
) -> ClipConnectivity:
    """Correlate and average the signals within each of K clips.

    Parameters
    ----------
    found : signals of the run.
    onsets_s : of the clips, from the first volume of the run's file.
    duration_s : of each clip. A clip shows the volumes whose times lie in it, and the nearest one
        where none does.
    repetition_time_s : seconds between volumes.
    """
    times_s = found.volumes * repetition_time_s
    values, means, counts = [], [], []
    for onset_s in onsets_s:
        is_in = (times_s > onset_s - _MICROSECOND) & (times_s < onset_s + duration_s - _MICROSECOND)
        if not is_in.any():
            is_in[np.abs(times_s - onset_s).argmin()] = True
        own = found._replace(signals=found.signals[is_in], volumes=found.volumes[is_in])
        values.append(own.relate())
        means.append(own.signals.mean(axis=0, dtype=np.float64).astype(np.float32))
        counts.append(int(is_in.sum()))
    return ClipConnectivity(np.stack(values), np.stack(means), np.array(counts))


def read_signals(
    bold: Path,
    parcellation: Parcellation,
    *,
    space: str,
    repetition_time_s: float,
    brain_mask: Path | None = None,
    confounds: Path | None = None,
    kept: NDArray[np.intp] | None = None,
) -> RegionSignals:
    """Average the voxels of each region, and take out what is no brain activity.

    Signals are freed of a linear trend, of drifts below 0.01 Hz (cosines) and of the nuisance
    regressors, all at once.

    Parameters
    ----------
    bold : preprocessed BOLD, 4D. One volume at a time is in memory.
    space : standard space of the run.
    repetition_time_s : seconds between volumes.
    brain_mask : voxels outside do not count; None makes one from the run.
    confounds : table of fMRIPrep; None removes none, as for a run that is denoised already.
    kept : positions in the file of the volumes that count, ascending; None for all. The others
        take no part in anything.

    Raises
    ------
    DataError, MissingFileError, ReadError
        If the run, its mask or its table of confounds cannot be used.
    """
    run = open_volumes(bold)
    brain = make_brain_mask(run) if brain_mask is None else read_brain_mask(brain_mask)
    grid = _as_grid(run, space)
    labels = place_parcellation(parcellation, grid)
    labels[~place_brain_mask(brain, run, grid).mask] = 0
    signals = _average(run, labels.ravel(order="F"), len(parcellation.names))  # (T, R)
    steps = [f"mean signals of {len(parcellation.names)} regions ({parcellation.name})"]
    volumes = np.arange(run.n_volumes) if kept is None else kept
    regressors = np.empty((run.n_volumes, 0))
    if confounds is not None:
        found = read_regressors(confounds, n_volumes=run.n_volumes, n_kept=len(volumes))
        regressors = found.signals
    if len(volumes) < run.n_volumes:
        steps.append(f"{run.n_volumes - len(volumes)} of {run.n_volumes} volumes left out")
    spread = np.std(signals[volumes], axis=0)
    level = np.abs(signals[volumes]).max(axis=0, initial=0)
    is_shown = np.isfinite(spread) & (spread > _RELATIVE_ROUNDING * level)
    steps.append(
        f"trend, drifts below {HIGH_PASS_HZ:g} Hz and {regressors.shape[1]} regressors removed"
    )
    cleaned = np.zeros((len(volumes), len(is_shown)))
    cleaned[:, is_shown] = _clean(signals[:, is_shown], regressors, volumes, repetition_time_s)
    return RegionSignals(cleaned, is_shown, tuple(steps), volumes)


def spare_bad_confounds(run: BoldRun, measure: Callable[[Path | None], Found]) -> tuple[Found, str]:
    """Measure with the confounds of a run; without them, and with a note, if these are bad.

    Raises
    ------
    UserError
        If it cannot be measured without confounds either.
    """
    try:
        return measure(run.confounds), ""
    except UserError as err:
        if run.confounds is None:
            raise
        note = f"The confounds of {run.label} were not removed for connectivity: {err}"
        logger.warning("%s", note)
    return measure(None), note


def connect_run(run: BoldRun, parcellation: Parcellation) -> tuple[Connectivity, str]:
    """Measure the connectivity of a run; without its confounds, and with a note, if these are bad.

    Raises
    ------
    DataError, MissingFileError, ReadError
        If the run or its mask cannot be used.
    """

    def measure(confounds: Path | None) -> Connectivity:
        return measure_connectivity(
            run.path,
            parcellation,
            space=run.space,
            repetition_time_s=run.repetition_time_s,
            brain_mask=run.brain_mask,
            confounds=confounds,
        )

    return spare_bad_confounds(run, measure)


def _as_grid(run: Volumes, space: str) -> GridSpec:
    """Return the run's own voxels as a grid; its clock plays no part."""
    rows = tuple(tuple(row) for row in run.affine.tolist())
    return GridSpec(
        space=space, shape=run.shape, affine=rows, repetition_time_s=MAX_REPETITION_TIME_S
    )


def _average(run: Volumes, labels: NDArray[np.int64], n_regions: int) -> Floats:
    """Return the mean of each region in each volume, (T, R); NaN for a region without voxels."""
    used = np.flatnonzero(labels)
    numbers = labels[used] - 1
    counts = np.bincount(numbers, minlength=n_regions).astype(np.float64)
    counts[counts == 0] = np.nan
    signals = np.empty((run.n_volumes, n_regions))
    for t, volume in enumerate(run.read()):
        values = np.nan_to_num(volume[used], posinf=0, neginf=0)
        signals[t] = np.bincount(numbers, weights=values, minlength=n_regions) / counts
    return signals


def _clean(
    signals: Floats, regressors: Floats, volumes: NDArray[np.intp], repetition_time_s: float
) -> Floats:
    """Take drifts and regressors (T, K) out of the kept volumes of signals (T, R)."""
    from nilearn.signal import clean  # noqa: PLC0415 - seconds

    if not signals.size:
        return signals[volumes]
    kept = slice(volumes[0], None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on constant regressors, which remove nothing
        cleaned: Floats = clean(
            signals[kept],
            detrend=True,
            standardize="zscore_sample",
            confounds=regressors[kept] if regressors.size else None,
            sample_mask=volumes - volumes[0],
            filter="cosine",
            high_pass=HIGH_PASS_HZ,
            t_r=repetition_time_s,
        )
    return cleaned


def _correlate(signals: Floats) -> Floats:
    """Return correlations (R, R) of signals (T, R)."""
    from nilearn.connectome import ConnectivityMeasure  # noqa: PLC0415 - seconds

    if signals.shape[1] == 0:
        return np.zeros((0, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # on standardising, which changes nothing
        matrix: Floats = ConnectivityMeasure(kind="correlation").fit_transform([signals])[0]
    return np.nan_to_num(matrix)

"""From what a user typed to the runs of a level: the one way in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from neurostorm_bids.inputs.datasets import find_datasets
from neurostorm_bids.inputs.places import find_place
from neurostorm_bids.inputs.runs import find_bold_runs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from neurostorm_bids.inputs.cleaning import Cleaning
    from neurostorm_bids.inputs.records import Discovery, Selection

FALLBACK_SPACES = ("MNI152NLin6Asym", "MNI152NLin2009cAsym")
"""Standard spaces to read where a run is not in the model's, in order."""


class Request(Protocol):
    """What the options of every level that reads BOLD say of it."""

    @property
    def bids_dir(self) -> Path:
        """The folder that the user named."""

    @property
    def derivatives(self) -> tuple[tuple[str, Path], ...]:
        """Further folders of derivatives, by name."""

    @property
    def selection(self) -> Selection:
        """Which participants, sessions, tasks, runs and space."""

    @property
    def cleaning(self) -> Cleaning:
        """What is done to a run before it is read."""

    @property
    def skip_bids_validation(self) -> bool:
        """Whether odd descriptions of datasets are passed over."""


def discover(
    request: Request, *, spaces: Iterable[str] = (), voxel_size_mm: float | None = None
) -> Discovery:
    """Find the runs that options choose.

    Parameters
    ----------
    spaces : those of the models' grids, the most wanted first.
    voxel_size_mm : side of the model's voxels; see `find_bold_runs`.

    Raises
    ------
    DatasetError, MissingFileError, SelectionError, UsageError : see `find_datasets` and
        `find_bold_runs`.
    """
    place = find_place(request.bids_dir)
    datasets = find_datasets(
        place.folder,
        dict(request.derivatives),
        is_checked=not request.skip_bids_validation,
    )
    return find_bold_runs(
        datasets,
        place.narrow(request.selection),
        preferred_spaces=tuple(dict.fromkeys((*spaces, *FALLBACK_SPACES))),
        voxel_size_mm=voxel_size_mm,
        cleaning=request.cleaning,
    )

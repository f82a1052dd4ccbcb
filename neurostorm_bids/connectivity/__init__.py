"""Functional connectivity: the correlations between regions, the baseline every model must beat."""

from neurostorm_bids.connectivity.measure import (
    Connectivity,
    connect_run,
    measure_clips,
    measure_connectivity,
    read_signals,
    spare_bad_confounds,
)
from neurostorm_bids.connectivity.parcellation import (
    AUTO,
    Parcellation,
    find_parcellation,
    make_spheres,
    place_parcellation,
)

__all__ = [
    "AUTO",
    "Connectivity",
    "Parcellation",
    "connect_run",
    "find_parcellation",
    "make_spheres",
    "measure_clips",
    "measure_connectivity",
    "place_parcellation",
    "read_signals",
    "spare_bad_confounds",
]

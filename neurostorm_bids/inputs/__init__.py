"""BIDS discovery: which preprocessed BOLD files there are, and which of them to run."""

from neurostorm_bids.inputs.cleaning import Cleaning
from neurostorm_bids.inputs.datasets import find_datasets
from neurostorm_bids.inputs.discover import discover
from neurostorm_bids.inputs.records import (
    BoldRun,
    Discovery,
    LeftOut,
    Selection,
    SourceDataset,
    Unusable,
)
from neurostorm_bids.inputs.runs import find_bold_runs
from neurostorm_bids.inputs.sidecars import read_repetition_time

__all__ = [
    "BoldRun",
    "Cleaning",
    "Discovery",
    "LeftOut",
    "Selection",
    "SourceDataset",
    "Unusable",
    "discover",
    "find_bold_runs",
    "find_datasets",
    "read_repetition_time",
]

"""BIDS discovery: which preprocessed BOLD files there are, and which of them to run."""

from neurostorm_bids.inputs.records import (
    BoldRun,
    Discovery,
    LeftOut,
    Selection,
    SourceDataset,
    Unusable,
)

__all__ = ["BoldRun", "Discovery", "LeftOut", "Selection", "SourceDataset", "Unusable"]

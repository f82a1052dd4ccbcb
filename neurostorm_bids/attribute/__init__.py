"""Which regions of a run drove a prediction, or are hard to reconstruct."""

from neurostorm_bids.attribute.regions import SeenRegions, see_regions
from neurostorm_bids.attribute.result import RunAttribution, Settings
from neurostorm_bids.attribute.run import attribute_series, check_attributable

__all__ = [
    "RunAttribution",
    "SeenRegions",
    "Settings",
    "attribute_series",
    "check_attributable",
    "see_regions",
]

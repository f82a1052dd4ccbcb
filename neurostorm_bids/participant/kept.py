"""What a call keeps in memory from its first use on: models and regions."""

from __future__ import annotations

from neurostorm_bids.participant import connectivity, extras, models


def forget() -> None:
    """Give up what a call kept, so that the next one in this process reads its files anew.

    Within a call they are read once, whatever becomes of the files meanwhile.
    """
    models.forget_models()
    connectivity.forget_parcellations()
    extras.find_regions.cache_clear()
    extras.digest_regions.cache_clear()

"""Re-identification from the embeddings that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from neurostorm_bids.errors import DataError
from neurostorm_bids.retrieval.people import reidentify

if TYPE_CHECKING:
    from neurostorm_bids.derivatives.results import ModelKey
    from neurostorm_bids.group.collect import Embeddings
    from neurostorm_bids.retrieval.people import Reidentification


class PeopleFound(NamedTuple):
    """How well a model's embeddings tell who somebody is; without outcome, why there is none."""

    model: ModelKey
    outcome: Reidentification | None
    why_not: str | None


def find_people(embeddings: Embeddings, *, seed: int) -> PeopleFound:
    """Look for every person's run among one run of everybody; see `reidentify`."""
    runs = pd.DataFrame(
        {
            "participant_id": [result.participant for result in embeddings.results],
            "session": [result.entities.get("ses", "") for result in embeddings.results],
            "run": [result.run for result in embeddings.results],
        }
    )
    name = embeddings.model.name
    try:
        outcome = reidentify(
            {name: embeddings.vectors}, runs, generator=np.random.default_rng(seed)
        )[name]
    except DataError as err:
        return PeopleFound(embeddings.model, None, str(err))
    return PeopleFound(embeddings.model, outcome, None)

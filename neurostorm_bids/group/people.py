"""Re-identification from the embeddings that are there, beside that from connectivity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from neurostorm_bids.errors import DataError
from neurostorm_bids.group.connectivity import HOW_TO, read_connectomes
from neurostorm_bids.retrieval.people import reidentify

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neurostorm_bids.derivatives.results import ModelKey
    from neurostorm_bids.group.collect import Embeddings
    from neurostorm_bids.group.connectivity import Connectome
    from neurostorm_bids.retrieval.people import Reidentification

EMBEDDING = "embedding"
MIN_SHARE = 0.5
"""Of the runs that must have a connectivity, for the others to be left out for its sake."""


@dataclass(frozen=True, kw_only=True)
class PeopleFound:
    """How well a model's embeddings tell who somebody is.

    Attributes
    ----------
    model : what made the embeddings.
    outcome : of the embeddings; None if there is none.
    why_not : why there is none.
    rivals : of connectivity, by its name, in the same galleries and for the same probes.
    notes : what is to be known of the comparison, the same for all models of the same runs.
    """

    model: ModelKey
    outcome: Reidentification | None
    why_not: str | None
    rivals: Mapping[str, Reidentification] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def list_outcomes(self) -> list[tuple[str, Reidentification]]:
        """Return kinds of features and outcomes, the embedding first; empty without outcome."""
        return [] if self.outcome is None else [(EMBEDDING, self.outcome), *self.rivals.items()]


def find_people(embeddings: Embeddings, *, seed: int) -> PeopleFound:
    """Look for every person's run among one run of everybody; see `reidentify`.

    With embeddings and with the connectivity of the same runs: galleries and probes are the same,
    and runs that lack one of these are left out of all.
    """
    connectomes, notes = read_connectomes(embeddings.results)
    kept: list[Connectome] = []
    is_used = np.ones(len(embeddings.results), dtype=bool)
    for one in connectomes:
        if one.has_it.mean() < MIN_SHARE:
            notes.append(
                f"The connectivity of {one.regions} is there for {int(one.has_it.sum())} of "
                f"{len(one.has_it)} runs and was not compared. {HOW_TO}"
            )
        else:
            kept.append(one)
            is_used &= one.has_it
    if not kept:
        notes.append(f"Connectivity, the usual rival, was not compared. {HOW_TO}")
    elif n_lost := int((~is_used).sum()):
        notes.append(f"{n_lost} run(s) have no connectivity and were left out here. {HOW_TO}")
    features: dict[str, NDArray[np.floating]] = {EMBEDDING: embeddings.vectors[is_used]}
    for one in kept:
        features[f"connectivity ({one.regions})"] = one.correlations[is_used[one.has_it]]
    used = [one for one, is_in in zip(embeddings.results, is_used, strict=True) if is_in]
    runs = pd.DataFrame(
        {
            "participant_id": [result.participant for result in used],
            "session": [result.entities.get("ses", "") for result in used],
            "run": [result.run for result in used],
        }
    )
    try:
        found = reidentify(features, runs, generator=np.random.default_rng(seed))
    except DataError as err:
        return PeopleFound(model=embeddings.model, outcome=None, why_not=str(err))
    outcome = found.pop(EMBEDDING)
    return PeopleFound(
        model=embeddings.model,
        outcome=outcome,
        why_not=None,
        rivals=found,
        notes=tuple(dict.fromkeys(notes)),
    )

"""Rows that are learnt from or tested: features, target, and whose they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Cases:
    """Runs, sessions or participants, one row each.

    Attributes
    ----------
    target : shape (n,), positions in `classes` or numbers; NaN where it is not known.
    participants : label of each row.
    classes : names; empty for numbers.
    features : shape (n, D), finite; None when `table` holds them, or when there are none.
    table : features that are numbers and words, in named columns; n rows.
    confounds : to be regressed out of the features; n rows.
    sites : of each row, whose differences ComBat removes from the features; None leaves them.
    """

    target: Floats
    participants: Sequence[str]
    classes: tuple[str, ...] = ()
    features: Floats | None = None
    table: pd.DataFrame | None = None
    confounds: pd.DataFrame | None = None
    sites: Sequence[str | None] | None = None

    def __post_init__(self) -> None:
        parts = (self.participants, self.features, self.table, self.confounds, self.sites)
        given = [part for part in parts if part is not None]
        lengths = {len(self.target), *map(len, given)}
        if len(lengths) > 1:
            raise UsageError(f"Cases need one entry per row in every part, found {lengths}.")
        if self.features is not None and self.table is not None:
            raise UsageError("Cases have features as an array or as a table, found both.")
        if self.features is not None and not np.isfinite(self.features).all():
            n_broken = int((~np.isfinite(self.features).all(axis=1)).sum())
            raise DataError(
                f"{n_broken} of {len(self)} rows have features that are not finite. Leave these "
                "rows out, or make their features again."
            )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.target)

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Which rows have a target; shape (n,)."""
        return np.isfinite(self.target)

    def select(self, which: NDArray[np.bool_]) -> Cases:
        """Return the rows that are chosen; `which` has shape (n,)."""
        rows = np.flatnonzero(which).tolist()
        return replace(
            self,
            target=self.target[which],
            participants=[self.participants[row] for row in rows],
            features=None if self.features is None else self.features[which],
            table=None if self.table is None else self.table[which],
            confounds=None if self.confounds is None else self.confounds[which],
            sites=None if self.sites is None else [self.sites[row] for row in rows],
        )

    def weigh(self, *, balances_classes: bool = False) -> Floats:
        """Return the weight of each row, of mean 1, so that participants count alike.

        With `balances_classes` every class has the same weight, however rare; then all rows must
        have a target.
        """
        owners = np.unique(np.asarray(self.participants, dtype=str), return_inverse=True)[1]
        weights = 1.0 / np.bincount(owners)[owners]
        if balances_classes and self.classes:
            codes = self.target.astype(np.int64)
            weights /= np.bincount(codes, weights=weights)[codes]
        scaled: Floats = weights * len(self) / weights.sum()
        return scaled

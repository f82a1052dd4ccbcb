"""ComBat: differences between sites in level and spread, learnt from training rows and removed.

The model and its empirical Bayes estimates are those of Johnson, Li & Rabinovic (Biostatistics
2007, 8:118-127), without covariates: feature = mean + shift of the site + scale of the site *
noise, with a normal prior for the shifts of a site and an inverse gamma prior for its squared
scales, both over features.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.train.confounders import Encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Owners = NDArray[np.int64]

MIN_SITE_ROWS = 2
"""A site with fewer training rows shows no spread, and is not harmonised."""

_MAX_ITERATIONS = 1000
_TOLERANCE = 1e-7
_SMALLEST_VARIANCE = 1e-12
_RELATIVE_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Combat:
    """What was learnt of sites.

    Attributes
    ----------
    sites : those that can be harmonised, sorted; rows of all others stay as they are.
    mean, sd : shape (D,), of the features over all sites.
    shifts, scales : shape (S, D), of each site, in units of `sd`.
    notes : what was left out in fitting, in sentences.
    """

    sites: tuple[str, ...]
    mean: Floats
    sd: Floats
    shifts: Floats
    scales: Floats
    notes: tuple[str, ...] = ()

    def remove(self, features: Floats, sites: Sequence[str | None]) -> Encoded:
        """Return features without the differences between sites, shape (n, D).

        Rows of a site that was not learnt stay as they are: training rows say nothing of it.
        That is so for every test row when one site is left out.
        """
        owners = _number_sites(sites, self.sites)
        is_known = owners >= 0
        notes = []
        if not is_known.all():
            strange = sorted({str(site) for site in np.array(sites, dtype=object)[~is_known]})
            notes.append(
                f"{int((~is_known).sum())} row(s) of sites that were not learnt "
                f"({', '.join(strange)}) stay as they are."
            )
        if not is_known.any():
            return Encoded(features, tuple(notes))
        standardised = (features - self.mean) / self.sd
        cleaned = (standardised - self.shifts[owners]) / self.scales[owners] * self.sd + self.mean
        return Encoded(np.where(is_known[:, None], cleaned, features), tuple(notes))


def fit_combat(features: Floats, sites: Sequence[str | None]) -> Combat:
    """Learn the differences between sites from training rows.

    Parameters
    ----------
    features : shape (n, D), finite.
    sites : of each row; None where it is not known.
    """
    counts = Counter(site for site in sites if site is not None)
    usable = tuple(sorted(site for site, count in counts.items() if count >= MIN_SITE_ROWS))
    notes = [
        f"Site {site} has {count} training row(s), too few to harmonise."
        for site, count in sorted(counts.items())
        if count < MIN_SITE_ROWS
    ]
    if len(usable) < 2:  # noqa: PLR2004
        usable = ()
        notes.append("Fewer than two sites can be harmonised: features stay as they are.")
    owners = _number_sites(sites, usable)
    is_in = owners >= 0
    n_features = features.shape[1]
    if not usable:
        nothing = np.zeros((0, n_features))
        mean, sd, shifts, scales = np.zeros(n_features), np.ones(n_features), nothing, nothing
    else:
        mean, sd = _fit_levels(features[is_in], owners[is_in])
        standardised = (features[is_in] - mean) / sd
        shifts, scales = _fit_sites(standardised, owners[is_in])
    return Combat(
        sites=usable,
        mean=mean,
        sd=sd,
        shifts=shifts,
        scales=scales,
        notes=tuple(notes),
    )


def _number_sites(sites: Sequence[str | None], known: Sequence[str]) -> Owners:
    """Return the position of each row's site, -1 for a site that is not known."""
    where: dict[str | None, int] = {site: at for at, site in enumerate(known)}
    return np.array([where.get(site, -1) for site in sites], dtype=np.int64)


def _fit_levels(features: Floats, owners: Owners) -> tuple[Floats, Floats]:
    """Return mean (D,) over sites, and deviation (D,) within them."""
    levels = np.stack([features[owners == site].mean(axis=0) for site in range(owners.max() + 1)])
    sd = np.sqrt(((features - levels[owners]) ** 2).mean(axis=0))
    is_constant = sd <= _RELATIVE_ROUNDING * np.abs(features).max(axis=0)
    mean: Floats = features.mean(axis=0)
    return mean, np.where(is_constant, 1.0, sd)


def _fit_sites(standardised: Floats, owners: Owners) -> tuple[Floats, Floats]:
    """Return shifts and scales of every site; two of shape (S, D)."""
    varies = np.ptp(standardised, axis=0) > 0
    shifts = np.zeros((int(owners.max()) + 1, standardised.shape[1]))
    scales = np.ones_like(shifts)
    for site in range(len(shifts)):
        rows = standardised[owners == site][:, varies]
        shifts[site, varies], scales[site, varies] = _shrink(rows)
    return shifts, scales


def _shrink(rows: Floats) -> tuple[Floats, Floats]:
    """Return shift and scale of each feature of one site, drawn towards those of the others.

    The posterior means depend on each other and are found by turns: equations (3.1) of the paper.
    """
    n_rows, n_features = rows.shape
    shift, variance = rows.mean(axis=0), rows.var(axis=0, ddof=1)
    if n_features < 2:  # noqa: PLR2004
        return shift, np.sqrt(np.maximum(variance, _SMALLEST_VARIANCE))
    prior_shift, prior_spread = shift.mean(), shift.var(ddof=1)
    mean = variance.mean()
    spread = max(float(variance.var(ddof=1)), _SMALLEST_VARIANCE)
    shape, rate = 2 + mean**2 / spread, mean + mean**3 / spread  # moments of the inverse gamma
    found, squared_scale = shift, np.maximum(variance, _SMALLEST_VARIANCE)
    for _ in range(_MAX_ITERATIONS):
        new = (n_rows * prior_spread * shift + squared_scale * prior_shift) / (
            n_rows * prior_spread + squared_scale
        )
        squares = ((rows - new) ** 2).sum(axis=0)
        new_scale = (rate + squares / 2) / (n_rows / 2 + shape - 1)
        change = max(np.abs(new - found).max(), np.abs(new_scale - squared_scale).max())
        found, squared_scale = new, np.maximum(new_scale, _SMALLEST_VARIANCE)
        if change < _TOLERANCE:
            break
    return found, np.sqrt(squared_scale)

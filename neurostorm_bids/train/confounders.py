"""What must not carry a prediction: confounds, regressed out as the training participants show.

Everything here is fitted on training rows and then applied to any rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from neurostorm_bids.errors import UsageError
from neurostorm_bids.inputs.declarations import parse_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neurostorm_bids.inputs.columns import Column

    Floats = NDArray[np.float64]


class Encoded(NamedTuple):
    """A table as numbers.

    Attributes
    ----------
    matrix : shape (n, K).
    notes : what was filled in, in sentences.
    """

    matrix: Floats
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """How one column becomes numbers: one column of z-scores, or one of 0 and 1 per class."""

    name: str
    classes: tuple[str, ...]
    mean: Floats
    sd: Floats

    def encode(self, cells: pd.Series[Any]) -> tuple[Floats, NDArray[np.bool_]]:
        """Return values (n, K) and which rows have one; the others get the mean, 0."""
        if self.classes:
            raw = (cells.to_numpy()[:, None] == np.array(self.classes, dtype=object)).astype(float)
            is_known = raw.any(axis=1)
        else:
            raw = pd.to_numeric(cells).to_numpy(dtype=np.float64)[:, None]
            is_known = np.isfinite(raw[:, 0])
        with np.errstate(invalid="ignore"):
            values = np.where(is_known[:, None], (raw - self.mean) / self.sd, 0.0)
        return values, is_known


@dataclass(frozen=True, kw_only=True)
class TableEncoder:
    """Columns of numbers as z-scores, columns of words as one centred column per word.

    Mean, deviation and words are those of the training rows. A missing value, and a word that no
    training row has, count as the training mean.
    """

    scales: tuple[_Scale, ...]

    @classmethod
    def fit(cls, table: pd.DataFrame) -> TableEncoder:
        """Learn from training rows; columns that do not vary there are dropped."""
        return cls(scales=tuple(filter(None, (_fit_scale(table[name]) for name in table))))

    def encode(self, table: pd.DataFrame) -> Encoded:
        """Return the table as numbers; shape (n, K), K from the training rows."""
        parts, notes = [np.zeros((len(table), 0))], []
        for scale in self.scales:
            values, is_known = scale.encode(table[scale.name])
            parts.append(values)
            n_filled = int((~is_known).sum())
            if n_filled:
                notes.append(
                    f"{scale.name}: {n_filled} of {len(table)} rows have no value, or one that no "
                    "training participant has; they count as the training mean."
                )
        return Encoded(np.concatenate(parts, axis=1), tuple(notes))


def _fit_scale(cells: pd.Series[Any]) -> _Scale | None:
    known = cells.dropna()
    if pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells):
        classes: tuple[str, ...] = ()
        raw = known.to_numpy(dtype=np.float64)[:, None]
        sd = raw.std(axis=0) if len(raw) else np.zeros(1)
    else:
        classes = tuple(sorted(set(known), key=str))
        raw = (known.to_numpy()[:, None] == np.array(classes, dtype=object)).astype(float)
        sd = np.ones(len(classes))
    varies = len(raw) > 0 and bool((np.ptp(raw, axis=0) > 0).any())
    if not varies:
        return None
    return _Scale(name=str(cells.name), classes=classes, mean=raw.mean(axis=0), sd=sd)


def tabulate_columns(columns: Sequence[Column]) -> pd.DataFrame:
    """Put columns of a dataset's tables side by side.

    A column whose values are all numbers is one of numbers, any other is one of words; NaN and None
    where a row has no value.
    """
    table: dict[str, Sequence[object]] = {}
    for column in columns:
        if column.name in table:
            raise UsageError(f"Column {column.name!r} is named twice. Name each confound once.")
        numbers = [None if cell is None else parse_number(cell) for cell in column.cells]
        known = [
            number for number, cell in zip(numbers, column.cells, strict=True) if cell is not None
        ]
        table[column.name] = (
            column.cells
            if None in known
            else [np.nan if number is None else number for number in numbers]
        )
    return pd.DataFrame(table)


@dataclass(frozen=True, kw_only=True)
class ConfoundRegression:
    """A linear effect of confounds on every feature, by least squares.

    Attributes
    ----------
    encoder : of the confounds.
    slopes : shape (K, D), features per unit of the encoded confounds.
    """

    encoder: TableEncoder
    slopes: Floats

    @classmethod
    def fit(cls, features: Floats, confounds: pd.DataFrame) -> ConfoundRegression:
        """Learn the effect from training rows: features (n, D), confounds n rows."""
        encoder = TableEncoder.fit(confounds)
        values = encoder.encode(confounds).matrix
        design = np.column_stack([np.ones(len(values)), values])
        slopes = np.linalg.lstsq(design, features, rcond=None)[0][1:].astype(np.float64)
        return cls(encoder=encoder, slopes=slopes)

    def remove(self, features: Floats, confounds: pd.DataFrame) -> Encoded:
        """Return features without the effect, shape (n, D); their training means stay."""
        encoded = self.encoder.encode(confounds)
        return Encoded(features - encoded.matrix @ self.slopes, encoded.notes)

"""The grid a model reads: a standard space, voxels in it, and a clock."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from neurostorm_bids.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_VOXELS_PER_AXIS = 512
MIN_REPETITION_TIME_S = 0.01
MAX_REPETITION_TIME_S = 60.0
MIN_VOXEL_VOLUME_MM3 = 1e-6
MAX_VOLUMES = 10_000_000
"""Of the model's clock; a header that asks for more is damaged."""

# The field of view that the published weights saw: world position in mm of the outer face of the
# first voxel, and the direction in which voxels are counted (left, anterior, superior).
_PUBLISHED_EDGE_MM = (97.0, -115.0, -79.0)
_PUBLISHED_DIRECTION = (-1.0, 1.0, 1.0)
_PUBLISHED_EXTENT_MM = 192.0
_PUBLISHED_REPETITION_TIME_S = 0.8
_PUBLISHED_SPACE = "MNI152NLin6Asym"

Size3 = tuple[int, int, int]
Affine = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class GridSpec:
    """A grid in a standard space, with the repetition time of the model's clock.

    Parameters
    ----------
    space : TemplateFlow name of the standard space.
    shape : voxels along X, Y, Z.
    affine : four rows of four; voxel indices to world millimetres (RAS+).
    repetition_time_s : seconds from one volume of the model's clock to the next.

    Raises
    ------
    DataError
        If a field is not what it says, or asks for an impossible grid.
    """

    space: str
    shape: Size3
    affine: Affine
    repetition_time_s: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", _check_space(self.space))
        object.__setattr__(self, "shape", _check_shape(self.shape))
        object.__setattr__(self, "affine", _check_affine(self.affine))
        object.__setattr__(self, "repetition_time_s", _check_clock(self.repetition_time_s))

    @classmethod
    def published(cls, n_voxels: int | Sequence[int] = 96) -> GridSpec:
        """Return the grid of weights published for NeuroSTORM.

        Parameters
        ----------
        n_voxels : voxels along each axis, or along X, Y and Z. Whatever their number, they fill
            the same 192 mm field of view, so the voxel size is 192 / n mm.
        """
        shape = _check_shape((n_voxels,) * 3 if isinstance(n_voxels, Integral) else n_voxels)
        affine = np.eye(4)
        for axis, n in enumerate(shape):
            step = _PUBLISHED_DIRECTION[axis] * _PUBLISHED_EXTENT_MM / n
            affine[axis, axis] = step
            affine[axis, 3] = _PUBLISHED_EDGE_MM[axis] + step / 2
        return cls(
            space=_PUBLISHED_SPACE,
            shape=shape,
            affine=_as_rows(affine),
            repetition_time_s=_PUBLISHED_REPETITION_TIME_S,
        )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> GridSpec:
        """Build a grid from what `to_dict` gave, for instance out of a model's JSON.

        Raises
        ------
        DataError
            If a field is missing, unknown or impossible.
        """
        expected = {"space", "shape", "affine", "repetition_time_s"}
        if not isinstance(fields, Mapping) or set(fields) != expected:
            found = sorted(map(str, fields)) if isinstance(fields, Mapping) else fields
            raise DataError(
                f"A grid has the fields {sorted(expected)}; found {found}. "
                "Take the grid from the model's own config.json."
            )
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings, ready for JSON."""
        fields = asdict(self)
        fields["shape"] = list(self.shape)
        fields["affine"] = [list(row) for row in self.affine]
        return fields

    @property
    def affine_matrix(self) -> NDArray[np.float64]:
        """Voxel indices to world millimetres, float64, shape (4, 4)."""
        return np.array(self.affine, dtype=np.float64)

    @property
    def voxel_size_mm(self) -> tuple[float, float, float]:
        """Side of a voxel along X, Y, Z."""
        x, y, z = np.linalg.norm(self.affine_matrix[:3, :3], axis=0).tolist()
        return x, y, z

    @property
    def side_mm(self) -> float:
        """Side of a cube of a voxel's volume."""
        return float(abs(np.linalg.det(self.affine_matrix[:3, :3])) ** (1 / 3))

    @property
    def label(self) -> str:
        """Voxel size as a BIDS ``res-`` label, letters and digits only: ``2mm``, ``1p5x2x2mm``."""
        sides = [f"{side:.4g}".replace(".", "p") for side in self.voxel_size_mm]
        return f"{sides[0] if len(set(sides)) == 1 else 'x'.join(sides)}mm"


def _as_rows(affine: NDArray[np.float64]) -> Affine:
    return tuple(tuple(row) for row in affine.tolist())


def _check_space(space: object) -> str:
    if not (isinstance(space, str) and re.fullmatch(r"[A-Za-z0-9]{1,64}", space)):
        raise DataError(
            f"The space of a grid is a TemplateFlow name of letters and digits; found {space!r}. "
            "Name a standard space, such as MNI152NLin6Asym."
        )
    return space


def _check_shape(shape: object) -> Size3:
    try:
        sizes = np.array(shape)
    except (TypeError, ValueError):
        sizes = np.empty(0)
    usable = (
        sizes.shape == (3,)
        and sizes.dtype.kind in "iu"
        and sizes.min() >= 1
        and sizes.max() <= MAX_VOXELS_PER_AXIS
    )
    if not usable:
        raise DataError(
            f"The shape of a grid is three whole numbers from 1 to {MAX_VOXELS_PER_AXIS}; "
            f"found {shape!r}. Take the grid from the model's own config.json."
        )
    x, y, z = sizes.tolist()
    return x, y, z


def _check_affine(affine: object) -> Affine:
    try:
        matrix = np.array(affine, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.empty(0)
    usable = (
        matrix.shape == (4, 4)
        and np.isfinite(matrix).all()
        and matrix[3].tolist() == [0, 0, 0, 1]
        and abs(np.linalg.det(matrix[:3, :3])) > MIN_VOXEL_VOLUME_MM3
    )
    if not usable:
        raise DataError(
            "The affine of a grid is four rows of four finite numbers, the last row 0 0 0 1, that "
            f"can be inverted; found {affine!r}. Take the grid from the model's own config.json."
        )
    return _as_rows(matrix)


def _check_clock(repetition_time_s: object) -> float:
    is_number = isinstance(repetition_time_s, Real) and not isinstance(repetition_time_s, bool)
    try:
        seconds = float(cast("float", repetition_time_s)) if is_number else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        seconds = math.inf
    if not MIN_REPETITION_TIME_S <= seconds <= MAX_REPETITION_TIME_S:
        raise DataError(
            f"The repetition time of a grid is {MIN_REPETITION_TIME_S:g} to "
            f"{MAX_REPETITION_TIME_S:g} seconds; found {repetition_time_s!r}. "
            "Take the grid from the model's own config.json."
        )
    return seconds

"""Columns of confounds as fMRIPrep 1.0 and 1.1 called them, under the names of today."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import TYPE_CHECKING

from neurostorm_bids.inputs.declarations import parse_number
from neurostorm_bids.inputs.tsv import MISSING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAMES = {
    "WhiteMatter": "white_matter",
    "CSF": "csf",
    "GlobalSignal": "global_signal",
    "FramewiseDisplacement": "framewise_displacement",
    "stdDVARS": "std_dvars",
    "non-stdDVARS": "dvars",
    "vx-wisestdDVARS": "vx_wise_std_dvars",
    "X": "trans_x",
    "Y": "trans_y",
    "Z": "trans_z",
    "RotX": "rot_x",
    "RotY": "rot_y",
    "RotZ": "rot_z",
}
_NUMBERED = {
    "aCompCor": "a_comp_cor_",
    "tCompCor": "t_comp_cor_",
    "Cosine": "cosine",
    "NonSteadyStateOutlier": "non_steady_state_outlier",
    "AROMAAggrComp": "aroma_motion_",
}
_EXPANDED = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z", "csf", "white_matter")


def modernise_columns(columns: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Rename the columns of an old table and add the derivatives and squares it lacks.

    A table of today comes back as it is. Derivatives are backward differences, as fMRIPrep has
    made them since 1.2; their first row is missing.
    """
    renamed = {_rename(name): cells for name, cells in columns.items()}
    if renamed.keys() == columns.keys():
        return dict(columns)
    for name in _EXPANDED:
        if name not in renamed or f"{name}_derivative1" in renamed:
            continue
        values = [_parse(cell) for cell in renamed[name]]
        slopes = [math.nan, *(b - a for a, b in pairwise(values))]
        for suffix, numbers in (
            ("derivative1", slopes),
            ("power2", [value**2 for value in values]),
            ("derivative1_power2", [slope**2 for slope in slopes]),
        ):
            renamed.setdefault(f"{name}_{suffix}", [_format(number) for number in numbers])
    return renamed


def _rename(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    match = re.fullmatch(r"([A-Za-z]+?)(\d+)", name)
    if match is not None and match[1] in _NUMBERED:
        return _NUMBERED[match[1]] + match[2]
    return name


def _parse(cell: str) -> float:
    number = parse_number(cell)
    return math.nan if number is None else number


def _format(number: float) -> str:
    return repr(number) if math.isfinite(number) else MISSING

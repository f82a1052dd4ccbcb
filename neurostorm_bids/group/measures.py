"""What was measured of runs when the figures of the participants' reports were drawn."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from neurostorm_bids.errors import UserError
from neurostorm_bids.inputs.files import list_names, read_json_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

_FOLDER = "figures"
_TSNR = "MedianTSNR"


def read_tsnr(output_dir: Path, participants: Iterable[str]) -> dict[tuple[str, str], float]:
    """Return the median temporal signal-to-noise ratio by run and checksum of the model.

    Only of those runs whose figures were drawn; a file that cannot be read is told in the log.
    """
    found = {}
    for participant in participants:
        folder = output_dir / f"sub-{participant}" / _FOLDER
        for name in list_names(folder) if folder.is_dir() else []:
            if not (name.endswith(".json") and "_desc-" in name):
                continue
            try:
                told = read_json_object(folder / name, dataset_root=output_dir)
            except UserError as err:
                logger.warning("The temporal signal-to-noise ratio was not read. %s", err)
                continue
            for value in _list_measures(told):
                found[str(told.get("Run")), str(told.get("ModelSHA256"))] = value
    return found


def _list_measures(told: Mapping[str, Any]) -> Iterator[float]:
    figures = told.get("Figures")
    for figure in figures if isinstance(figures, list) else []:
        measures = figure.get("Measures") if isinstance(figure, dict) else None
        value = measures.get(_TSNR) if isinstance(measures, dict) else None
        if isinstance(value, int | float) and math.isfinite(value):
            yield float(value)

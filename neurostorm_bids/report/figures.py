"""The figures of one run, drawn while it is worked on, and a file that tells of them."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.atomic import remove_leftovers, write_files
from neurostorm_bids.derivatives.names import derive_path
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.errors import DataError, OutputError
from neurostorm_bids.inputs.displacement import read_displacement
from neurostorm_bids.inputs.names import parse_name
from neurostorm_bids.report.attributions import draw_attribution, find_attributions
from neurostorm_bids.report.carpet import draw_carpet
from neurostorm_bids.report.places import locate_figure, locate_seal
from neurostorm_bids.report.predictions import draw_predictions, draw_recurrence
from neurostorm_bids.report.signals import measure_signals
from neurostorm_bids.report.volumes import draw_mosaic, draw_noise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from neurostorm_bids.derivatives import OutputNames
    from neurostorm_bids.grid.series import Series
    from neurostorm_bids.inputs import BoldRun
    from neurostorm_bids.predict import RunPrediction
    from neurostorm_bids.pretrained import Model
    from neurostorm_bids.report.picture import Picture

logger = logging.getLogger(__name__)


class Drawn(NamedTuple):
    """Figures, and in words which could not be drawn."""

    pictures: list[Picture]
    warnings: list[str]

    def add(self, name: str, draw: Callable[[], Picture | None]) -> None:
        """Draw one figure; whatever goes wrong becomes a warning."""
        try:
            picture = draw()
        except Exception as err:
            logger.debug("No %s", name, exc_info=True)
            self.warnings.append(f"There is no figure of the {name}: {type(err).__name__}: {err}")
            return
        if picture is not None:
            self.pictures.append(picture)


def write_run_figures(
    output_dir: Path,
    run: BoldRun,
    prediction: RunPrediction,
    *,
    model: Model,
    names: OutputNames,
    with_series: bool = True,
) -> tuple[str, ...]:
    """Draw what a run and a model look like into ``sub-X/figures/``.

    Attributions are drawn from their files, if these are there.

    Parameters
    ----------
    model, names : the model and the names of its files.
    with_series : draw the series too; models that read the same grid need it once.

    Returns
    -------
    Warnings: which figures there are not, and why.
    """
    drawn = Drawn([], [])
    if with_series:
        _draw_series(drawn, prediction.series, run)
    drawn.add("predictions", lambda: draw_predictions(prediction))
    drawn.add("recurrence", lambda: draw_recurrence(prediction))
    _draw_attributions(drawn, output_dir, run, names)
    try:
        _write(output_dir, run, drawn, model=model, names=names)
    except OutputError as err:
        drawn.warnings.append(f"The figures could not be written. {err}")
    return tuple(drawn.warnings)


def _draw_series(drawn: Drawn, series: Series, run: BoldRun) -> None:
    try:
        signals = measure_signals(series)
    except Exception as err:  # noqa: BLE001 - as above
        drawn.warnings.append(f"There are no figures of the run: {type(err).__name__}: {err}")
        return
    displacement = _find_displacement(drawn, series, run)
    drawn.add("mosaic", lambda: draw_mosaic(series, signals))
    drawn.add(
        "carpet plot",
        lambda: draw_carpet(
            signals,
            repetition_time_s=series.source_repetition_time_s,
            displacement=displacement,
        ),
    )
    drawn.add("noise", lambda: draw_noise(series, signals))


def _find_displacement(drawn: Drawn, series: Series, run: BoldRun) -> NDArray[np.float64] | None:
    """Return framewise displacement for each volume of the series; None if it is not known."""
    if run.confounds is None:
        return None
    try:
        displacement = read_displacement(run.confounds)
        n_volumes = len(series.frames)
        n_dropped = round(series.start_s / series.source_repetition_time_s)
        if displacement is not None and len(displacement) != n_volumes + n_dropped:
            raise DataError(f"{len(displacement)} rows for {n_volumes + n_dropped} volumes.")
    except Exception as err:  # noqa: BLE001 - as above
        drawn.warnings.append(f"Framewise displacement is not drawn. {err}")
        return None
    return None if displacement is None else displacement[n_dropped:]


def _draw_attributions(drawn: Drawn, output_dir: Path, run: BoldRun, names: OutputNames) -> None:
    """Draw the attributions of a model, by every atlas."""
    path = derive_path(
        output_dir,
        run,
        suffix="attribution",
        extension=".tsv",
        entities={"desc": names.attribution},
    )
    parts = parse_name(path.name)
    for found in find_attributions(path.parent, run.entities):
        if parts is not None and found.name == parts.entities["desc"]:
            drawn.add("attributions", partial(draw_attribution, found))


def _write(
    output_dir: Path, run: BoldRun, drawn: Drawn, *, model: Model, names: OutputNames
) -> None:
    """Write the figures and, last, the file that tells of them."""
    contents: dict[Path, str | bytes] = {}
    told = []
    for picture in drawn.pictures:
        path = locate_figure(output_dir, run, names, kind=picture.kind, extension=picture.extension)
        contents[path] = picture.content
        told.append(
            {
                "File": path.name,
                "Kind": picture.kind,
                "Title": picture.title,
                "AltText": picture.alt,
                "Caption": " ".join(picture.caption.split()),
                "Measures": {k: v for k, v in picture.measures.items() if math.isfinite(v)},
            }
        )
    seal = locate_seal(output_dir, run, names)
    contents[seal] = format_json(
        {
            "Description": "Figures of a run and a model, in the order of the report.",
            "SoftwareVersion": __version__,
            "Run": run.label,
            "ModelName": model.provenance.name,
            "ModelSHA256": model.provenance.sha256,
            "Figures": told,
            "Warnings": list(drawn.warnings),
        }
    )
    remove_leftovers(seal.parent)
    write_files(contents, seals=[seal])
    logger.info("Wrote %d figures of %s", len(told), run.label)

"""Tables of runs: embeddings of all models and the quality of the runs; tables of scores."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.tables import Column
from neurostorm_bids.derivatives.texts import format_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from neurostorm_bids.derivatives.results import Result
    from neurostorm_bids.group.collect import Embeddings
    from neurostorm_bids.group.people import PeopleFound
    from neurostorm_bids.group.truth import Assessment


def tabulate_embeddings(embeddings: Sequence[Embeddings]) -> list[Column]:
    """Return a row for each run and model, all models in one table.

    Columns: participant_id, session, task, run, source, model, model_sha256, then the features. A
    model with fewer features than another leaves the last columns empty.
    """
    results = [result for part in embeddings for result in part.results]
    widest = max(part.vectors.shape[1] for part in embeddings)
    values = np.full((len(results), widest), np.nan, dtype=np.float32)
    start = 0
    for part in embeddings:
        values[start : start + len(part.vectors), : part.vectors.shape[1]] = part.vectors
        start += len(part.vectors)
    digits = max(3, len(str(widest - 1)))
    return [
        *identify_runs(results),
        *(
            Column(
                name=f"dim{feature:0{digits}d}",
                cells=values[:, feature],
                description=f"Feature {feature} of the run's embedding, counted from 0. Features "
                "of different models have nothing to do with each other.",
                unit="arbitrary",
            )
            for feature in range(widest)
        ),
    ]


def identify_runs(results: Sequence[Result]) -> list[Column]:
    """Return the columns that tell rows of runs and models apart."""
    entities = [result.entities for result in results]
    return [
        Column(
            name="participant_id",
            cells=[f"sub-{one['sub']}" for one in entities],
            description="The participant's label, as in the source dataset.",
        ),
        *(
            Column(
                name=name,
                cells=[one.get(key) for one in entities],
                description=f"The {name} in the file's name.",
            )
            for name, key in (("session", "ses"), ("task", "task"), ("run", "run"))
        ),
        Column(
            name="source",
            cells=[result.run for result in results],
            description="Name of the preprocessed series, without suffix.",
        ),
        Column(
            name="model",
            cells=[result.model.name for result in results],
            description="Name of the model.",
        ),
        Column(
            name="model_sha256",
            cells=[result.model.sha256 for result in results],
            description="Checksum of the model.",
        ),
    ]


def tabulate_quality(
    results: Sequence[Result],
    motion_mm: Sequence[float | None],
    *,
    tsnr: Sequence[float] = (),
    novelties: Sequence[float] = (),
) -> list[Column]:
    """Return a row for each run and model: what is known of how good the run is.

    Parameters
    ----------
    motion_mm : mean framewise displacement of each.
    tsnr : median temporal signal-to-noise ratios, NaN where not known; a column only if any is.
    novelties : distances from the training runs, likewise.
    """
    return [
        *identify_runs(results),
        Column(
            name="mean_fd",
            cells=round_numbers([np.nan if value is None else value for value in motion_mm]),
            description="Mean framewise displacement, from the confounds of the source; n/a where "
            "these were not at hand.",
            unit="mm",
        ),
        *_tabulate_lengths(results),
        Column(
            name="brain_coverage",
            cells=round_numbers(
                [
                    np.nan if value is None else value
                    for value in (result.read_number("BrainCoverage") for result in results)
                ]
            ),
            description="Share of the brain mask that lies in the model's field of view, 0 to 1.",
        ),
        *_tabulate_if_known(
            "median_tsnr",
            tsnr,
            "Median over the brain of the temporal signal-to-noise ratio; n/a where no figures of "
            "the run were drawn.",
        ),
        *_tabulate_if_known(
            "novelty",
            novelties,
            "Distance of the run's embedding from those of the runs that the model was trained on.",
        ),
        Column(
            name="n_warnings",
            cells=[len(result.list_texts("Warnings")) for result in results],
            description="Warnings of the participant level; the run's sidecar has their text.",
        ),
    ]


def _tabulate_lengths(results: Sequence[Result]) -> list[Column]:
    """Return how long each run is: in seconds, in volumes, and the time between these."""
    grids = [result.sidecar.get("Grid") for result in results]
    clocks = [grid.get("repetition_time_s") if isinstance(grid, dict) else None for grid in grids]
    volumes = [result.read_number("NumberOfVolumes") for result in results]
    return [
        Column(
            name="duration",
            cells=[
                round(n * clock, 6) if n is not None and isinstance(clock, int | float) else None
                for n, clock in zip(volumes, clocks, strict=True)
            ],
            description="Length of the run as the model read it.",
            unit="s",
        ),
        Column(
            name="n_volumes",
            cells=[None if n is None else int(n) for n in volumes],
            description="Volumes on the model's clock.",
        ),
        Column(
            name="repetition_time",
            cells=[result.read_number("SourceRepetitionTime") for result in results],
            description="Time between volumes of the source.",
            unit="s",
        ),
    ]


def _tabulate_if_known(name: str, values: Sequence[float | None], description: str) -> list[Column]:
    """Return a column of numbers, or none where none is known."""
    numbers = [np.nan if value is None else value for value in values]
    if not np.isfinite(numbers).any():
        return []
    return [Column(name=name, cells=round_numbers(numbers), description=description)]


def tabulate_scores(assessments: Sequence[Assessment]) -> list[Column]:
    """Return a row for each model, target and measure."""
    rows = [
        {
            "model": one.predictions.model.name,
            "model_sha256": one.predictions.model.sha256,
            "target": one.predictions.target.name,
            "truth": one.source,
            "level": one.level,
            "measure": score.name,
            "value": score.value,
            "low": score.low,
            "high": score.high,
            "chance": score.chance,
            "p_value": score.p_value,
            "n_participants": one.scores.n_participants,
            "n_rows": one.scores.n_rows,
        }
        for one in assessments
        if one.scores is not None
        for score in one.measures
    ]
    return _describe_columns(rows, _SCORES)


def tabulate_people(found: Sequence[PeopleFound]) -> list[Column]:
    """Return a row for each model, kind of features and measure of re-identification."""
    rows = [
        {
            "model": one.model.name,
            "model_sha256": one.model.sha256,
            "features": features,
            "apart": outcome.apart,
            "measure": score.name,
            "value": score.value,
            "low": score.low,
            "high": score.high,
            "chance": score.chance,
            "n_participants": outcome.scores.n_participants,
            "n_candidates": outcome.scores.n_candidates,
        }
        for one in found
        for features, outcome in one.list_outcomes()
        for score in outcome.scores.scores
    ]
    return _describe_columns(rows, _SCORES)


def describe_columns(columns: Sequence[Column], **facts: Any) -> str:  # noqa: ANN401 - JSON's values
    """Return the text of a table's sidecar."""
    head = {"SoftwareName": "neurostorm-bids", "SoftwareVersion": __version__}
    return format_json({**head, **facts, **{one.name: one.declare() for one in columns}})


def format_parquet(columns: Sequence[Column]) -> bytes:
    """Return a Parquet file of columns of text and of 32-bit numbers."""
    arrays = {
        column.name: pa.array(column.cells, from_pandas=True)
        if isinstance(column.cells, np.ndarray)
        else pa.array(column.cells, type=pa.string())
        for column in columns
    }
    file = BytesIO()
    pq.write_table(pa.table(arrays), file, compression="zstd")
    return file.getvalue()


_SCORES = {
    "model": "Name of the model.",
    "model_sha256": "Checksum of the model.",
    "target": "What is predicted.",
    "truth": "Column, and table, that holds the truth.",
    "level": "What a row that was scored is: the runs of one participant, session or run.",
    "features": "What runs are compared by: the model's embedding, or, in the same galleries and "
    "for the same probes, functional connectivity, which needs no model.",
    "apart": "What the two runs of a person that are compared differ in.",
    "measure": "Name of the measure.",
    "value": "The measure; mae and rmse in the unit of the target.",
    "low": "Lower end of the 95 % bootstrap interval over participants.",
    "high": "Upper end of the 95 % bootstrap interval over participants.",
    "chance": "Value of a guess that knows only how often each class, or which mean, occurs.",
    "p_value": "Of a permutation test, one-sided; n/a unless it was asked for.",
    "n_participants": "Participants scored.",
    "n_rows": "Rows scored.",
    "n_candidates": "People that each run is compared with.",
}


def _describe_columns(
    rows: Sequence[Mapping[str, object]], descriptions: Mapping[str, str]
) -> list[Column]:
    names = list(rows[0]) if rows else []
    return [
        Column(name=name, cells=[row[name] for row in rows], description=descriptions[name])
        for name in names
    ]


def average_known(values: Iterable[float]) -> float:
    """Return the mean of what is finite; NaN where nothing is."""
    known = [float(value) for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def round_numbers(values: Iterable[float]) -> list[float]:
    """Return numbers with the digits that single precision holds: results were written with it."""
    return [float(f"{value:.7g}") for value in values]

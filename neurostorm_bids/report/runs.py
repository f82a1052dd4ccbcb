"""Parts of a participant's report on runs: predictions, a table of all, and each with figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neurostorm_bids.errors import UserError
from neurostorm_bids.inputs.tsv import read_tsv
from neurostorm_bids.page.html import (
    format_facts,
    format_heading,
    format_list,
    format_paragraphs,
    format_picture,
    format_table,
)
from neurostorm_bids.report.found import OF_SERIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neurostorm_bids.derivatives.results import Result
    from neurostorm_bids.page.html import Cell
    from neurostorm_bids.report.found import Figure, RunFound

_MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}


class Budget:
    """How many bytes of figures a page still takes."""

    def __init__(self, n_bytes: int) -> None:
        self._left = n_bytes

    def take(self, n_bytes: int) -> bool:
        """Take some, if there are as many; return whether."""
        if n_bytes > self._left:
            return False
        self._left -= n_bytes
        return True


def show_predictions(runs: Sequence[RunFound]) -> str:
    """Return a table of what was predicted for each run."""
    rows = [_list_prediction(run, result) for run in runs for result in run.predictions]
    if not rows:
        return ""
    return format_table(
        ["Run", "Target", "Prediction", "Spread over clips", "Trust", "Model"],
        rows,
        caption="Of whole runs: the mean over clips in which every volume counts once. Spread: the "
        "standard deviation over clips, which is no margin of error. Trust: what a calibrated "
        "model says of its own prediction.",
        is_sortable=len(rows) > 1,
    )


def show_runs(runs: Sequence[RunFound]) -> str:
    """Return a table of all runs, those that failed too."""
    if not runs:
        return ""
    return format_table(
        [
            "Run",
            "State",
            "TR (s)",
            "Seconds",
            "Clips",
            "Brain in view",
            "Mean FD (mm)",
            "Median tSNR",
            "Warnings",
        ],
        [_list_run(run) for run in runs],
        caption="TR: repetition time of the source. Brain in view: share of the brain mask in the "
        "model's field of view. FD: framewise displacement. n/a: not known.",
        is_sortable=len(runs) > 1,
    )


def show_run(run: RunFound, budget: Budget) -> str:
    """Return the figures of a run and where it comes from."""
    first = run.results[0]
    models = {result.model.name for result in run.results}
    parts = []
    seen: set[bytes] = set()
    for figure in run.figures:
        content = figure.path.read_bytes()
        if content in seen:
            continue
        seen.add(content)
        of_model = f" ({figure.model})" if len(models) > 1 and figure.kind not in OF_SERIES else ""
        parts += [format_heading(figure.title + of_model), _show_figure(figure, content, budget)]
    if not parts:
        parts.append(
            format_paragraphs(
                "There are no figures of this run. They are drawn while a run is worked on: run "
                "the participant level with --overwrite to have them."
            )
        )
    parts += [format_heading("What was done to this run"), _show_origin(run, first)]
    return "\n".join(parts)


def _show_figure(figure: Figure, content: bytes, budget: Budget) -> str:
    if not budget.take(len(content)):
        place = "/".join(figure.path.parts[-3:])
        return format_paragraphs(
            f"Left out to keep this page small enough for a mail; the figure is in {place}.",
            figure.caption,
        )
    return format_picture(
        content, alt=figure.alt, caption=figure.caption, media=_MEDIA[figure.path.suffix]
    )


def _show_origin(run: RunFound, first: Result) -> str:
    facts: dict[str, object] = {"Run": run.label}
    facts["Sources"] = "\n".join(first.list_texts("Sources"))
    for name, key in (
        ("Volumes on the model's clock", "NumberOfVolumes"),
        ("Clips", "NumberOfClips"),
        ("Volumes in a clip", "ClipLength"),
    ):
        number = first.read_number(key)
        facts[name] = "n/a" if number is None else f"{number:g}"
    steps = {
        tuple(result.list_texts("PreparationSteps")): result.model.name for result in run.results
    }
    parts = [format_facts(facts, label="The run")]
    for sentences, model in steps.items():
        if len(steps) > 1:
            parts.append(format_paragraphs(f"For {model}:"))
        parts.append(format_list(sentences))
    return "\n".join(parts)


def _list_run(run: RunFound) -> list[Cell]:
    state = "done" if run.outcome is None else run.outcome.state
    state = "done" if state == "skipped" else state
    if not run.results:
        return [run.short_label, state, *[None] * 6, len(run.warnings)]
    first = run.results[0]
    n_volumes = first.read_number("NumberOfVolumes")
    grid = first.sidecar.get("Grid")
    clock = grid.get("repetition_time_s") if isinstance(grid, dict) else None
    seconds = n_volumes * clock if n_volumes and isinstance(clock, int | float) else None
    return [
        run.short_label,
        state,
        first.read_number("SourceRepetitionTime"),
        None if seconds is None else round(seconds, 3),
        _as_whole(first.read_number("NumberOfClips")),
        first.read_number("BrainCoverage"),
        run.measures.get("MeanFramewiseDisplacement"),
        run.measures.get("MedianTSNR"),
        len(run.warnings),
    ]


def _list_prediction(run: RunFound, result: Result) -> list[Cell]:
    try:
        row = _read_run_row(result)
    except (UserError, ValueError) as err:
        return [run.short_label, result.target_name, f"cannot be read: {err}", None, "", ""]
    return [
        run.short_label,
        result.target_name,
        _tell_prediction(row, result),
        _as_number(row.get("spread")),
        _tell_trust(row),
        result.model.name,
    ]


def _read_run_row(result: Result) -> dict[str, str]:
    """Return the row of the whole run: cells by column."""
    columns = read_tsv(result.table).columns
    place = columns["level"].index("run") if "run" in columns.get("level", ()) else None
    if place is None:
        raise ValueError("There is no row of the level run.")
    return {name: cells[place] for name, cells in columns.items()}


def _tell_prediction(row: Mapping[str, str], result: Result) -> str:
    target: Any = result.target
    if target.kind == "classification":
        names = [name for name in row if name.startswith("probability_")]
        numbers = [_as_number(row[name]) or 0.0 for name in names]
        return f"{row.get('label', 'n/a')}, with a probability of {max(numbers, default=0):.3f}"
    if "zscore" in row:
        return f"{_round(row['zscore'])} (z-score)"
    return f"{_round(row.get('value'))} {target.unit or ''}".strip()


def _tell_trust(row: Mapping[str, str]) -> str:
    told = []
    if "interval_low" in row:
        told.append(f"{_round(row['interval_low'])} to {_round(row.get('interval_high'))}")
    if "prediction_set" in row:
        told.append(f"one of {row['prediction_set'].replace('|', ', ')}")
    rank = _as_number(row.get("novelty_rank"))
    if rank is not None:
        told.append(f"more unusual than {rank:.0%} of the training runs")
    return "; ".join(told) or "not calibrated"


def _as_number(cell: str | None) -> float | None:
    try:
        return None if cell is None else float(cell)
    except ValueError:
        return None


def _as_whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _round(cell: str | None) -> str:
    number = _as_number(cell)
    return "n/a" if number is None else f"{number:.4g}"

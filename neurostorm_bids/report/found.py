"""What lies on the disk of one participant: results, figures, and what became of each run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from neurostorm_bids.derivatives.results import list_tables, read_result
from neurostorm_bids.errors import DataError, SelectionError, UserError
from neurostorm_bids.inputs.files import check_readable, list_names, read_json_object
from neurostorm_bids.inputs.names import join_entities, natural_key, parse_name
from neurostorm_bids.inputs.scan import find_func_folders
from neurostorm_bids.report.picture import FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from neurostorm_bids.derivatives.results import Result

OF_SERIES = ("mosaic", "carpet", "tsnr")
"""Kinds of figures that show a run and no model."""

MAX_FIGURE_BYTES = 3_000_000
_LEFT_OUT = ("sub", "space", "cohort", "res", "den", "desc")
_MAX_CRASH_CHARACTERS = 20_000
_MAX_CALLS = 3
_FIGURE = re.compile(r"[A-Za-z0-9+_.-]+\.(svg|png)")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9+_.-]+")


class Figure(NamedTuple):
    """A figure on the disk, what is said of it, and the name of the model that it shows."""

    path: Path
    model: str
    kind: str
    title: str
    alt: str
    caption: str


class Outcome(NamedTuple):
    """What the last call that worked on a run says of it.

    Attributes
    ----------
    state : done, skipped or failed.
    error, message, crash : of a failure; the last is a traceback, empty if there is none.
    """

    state: str
    error: str
    message: str
    crash: str


@dataclass
class RunFound:
    """A run, as its files tell of it.

    Attributes
    ----------
    label : the entities of its BOLD file.
    short_label : those of them that tell it from other runs of the participant.
    results : its embeddings and predictions.
    figures : in the order of the page.
    measures : numbers found in drawing them.
    outcome : None if no call tells of it.
    warnings : of all of these.
    """

    label: str
    short_label: str = ""
    results: list[Result] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    measures: dict[str, float] = field(default_factory=dict)
    outcome: Outcome | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def predictions(self) -> list[Result]:
        """Its predictions."""
        return [result for result in self.results if result.target is not None]


class Participant(NamedTuple):
    """All that is there of a participant.

    `resources` are plots of what calls that worked on them used; `problems` are files that cannot
    be used, and why.
    """

    label: str
    runs: list[RunFound]
    attributions: list[Mapping[str, Any]]
    resources: list[Path]
    problems: list[str]


def find_participant(output_dir: Path, label: str) -> Participant:
    """Read what the participant level wrote for one participant.

    Raises
    ------
    SelectionError
        If there is no folder of theirs.
    """
    folder = output_dir / f"sub-{label}"
    if not folder.is_dir():
        raise SelectionError(
            f"There are no results of participant {label} in {output_dir}. Run the participant "
            "level for them first."
        )
    runs: dict[str, RunFound] = {}
    problems: list[str] = []
    for table, name in list_tables(folder):
        try:
            if name is None:
                raise DataError("Its name does not fit the folder it lies in.")
            result = read_result(table, name, root=output_dir)
        except UserError as err:
            problems.append(f"{table.name}: {err}")
            continue
        run = runs.setdefault(result.run, RunFound(result.run))
        run.results.append(result)
        run.warnings += result.list_texts("Warnings")
    _add_figures(runs, folder, problems)
    _add_outcomes(runs, folder, problems)
    _tidy(list(runs.values()))
    return Participant(
        label,
        sorted(runs.values(), key=lambda run: natural_key(run.label)),
        list(_read_attributions(folder, problems)),
        _find_resources(output_dir, folder),
        problems,
    )


def _tidy(runs: list[RunFound]) -> None:
    """Give runs short names where these tell them apart; put figures in order; warn once."""
    short = [_shorten(run.label) for run in runs]
    for run, name in zip(runs, short, strict=True):
        run.short_label = name if short.count(name) == 1 else run.label
        run.warnings[:] = dict.fromkeys(run.warnings)
        run.figures.sort(key=lambda figure: figure.kind not in OF_SERIES)


def _shorten(label: str) -> str:
    """Leave out the participant, the space, the resolution and the desc of a run's label."""
    parts = parse_name(f"{label}_bold.nii.gz")
    kept = {} if parts is None else parts.entities
    return join_entities({k: v for k, v in kept.items() if k not in _LEFT_OUT}) or label


def _add_figures(runs: dict[str, RunFound], folder: Path, problems: list[str]) -> None:
    """Add what the files that tell of figures name; the same picture of a run once."""
    figures = folder / FOLDER
    for name in list_names(figures) if figures.is_dir() else []:
        if not (name.endswith(".json") and "_desc-" in name):
            continue
        try:
            told = read_json_object(figures / name)
        except UserError as err:
            problems.append(f"{name}: {err}")
            continue
        run = runs.get(str(told.get("Run")))
        if run is None:
            continue
        run.warnings += _list_texts(told, "Warnings")
        for entry in _list_objects(told, "Figures"):
            _add_figure(run, figures, entry, model=str(told.get("ModelName", "")))


def _add_figure(run: RunFound, folder: Path, entry: Mapping[str, Any], *, model: str) -> None:
    name = str(entry.get("File"))
    path = folder / name
    try:
        if not _FIGURE.fullmatch(name) or check_readable(path) > MAX_FIGURE_BYTES:
            raise DataError(f"Expected a figure of at most {MAX_FIGURE_BYTES} bytes.")
    except UserError as err:
        run.warnings.append(f"A figure is missing. {err}")
        return
    words = (str(entry.get(key, "")) for key in ("Kind", "Title", "AltText", "Caption"))
    run.figures.append(Figure(path, model, *words))
    measures = entry.get("Measures")
    for key, value in (measures if isinstance(measures, dict) else {}).items():
        if isinstance(value, int | float):
            run.measures.setdefault(str(key), float(value))


def _add_outcomes(runs: dict[str, RunFound], folder: Path, problems: list[str]) -> None:
    """Add what the last call says of each run.

    Where it found the run finished, what the call that finished it says is kept.
    """
    logs = folder / "log"
    for call in list_names(logs) if logs.is_dir() else []:
        path = logs / call / "status.json"
        if not path.is_file():
            continue
        try:
            told = read_json_object(path)
        except UserError as err:
            problems.append(f"{call}/status.json: {err}")
            continue
        entries = _list_objects(told, "Runs")
        if entries:  # that the source's folder could not be searched is over, or told again
            runs.pop(folder.name, None)
        for entry in entries:
            label, state = str(entry.get("Run")), str(entry.get("State"))
            run = runs.setdefault(label, RunFound(label))
            if state == "skipped" and run.outcome is not None and run.outcome.state != "failed":
                continue
            run.outcome = Outcome(
                state,
                str(entry.get("Error", "")),
                str(entry.get("Message", "")),
                _read_crash(path.parent, entry.get("CrashFile")),
            )
            run.warnings += _list_texts(entry, "Warnings")


def _read_crash(folder: Path, name: object) -> str:
    """Return the text of a crash file, the end of it if it is long."""
    if not (isinstance(name, str) and _PLAIN_NAME.fullmatch(name)):
        return ""
    try:
        text = (folder / name).read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return text[-_MAX_CRASH_CHARACTERS:]


def _read_attributions(folder: Path, problems: list[str]) -> Iterator[Mapping[str, Any]]:
    """Read the sidecars of attributions."""
    for func in find_func_folders(folder).values():
        for name in list_names(func):
            if name.endswith("_attribution.json"):
                try:
                    yield read_json_object(func / name)
                except UserError as err:
                    problems.append(f"{name}: {err}")


def _find_resources(output_dir: Path, folder: Path) -> list[Path]:
    """Find the plots of resources of the calls that worked on a participant, the last ones."""
    logs = folder / "log"
    calls = list_names(logs) if logs.is_dir() else []
    paths = [output_dir / "logs" / call / "resources.svg" for call in calls]
    there = [p for p in paths if p.is_file() and check_readable(p) <= MAX_FIGURE_BYTES]
    return there[-_MAX_CALLS:]


def _list_texts(told: Mapping[str, Any], key: str) -> list[str]:
    values = told.get(key)
    return [str(value) for value in values] if isinstance(values, list) else []


def _list_objects(told: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    values = told.get(key)
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []

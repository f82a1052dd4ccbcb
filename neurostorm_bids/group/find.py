"""From the output folder to the results that a call works on, and why others are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from neurostorm_bids.derivatives.results import list_tables, read_result
from neurostorm_bids.errors import DataError, SelectionError, UsageError, UserError
from neurostorm_bids.group.filters import read_filters
from neurostorm_bids.inputs import SourceDataset
from neurostorm_bids.inputs.names import BidsName, natural_key
from neurostorm_bids.inputs.scan import Candidate, list_participants
from neurostorm_bids.inputs.selection import choose_participants, explain_choice, explain_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence
    from pathlib import Path

    from neurostorm_bids.derivatives.results import Result
    from neurostorm_bids.group.options import GroupOptions

_MIN_DIGITS = 6
"""Of a checksum, to name a model by it."""


class Note(NamedTuple):
    """A file, by its path below the output folder, and what is to be said of it."""

    path: str
    reason: str


class Found(NamedTuple):
    """The results that were chosen, the files that were not, and those that cannot be used.

    ``targets`` are the names of all targets met, also of those that were not asked for.
    """

    results: list[Result]
    left_out: list[Note]
    problems: list[Note]
    targets: set[str]


def find_results(options: GroupOptions) -> Found:
    """Find the results that the options choose: one for each run, model and target.

    Raises
    ------
    SelectionError
        If the participant level wrote nothing, or the filters leave nothing.
    UsageError
        If a target was asked for that no model predicted.
    DataError
        If nothing that was chosen can be read.
    """
    root = options.output_dir
    folders = list_participants(root) if root.is_dir() else {}
    if not folders:
        raise SelectionError(
            f"The participant level wrote nothing to {root}. {_tell_command(options)}"
        )
    passes_filters = read_filters(options.selection.filter_file)
    found = Found([], [], [], set())
    for label in choose_participants(folders, options.selection):
        for table, name in list_tables(folders[label]):
            if name is None:
                reason = "its name is not a BIDS name, or does not fit the folder it lies in"
                found.left_out.append(Note(table.relative_to(root).as_posix(), reason))
            else:
                _sort_in(found, table, name, options, passes_filters)
    chosen = _choose_one_of_each(found, root)
    if chosen or found.targets:
        _check_targets(found, options)
    if not chosen:
        raise _explain_nothing(found, options)
    return found._replace(results=chosen)


def group_results(results: Iterable[Result]) -> list[list[Result]]:
    """Group results by kind, model and target; groups by the model's name, results by run."""

    def key(result: Result) -> Hashable:
        return result.kind, result.model, result.target_name

    groups: dict[Hashable, list[Result]] = {}
    for result in sorted(results, key=_rank):
        groups.setdefault(key(result), []).append(result)
    return sorted(groups.values(), key=lambda group: (group[0].model, group[0].target_name))


def _rank(result: Result) -> tuple[object, ...]:
    """Return what results of a run are sorted by: the shorter name first."""
    name = result.table.name
    return natural_key(result.run), len(name), name


def _sort_in(
    found: Found,
    table: Path,
    name: BidsName,
    options: GroupOptions,
    passes_filters: Callable[[str], bool],
) -> None:
    """Put a table with the results, with those left out, or with the problems."""
    root = options.output_dir
    path = table.relative_to(root).as_posix()
    reason = explain_labels(name.entities, options.selection)
    if reason is None:
        try:
            result = read_result(table, name, root=root)
        except UserError as err:
            found.problems.append(Note(path, str(err)))
            return
        found.targets.update(filter(None, [result.target_name]))
        reason = _explain_unwanted(result, options)
        if reason is None and not passes_filters(result.source_name):
            reason = f"the filters in {options.selection.filter_file} leave it out"
        if reason is None:
            found.results.append(result)
            return
    found.left_out.append(Note(path, reason))


def _check_targets(found: Found, options: GroupOptions) -> None:
    absent = [choice.name for choice in options.targets if choice.name not in found.targets]
    if absent:
        raise UsageError(
            f"--target asks for {', '.join(absent)}, which no model predicted here. What was "
            f"predicted: {', '.join(sorted(found.targets)) or 'nothing'}. To colour the map of the "
            "embeddings by a column, give --color-by."
        )


def _explain_unwanted(result: Result, options: GroupOptions) -> str | None:
    wanted = [choice.name for choice in options.targets]
    if wanted and result.target is not None and result.target_name not in wanted:
        return f"it predicts {result.target_name}, and --target asks for {', '.join(wanted)}"
    name, sha256 = result.model
    if options.models and not any(
        name in {asked, _name_model(asked)}
        or (len(asked) >= _MIN_DIGITS and sha256.startswith(asked))
        for asked in options.models
    ):
        return f"{name} made it, and --model asks for {', '.join(options.models)}"
    return None


def _name_model(asked: str) -> str:
    """Return the name that the participant level gives a model which it is given as a path."""
    last = asked.rstrip("/").rpartition("/")[2]
    return last.partition("@")[0].removesuffix(".ckpt")


def _choose_one_of_each(found: Found, root: Path) -> list[Result]:
    """Keep one of several files of the same model that tell of the same run."""
    chosen: list[Result] = []
    for group in group_results(found.results):
        by_run: dict[str, Result] = {}
        reasons: dict[Path, str] = {}
        for result in group:
            first = by_run.setdefault(result.run, result)
            if first is not result:
                reasons[result.table] = f"the same run and model is in {first.table.name}"
        reasons |= _explain_other_grids(list(by_run.values()))
        chosen += [one for one in by_run.values() if one.table not in reasons]
        found.left_out.extend(
            Note(path.relative_to(root).as_posix(), reason) for path, reason in reasons.items()
        )
    return chosen


def _explain_other_grids(results: Sequence[Result]) -> dict[Path, str]:
    """Say of results of a model which of them tell of a series that is there in a better space."""
    grids = [result.sidecar.get("Grid") for result in results]
    spaces = [str(grid.get("space")) for grid in grids if isinstance(grid, dict)]
    candidates = [
        Candidate(
            result.table,
            BidsName({"space": "", **result.entities}, "bold", ".nii.gz"),
            SourceDataset(name=result.dataset, path=result.table.parent),
            frozenset(),
        )
        for result in results
    ]
    return explain_choice(
        candidates,
        preferred_spaces=list(dict.fromkeys(spaces)),
        dataset_names=sorted({result.dataset for result in results}, key=natural_key),
    )


def _explain_nothing(found: Found, options: GroupOptions) -> UserError:
    root = options.output_dir
    if found.problems:
        path, reason = found.problems[0]
        return DataError(
            f"None of {len(found.problems)} result(s) in {root} can be used. {path}: {reason}"
        )
    if found.left_out:
        path, reason = found.left_out[0]
        return SelectionError(
            f"The filters leave none of {len(found.left_out)} result(s) in {root}: of {path}, "
            f"for one, {reason}. Ask for less."
        )
    return SelectionError(f"There are no results in {root}. {_tell_command(options)}")


def _tell_command(options: GroupOptions) -> str:
    return (
        "Run the participant level first: "
        f"neurostorm {options.bids_dir} {options.output_dir} participant --model MODEL"
    )

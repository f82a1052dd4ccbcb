"""Which of the files found to run: by participant, by label, by space."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from neurostorm_bids.errors import SelectionError, UsageError
from neurostorm_bids.inputs.names import drop_prefix, is_same_index, natural_key
from neurostorm_bids.inputs.scan import DESCRIPTIONS
from neurostorm_bids.inputs.voxels import differ_in_size, read_voxel_size_mm

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from neurostorm_bids.inputs.records import Selection
    from neurostorm_bids.inputs.scan import Candidate

logger = logging.getLogger(__name__)

_MANY = 20
# Files that differ in nothing else hold the same series on another grid.
_GRID_ENTITIES = {"space", "cohort", "res", "den"}


def choose_participants(there: Collection[str], selection: Selection) -> list[str]:
    """Choose participants by label, in natural order.

    Raises
    ------
    SelectionError : a participant asked for is absent, or none is left.
    """
    wanted = [drop_prefix(label, "sub") for label in selection.participant_labels]
    excluded = {drop_prefix(label, "sub") for label in selection.exclude_participant_labels}
    absent = sorted(set(wanted) - set(there), key=natural_key)
    if absent:
        msg = f"No participant {list_labels(absent)} in the input. There are: {list_labels(there)}."
        raise SelectionError(msg)
    for label in sorted(excluded - set(there), key=natural_key):
        logger.warning("Participant %s was to be excluded and is not in the input.", label)
    chosen = set(wanted or there) - excluded
    if not chosen:
        msg = f"Every participant is excluded. There are: {list_labels(there)}. Exclude fewer."
        raise SelectionError(msg)
    return sorted(chosen, key=natural_key)


def explain_labels(entities: Mapping[str, str], selection: Selection) -> str | None:
    """Say which label keeps a file from being chosen; None if none does."""
    asked = {
        "ses": ("--session-id", selection.session_ids),
        "task": ("--task-id", selection.task_ids),
        "run": ("--run-id", selection.run_ids),
        **_ask_for_space(selection.space),
    }
    for key, (option, labels) in asked.items():
        wanted = [drop_prefix(label, key) for label in labels]
        found = entities.get(key)
        if wanted and (found is None or not any(_agrees(key, found, one) for one in wanted)):
            has = f"no {key}-" if found is None else f"{key}-{found}"
            return f"it has {has}, and {option} asks for {list_labels(wanted)}"
    return None


def _ask_for_space(space: str | None) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Split ``NAME:res-2``, as fMRIPrep's --output-spaces has it, into labels asked for.

    Raises
    ------
    UsageError : what stands after the colon is none of ``res-``, ``cohort-`` or ``den-``.
    """
    if space is None:
        return {}
    name, *modifiers = space.split(":")
    asked: dict[str, tuple[str, tuple[str, ...]]] = {"space": ("--space", (name,))}
    for modifier in modifiers:
        key, dash, label = modifier.partition("-")
        if key not in {"res", "cohort", "den"} or not (dash and label):
            raise UsageError(
                f"--space {space!r} is not of the form NAME[:res-LABEL], such as "
                "MNI152NLin6Asym:res-2."
            )
        asked[key] = ("--space", (label,))
    return asked


def explain_choice(
    candidates: Iterable[Candidate],
    *,
    preferred_spaces: Sequence[str],
    dataset_names: Sequence[str],
    voxel_size_mm: float | None = None,
) -> dict[Path, str]:
    """Of files that hold the same series, choose one and say why the others are left out.

    The first dataset that has the series wins, then the first of the preferred spaces, then any
    other. In one space the file whose voxels are nearest in size to ``voxel_size_mm`` is taken, as
    the affines in the headers have it, which are read where there is such a choice; then the one
    without ``res-``, ``res-2``, the others. Of a series denoised with and without smoothing, the
    one without is taken.

    Returns
    -------
    Path of a file that is not chosen → reason.
    """
    ranks = {space: rank for rank, space in enumerate(preferred_spaces)}

    def rank_space(candidate: Candidate) -> tuple[object, ...]:
        space = candidate.entities["space"]
        return (
            dataset_names.index(candidate.dataset.name),
            ranks.get(space, len(ranks)),
            natural_key(space),
            natural_key(candidate.entities.get("cohort", "")),
        )

    def rank_file(candidate: Candidate) -> tuple[object, ...]:
        res = candidate.entities.get("res", "")
        return (
            differ_in_size(sizes.get(candidate.path), voxel_size_mm),
            DESCRIPTIONS.index(candidate.entities.get("desc", "preproc")),
            bool(res) and not is_same_index(res, "2"),
            natural_key(res),
            natural_key(candidate.path.name),
            natural_key(str(candidate.path)),
        )

    reasons: dict[Path, str] = {}
    for same in _gather_series(candidates):
        best = min(map(rank_space, same))
        nearest = [one for one in same if rank_space(one) == best]
        sizes = _read_sizes(nearest) if voxel_size_mm is not None else {}
        first = min(nearest, key=rank_file)
        reasons.update(
            (other.path, _compare(other, first, sizes)) for other in same if other is not first
        )
    return reasons


def _gather_series(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """Gather the files that hold one series: on other grids, or smoothed."""
    series: dict[frozenset[tuple[str, str]], list[Candidate]] = {}
    for candidate in candidates:
        labels = {k: v for k, v in candidate.entities.items() if k not in _GRID_ENTITIES}
        labels["desc"] = "denoised" if candidate.is_denoised else "preproc"
        series.setdefault(frozenset(labels.items()), []).append(candidate)
    return list(series.values())


def _read_sizes(same: Sequence[Candidate]) -> dict[Path, float | None]:
    """Read the voxel sizes of files of one space; nothing where there is no choice."""
    if len({one.entities.get("res") for one in same}) == 1:
        return {}
    return {one.path: read_voxel_size_mm(one.path) for one in same}


def explain_nothing(candidates: Iterable[Candidate], selection: Selection) -> str:
    """Say which filters were given and which labels there are, when no file is left."""
    found = [candidate.entities for candidate in candidates]
    labels = "; ".join(
        f"{key}: {list_labels({one[key] for one in found if key in one}) or 'none'}"
        for key in ("ses", "task", "run", "space", "res")
    )
    return (
        f"The filters select none of {len(found)} BOLD files. Given: {_list_filters(selection)}. "
        f"There are {labels}. Ask for less."
    )


def _list_filters(selection: Selection) -> str:
    given = {
        "--session-id": selection.session_ids,
        "--task-id": selection.task_ids,
        "--run-id": selection.run_ids,
        "--space": (selection.space,) if selection.space else (),
        "--bids-filter-file": (str(selection.filter_file),) if selection.filter_file else (),
    }
    return ", ".join(f"{option} {' '.join(labels)}" for option, labels in given.items() if labels)


def _agrees(key: str, found: str, wanted: str) -> bool:
    return is_same_index(found, wanted) if key in {"run", "res"} else found == wanted


def _compare(
    other: Candidate, chosen: Candidate, sizes: Mapping[Path, float | None] | None = None
) -> str:
    if other.dataset.name != chosen.dataset.name:
        return f"dataset {chosen.dataset.name} has the same series: {chosen.path.name}"
    for key in ("space", "cohort", "res", "den", "desc"):
        if other.entities.get(key) != chosen.entities.get(key):
            label = chosen.entities.get(key)
            taken = f"the file without {key}-" if label is None else f"{key}-{label}"
            why = _tell_sizes(other, chosen, sizes or {}) if key == "res" else ""
            return f"{taken} of the same series is taken{why}"
    return f"{chosen.path.name} holds the same series"


def _tell_sizes(other: Candidate, chosen: Candidate, sizes: Mapping[Path, float | None]) -> str:
    one, taken = sizes.get(other.path), sizes.get(chosen.path)
    if one is None or taken is None:
        return ""
    return f": its voxels of {taken:.3g} mm are nearer to the model's than {one:.3g} mm"


def list_labels(labels: Iterable[str]) -> str:
    """List labels in natural order, not more than a screen can take."""
    ordered = sorted(labels, key=natural_key)
    more = f" and {len(ordered) - _MANY} more" if len(ordered) > _MANY else ""
    return ", ".join(ordered[:_MANY]) + more

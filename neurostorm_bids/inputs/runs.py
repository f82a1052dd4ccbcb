"""From datasets and a selection to the BOLD runs to process."""

from __future__ import annotations

import functools
import logging
import shlex
from typing import TYPE_CHECKING

from neurostorm_bids.errors import DatasetError, MissingFileError, SelectionError, UserError
from neurostorm_bids.inputs.cleaning import Cleaning
from neurostorm_bids.inputs.files import check_readable
from neurostorm_bids.inputs.names import join_entities, natural_key, parse_name
from neurostorm_bids.inputs.places import check_fetched
from neurostorm_bids.inputs.queries import find_filtered, passes_filters, read_filter_file
from neurostorm_bids.inputs.records import BoldRun, Discovery, LeftOut, Unusable
from neurostorm_bids.inputs.scan import list_participants, scan_participant
from neurostorm_bids.inputs.selection import (
    choose_participants,
    explain_choice,
    explain_labels,
    explain_nothing,
    list_labels,
)
from neurostorm_bids.inputs.sidecars import list_sidecars, read_repetition_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from neurostorm_bids.inputs.queries import Filters
    from neurostorm_bids.inputs.records import Selection, SourceDataset
    from neurostorm_bids.inputs.scan import Candidate
    from neurostorm_bids.inputs.sidecars import Sidecar

logger = logging.getLogger(__name__)


def find_bold_runs(
    datasets: Sequence[SourceDataset],
    selection: Selection,
    *,
    preferred_spaces: Sequence[str],
    voxel_size_mm: float | None = None,
    cleaning: Cleaning | None = None,
) -> Discovery:
    """Find the BOLD runs of the chosen participants, one file for each series.

    The folders of participants who are not chosen are not touched.

    Parameters
    ----------
    datasets : where to look; if two hold the same series, the first is read.
    selection : which participants, sessions, tasks, runs and space.
    preferred_spaces : the model's order of preference, used where ``selection`` names no space.
    voxel_size_mm : side of the model's voxels, nearest to which a resolution is chosen; None does
        not look into any file.
    cleaning : what is to be done to the runs; nothing if None.

    Raises
    ------
    SelectionError : a participant is absent, or the filters leave nothing.
    MissingFileError : the chosen participants have no preprocessed BOLD in an MNI space.
    UsageError : the filter file is not one.
    """
    filters = None if selection.filter_file is None else read_filter_file(selection.filter_file)
    folders = {dataset: list_participants(dataset.path) for dataset in datasets}
    there = {label for labels in folders.values() for label in labels}
    if not there:
        msg = f"No sub-* folders in {', '.join(str(dataset.path) for dataset in datasets)}."
        raise DatasetError(msg)
    participants = choose_participants(there, selection)

    candidates, left_out, unusable = _scan(folders, participants)
    if not candidates and not unusable:
        raise MissingFileError(_explain_no_bold(datasets, participants))
    reasons = _explain_left_out(candidates, selection, filters)
    rest = [candidate for candidate in candidates if candidate.path not in reasons]
    reasons |= explain_choice(
        rest,
        preferred_spaces=preferred_spaces,
        dataset_names=[dataset.name for dataset in datasets],
        voxel_size_mm=voxel_size_mm,
    )
    left_out += [LeftOut(path, reason) for path, reason in reasons.items()]
    chosen = [candidate for candidate in candidates if candidate.path not in reasons]
    if not chosen and not unusable:
        raise SelectionError(explain_nothing(candidates, selection))

    runs: list[BoldRun] = []
    list_folder = functools.cache(list_sidecars)
    for candidate in chosen:
        try:
            runs.append(_complete(candidate, list_folder, cleaning or Cleaning()))
        except UserError as err:
            label = join_entities(candidate.entities)
            unusable.append(Unusable(candidate.path, candidate.participant, label, err))
    logger.debug("%d runs, %d left out, %d unusable", len(runs), len(left_out), len(unusable))
    order = {label: rank for rank, label in enumerate(participants)}
    return Discovery(
        runs=sorted(runs, key=lambda run: (order[run.participant], natural_key(run.label))),
        left_out=sorted(left_out, key=lambda one: natural_key(str(one.path))),
        unusable=sorted(unusable, key=lambda one: natural_key(str(one.path))),
        participants=participants,
        excluded=_find_excluded(there, participants, candidates, chosen),
    )


def _find_excluded(
    there: Iterable[str],
    participants: Sequence[str],
    candidates: Iterable[Candidate],
    chosen: Iterable[Candidate],
) -> tuple[str, ...]:
    """Return who was not chosen, and who has runs of which the filters leave none."""
    filtered = {one.participant for one in candidates} - {one.participant for one in chosen}
    return tuple(sorted(set(there) - set(participants) | filtered, key=natural_key))


def _scan(
    folders: Mapping[SourceDataset, Mapping[str, Path]], participants: Sequence[str]
) -> tuple[list[Candidate], list[LeftOut], list[Unusable]]:
    candidates: list[Candidate] = []
    left_out: list[LeftOut] = []
    unusable: list[Unusable] = []
    for label in participants:
        for dataset, labels in folders.items():
            if label not in labels:
                continue
            try:
                check_fetched(labels[label], dataset_root=dataset.path)
                scan = scan_participant(labels[label], dataset)
            except UserError as err:
                unusable.append(Unusable(labels[label], label, f"sub-{label}", err))
            else:
                candidates += scan.candidates
                left_out += scan.left_out
    found = {one.participant for one in candidates} | {one.participant for one in unusable}
    without = [label for label in participants if label not in found]
    if candidates and without:
        logger.warning("No preprocessed BOLD in an MNI space for %s.", list_labels(without))
    return candidates, left_out, unusable


def _explain_left_out(
    candidates: Sequence[Candidate],
    selection: Selection,
    filters: Filters | None,
) -> dict[Path, str]:
    """Say of each candidate that was not asked for why: labels first, then filters."""
    reasons: dict[Path, str] = {}
    for candidate in candidates:
        reason = explain_labels(candidate.entities, selection)
        if reason is not None:
            reasons[candidate.path] = reason
    if filters is not None:
        rest = [candidate for candidate in candidates if candidate.path not in reasons]
        for path in _find_filtered_out(rest, filters):
            reasons[path] = f"the filters in {selection.filter_file} leave it out"
    return reasons


def _find_filtered_out(candidates: Sequence[Candidate], filters: Filters) -> set[Path]:
    by_root: dict[Path, list[Candidate]] = {}
    for candidate in candidates:
        by_root.setdefault(candidate.dataset.path, []).append(candidate)
    found: set[Path] = set()
    for root, of_all_names in by_root.items():
        there: set[str] = set()
        paths: set[Path] = set()
        for candidate in of_all_names:
            name = candidate.name
            if parse_name(candidate.path.name) is not None:  # a name that PyBIDS knows
                there.add(candidate.participant)
                paths.add(candidate.path)
                continue
            today = f"{join_entities(name.entities)}_{name.suffix}{name.extension}"
            if not passes_filters(today, filters):
                found.add(candidate.path)
        passed = find_filtered(root, there, filters)
        found |= {path for path in paths if path.relative_to(root).as_posix() not in passed}
    return found


def _complete(
    candidate: Candidate, list_folder: Callable[[Path], Sequence[Sidecar]], cleaning: Cleaning
) -> BoldRun:
    """Look up what belongs to a BOLD file: sidecars, mask, confounds.

    Raises
    ------
    MissingFileError, DataError, ReadError : the run cannot be read, or has no repetition time.
    """
    root = candidate.dataset.path
    check_readable(candidate.path, dataset_root=root)
    if candidate.is_denoised:
        cleaning.check_denoised(candidate.path.name)
    brain_mask, confounds = candidate.find_brain_mask(), candidate.find_confounds()
    if brain_mask is not None:
        check_readable(brain_mask, dataset_root=root)
    warnings = _warn_about(candidate.dataset)
    if confounds is not None:
        try:
            check_readable(confounds, dataset_root=root)
        except UserError as err:
            if cleaning.needs_confounds:
                raise
            warnings.append(f"The confounds cannot be read. {err}")
            confounds = None
    if confounds is None and cleaning.needs_confounds:
        raise MissingFileError(
            f"No table of confounds for {candidate.path.name}, without which "
            f"{' and '.join(cleaning.list_options())} cannot be done. Expected "
            "*_desc-confounds_timeseries.tsv beside it. Fetch it, or leave the option out."
        )
    return BoldRun(
        path=candidate.path,
        entities=candidate.entities,
        space=candidate.entities["space"],
        repetition_time_s=read_repetition_time(
            candidate.path,
            dataset_root=root,
            raw_root=candidate.dataset.raw,
            list_folder=list_folder,
        ),
        brain_mask=brain_mask,
        confounds=confounds,
        dataset=candidate.dataset,
        warnings=tuple(warnings),
        cleaning=cleaning,
    )


def _warn_about(dataset: SourceDataset) -> list[str]:
    """Say what is known to be wrong with all runs of a dataset."""
    if not dataset.description:
        return ["The dataset has no dataset_description.json: what preprocessed it is unknown."]
    generated_by = dataset.description.get("GeneratedBy")
    programs = generated_by if isinstance(generated_by, list) else []
    versions = [
        str(program.get("Version"))
        for program in programs
        if isinstance(program, dict) and str(program.get("Name")).lower() == "fmriprep"
    ]
    # The artefacts came with 25.1.0 and were mended in 25.2.0 (fMRIPrep's list of changes).
    return [
        f"fMRIPrep {version} resampled this run. Versions 25.1.x left interpolation artefacts in "
        "the standard-space BOLD of some datasets (res-2, for one): look at the images, or "
        "preprocess them again with 25.2.0 or later."
        for version in versions
        if version.startswith("25.1.")
    ]


def _explain_no_bold(datasets: Sequence[SourceDataset], participants: Sequence[str]) -> str:
    folders = " or ".join(str(dataset.path) for dataset in datasets)
    done = shlex.quote(f"fmriprep={datasets[0].path}")
    return (
        f"No preprocessed BOLD in an MNI152 space for participants {list_labels(participants)} in "
        f"{folders}. Expected sub-*/[ses-*/]func/*_space-MNI152*_desc-preproc_bold.nii.gz, which "
        "fMRIPrep does not write with --level minimal. Make it, from the raw dataset BIDS_DIR and "
        "what is there, with: fmriprep-docker BIDS_DIR NEW_OUTPUT_DIR participant "
        f"--output-spaces MNI152NLin6Asym:res-2 --derivatives {done}"
    )

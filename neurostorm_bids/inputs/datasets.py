"""Which folders of derivatives to read, found from BIDS_DIR and ``-d NAME=PATH``."""

from __future__ import annotations

import logging
import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from neurostorm_bids.errors import DatasetError, MissingFileError, UsageError, UserError
from neurostorm_bids.inputs.files import list_names, read_json_object
from neurostorm_bids.inputs.names import read_name
from neurostorm_bids.inputs.places import MAX_DEPTH, explain_absent, list_absent, search_below
from neurostorm_bids.inputs.queries import count_raw_bold
from neurostorm_bids.inputs.records import SourceDataset
from neurostorm_bids.inputs.scan import find_func_folders, list_participants

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

_DESCRIPTION = "dataset_description.json"
_URI_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]*")


def find_datasets(
    bids_dir: Path, derivatives: Mapping[str, Path], *, is_checked: bool = True
) -> list[SourceDataset]:
    """Find the folders of derivatives to read BOLD runs from.

    ``bids_dir`` may itself be such a folder (``sub-*``, or ``fmriprep/sub-*`` as fMRIPrep wrote
    before version 21), or a raw dataset. Of a raw dataset, ``derivatives`` are read if there are
    any, else its own ``derivatives/fmriprep*``, else the one other folder in ``derivatives`` that
    has preprocessed BOLD. Of any other folder, the one such folder below it is read.

    Parameters
    ----------
    bids_dir : the folder that the user named.
    derivatives : further folders by name; the names become keys of BIDS URIs.
    is_checked : refuse descriptions that are not as BIDS wants them; a missing one is a warning.

    Returns
    -------
    At least one dataset, ``bids_dir`` first; names are unique.

    Raises
    ------
    DatasetError : a folder is absent or holds no dataset or several, or its description is broken.
    MissingFileError : ``bids_dir`` is a raw dataset and nobody preprocessed it, so far; or it was
        not fetched.
    UsageError : a name cannot stand in a BIDS URI.
    """
    root = bids_dir.absolute()
    if not root.is_dir():
        if root.is_symlink():
            list_names(root)  # says how to fetch it
        msg = f"Expected a BIDS folder, found {'a file' if root.exists() else 'nothing'} at {root}."
        raise DatasetError(msg)
    given = {name: path.absolute() for name, path in derivatives.items()}
    named = [_open_named(name, path, is_checked=is_checked) for name, path in given.items()]
    own = _find_participants(root)
    if own is not None and _holds_derivatives(own, is_checked=is_checked):
        found = [_open(own, is_checked=is_checked), *named]
    else:
        found = named or [
            _open(folder, is_checked=is_checked) for folder in _find_derivatives(root)
        ]
    if found:
        return _name_apart(found)
    absent = list_absent(root)
    if absent:
        raise MissingFileError(explain_absent(absent, root=root))
    if own is not None:
        raise MissingFileError(explain_raw(own))
    msg = (
        f"No dataset in {root}. Looked for sub-* folders there, in {root / 'fmriprep'}, in "
        f"{root / 'derivatives' / 'fmriprep*'} and, with preprocessed BOLD in an MNI152 space, "
        f"{MAX_DEPTH} levels below. Give fMRIPrep's output folder, or -d NAME=PATH."
    )
    raise DatasetError(msg)


def explain_raw(root: Path) -> str:
    """Say what a raw dataset holds and which command would preprocess it."""
    n_participants, n_runs = len(list_participants(root)), count_raw_bold(root)
    output = root / "derivatives" / "fmriprep"
    folders = [shlex.quote(str(folder)) for folder in (root, output)]
    return (
        f"{root} is a raw dataset ({n_participants} participants, {n_runs} BOLD runs), and nothing "
        f"preprocessed lies in {output}*. Name the folder that has it with -d NAME=PATH, or make "
        f"it with: fmriprep-docker {' '.join(folders)} participant "
        "--output-spaces MNI152NLin6Asym:res-2"
    )


def _find_derivatives(root: Path) -> list[Path]:
    """Find derivatives inside a raw dataset, or the one folder of them below any other folder."""
    found = _find_fmriprep(root)
    if found:
        return found
    below = [folder for folder in search_below(root) if folder != root]
    if len(below) > 1:
        listed = "".join(f"\n  {folder}" for folder in below)
        msg = (
            f"{root} is no folder of derivatives, and several with preprocessed BOLD lie below it:"
            f"{listed}\nName one of them in place of {root}, or some with -d NAME=PATH."
        )
        raise DatasetError(msg)
    for folder in below:
        logger.warning("%s is no folder of derivatives; %s in it is read.", root, folder)
    return below


def _open_named(name: str, path: Path, *, is_checked: bool) -> SourceDataset:
    if _URI_NAME.fullmatch(name) is None:
        msg = f"Expected a name of letters, digits and . _ - in -d NAME=PATH, found {name!r}."
        raise UsageError(msg)
    folder = _find_participants(path) if path.is_dir() else None
    if folder is None:
        msg = f"No dataset for -d {name}={path}. Looked for sub-* folders there and in fmriprep/."
        raise DatasetError(msg)
    return _open(folder, name=name, is_checked=is_checked)


def _open(folder: Path, *, name: str | None = None, is_checked: bool) -> SourceDataset:
    description = _read_description(folder, is_checked=is_checked)
    if not description:
        logger.warning("%s has no %s; it is read as derivatives.", folder, _DESCRIPTION)
    elif is_checked:
        _check_description(description, folder)
    raw = folder.parent.parent if folder.parent.name == "derivatives" else None
    return SourceDataset(
        name=name or _derive_name(description, folder),
        path=folder,
        description=description,
        raw=raw if raw is not None and list_participants(raw) else None,
    )


def _read_description(folder: Path, *, is_checked: bool) -> dict[str, Any]:
    path = folder / _DESCRIPTION
    if not path.is_symlink() and not path.exists():
        return {}
    try:
        return read_json_object(path, dataset_root=folder, error=DatasetError)
    except UserError as err:
        if is_checked:
            raise
        logger.warning("%s The dataset is read without it.", err)
        return {}


def _check_description(description: Mapping[str, Any], folder: Path) -> None:
    """Check the fields that BIDS asks of every dataset, and that must not be misread."""
    problems = [
        f"{key} is {description[key]!r:.60}" if key in description else f"there is no {key}"
        for key in ("Name", "BIDSVersion")
        if not (isinstance(description.get(key), str) and description[key])
    ]
    kind = description.get("DatasetType", "derivative")
    if kind not in {"raw", "derivative", "study"}:
        problems.append(f"DatasetType is {kind!r:.60}")
    if problems:
        msg = (
            f"{folder / _DESCRIPTION} is not as BIDS has it: {', '.join(problems)}. Expected Name "
            "and BIDSVersion as text, and raw or derivative as DatasetType. Correct it, or pass "
            "over it with --skip-bids-validation."
        )
        raise DatasetError(msg)


def _find_participants(folder: Path) -> Path | None:
    """Return the folder that holds ``sub-*``: this one, or ``fmriprep`` in it."""
    for candidate in (folder, folder / "fmriprep"):
        if candidate.is_dir() and list_participants(candidate):
            return candidate
    return None


def _find_fmriprep(root: Path) -> list[Path]:
    parent = root / "derivatives"
    if not parent.is_dir():
        return []
    folders = (parent / name for name in list_names(parent) if name.startswith("fmriprep"))
    found = (_find_participants(folder) for folder in folders if folder.is_dir())
    return [folder for folder in found if folder is not None]


def _holds_derivatives(folder: Path, *, is_checked: bool) -> bool:
    """Tell derivatives from raw data, by the description or, if it does not say, by a file name."""
    description = _read_description(folder, is_checked=is_checked)
    kind = description.get("DatasetType")
    if kind is not None:
        return bool(kind == "derivative")
    if not description:
        return not _find_fmriprep(folder) and not _holds_raw(folder)
    if "GeneratedBy" in description or "PipelineDescription" in description:
        return True
    return _first_bold_is_preprocessed(folder)


def _holds_raw(folder: Path) -> bool:
    """Tell raw data that nobody described from derivatives, where others lie below them."""
    return not _first_bold_is_preprocessed(folder) and bool(search_below(folder))


def _first_bold_is_preprocessed(folder: Path) -> bool:
    for participant in list_participants(folder).values():
        for func in find_func_folders(participant).values():
            for name in list_names(func):
                parts = read_name(name)
                if parts and parts.suffix == "bold" and parts.extension in {".nii", ".nii.gz"}:
                    return not {"desc", "space"}.isdisjoint(parts.entities)
    return False


def _derive_name(description: Mapping[str, Any], folder: Path) -> str:
    """Make a name for BIDS URIs from the program that wrote the dataset, else from the folder."""
    generated_by = description.get("GeneratedBy")
    first = generated_by[0] if isinstance(generated_by, list) and generated_by else None
    program = first.get("Name") if isinstance(first, dict) else None
    name = re.sub("[^0-9a-z]", "", program.lower()) if isinstance(program, str) else ""
    return name or re.sub("[^0-9A-Za-z-]", "", folder.name).strip("-") or "derivatives"


def _name_apart(datasets: list[SourceDataset]) -> list[SourceDataset]:
    """Drop folders that come twice, the later one; number names that come twice."""
    apart: dict[str, SourceDataset] = {}
    paths: set[Path] = set()
    for dataset in datasets:
        if dataset.path.resolve() in paths:
            continue
        paths.add(dataset.path.resolve())
        name, count = dataset.name, 1
        while name in apart:
            count += 1
            name = f"{dataset.name}{count}"
        apart[name] = replace(dataset, name=name)
    return list(apart.values())

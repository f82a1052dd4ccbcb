"""Which folders of derivatives to read, found from BIDS_DIR and ``-d NAME=PATH``."""

from __future__ import annotations

import logging
import re
import shlex
from typing import TYPE_CHECKING, Any

from neurostorm_bids.errors import DatasetError, MissingFileError, UsageError
from neurostorm_bids.inputs.files import list_names, read_json_object
from neurostorm_bids.inputs.names import parse_name
from neurostorm_bids.inputs.queries import count_raw_bold
from neurostorm_bids.inputs.records import SourceDataset
from neurostorm_bids.inputs.scan import find_func_folders, list_participants

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

_DESCRIPTION = "dataset_description.json"
_URI_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]*")


def find_datasets(bids_dir: Path, derivatives: Mapping[str, Path]) -> list[SourceDataset]:
    """Find the folders of derivatives to read BOLD runs from.

    ``bids_dir`` may itself be such a folder (``sub-*``, or ``fmriprep/sub-*`` as fMRIPrep wrote
    before version 21), or a raw dataset. Of a raw dataset, ``derivatives`` are read if there are
    any, else its own ``derivatives/fmriprep*``.

    Parameters
    ----------
    bids_dir : the folder that the user named.
    derivatives : further folders by name; the names become keys of BIDS URIs.

    Returns
    -------
    At least one dataset, ``bids_dir`` first; names are unique.

    Raises
    ------
    DatasetError : a folder is absent or holds no dataset, or its description is broken.
    MissingFileError : ``bids_dir`` is a raw dataset and nobody preprocessed it, so far.
    UsageError : a name cannot stand in a BIDS URI.
    """
    root = bids_dir.absolute()
    if not root.is_dir():
        msg = f"Expected a BIDS folder, found {'a file' if root.exists() else 'nothing'} at {root}."
        raise DatasetError(msg)
    named = [_open_named(name, path.absolute()) for name, path in derivatives.items()]
    own = _find_participants(root)
    if own is not None and _holds_derivatives(own):
        found = [_open(own), *named]
    else:
        found = named or [_open(folder) for folder in _find_fmriprep(root)]
    if not found and own is not None:
        raise MissingFileError(explain_raw(own))
    if not found:
        msg = (
            f"No dataset in {root}. Looked for sub-* folders there, in {root / 'fmriprep'} and in "
            f"{root / 'derivatives' / 'fmriprep*'}. Give fMRIPrep's output folder, or -d NAME=PATH."
        )
        raise DatasetError(msg)
    return _name_apart(found)


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


def _open_named(name: str, path: Path) -> SourceDataset:
    if _URI_NAME.fullmatch(name) is None:
        msg = f"Expected a name of letters, digits and . _ - in -d NAME=PATH, found {name!r}."
        raise UsageError(msg)
    folder = _find_participants(path) if path.is_dir() else None
    if folder is None:
        msg = f"No dataset for -d {name}={path}. Looked for sub-* folders there and in fmriprep/."
        raise DatasetError(msg)
    return _open(folder, name=name)


def _open(folder: Path, *, name: str | None = None) -> SourceDataset:
    description = _read_description(folder)
    if not description:
        logger.warning("%s has no %s; it is read as derivatives.", folder, _DESCRIPTION)
    return SourceDataset(
        name=name or _derive_name(description, folder), path=folder, description=description
    )


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / _DESCRIPTION
    if not path.is_symlink() and not path.exists():
        return {}
    return read_json_object(path, dataset_root=folder, error=DatasetError)


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


def _holds_derivatives(folder: Path) -> bool:
    """Tell derivatives from raw data, by the description or, if it does not say, by a file name."""
    description = _read_description(folder)
    kind = description.get("DatasetType")
    if kind is not None:
        return bool(kind == "derivative")
    if not description:
        return not _find_fmriprep(folder)
    if "GeneratedBy" in description or "PipelineDescription" in description:
        return True
    return _first_bold_is_preprocessed(folder)


def _first_bold_is_preprocessed(folder: Path) -> bool:
    for participant in list_participants(folder).values():
        for func in find_func_folders(participant).values():
            for name in list_names(func):
                parts = parse_name(name)
                if parts and parts.suffix == "bold" and parts.extension in {".nii", ".nii.gz"}:
                    return "desc" in parts.entities
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
        apart[name] = SourceDataset(name=name, path=dataset.path, description=dataset.description)
    return list(apart.values())

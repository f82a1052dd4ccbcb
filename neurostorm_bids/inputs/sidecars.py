"""The repetition time of a run, from its JSON sidecars and those it inherits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from neurostorm_bids.errors import DataError, MissingFileError, UsageError
from neurostorm_bids.inputs.files import list_names, read_json_object
from neurostorm_bids.inputs.names import BidsName, read_name
from neurostorm_bids.inputs.voxels import read_header_time_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

_SURELY_MILLISECONDS = 100.0


class Sidecar(NamedTuple):
    """A JSON file whose name BIDS allows."""

    path: Path
    name: BidsName


def list_sidecars(folder: Path) -> list[Sidecar]:
    """List the JSON files of one folder, those with fewer entities first."""
    names = (name for name in list_names(folder) if name.endswith(".json"))
    parsed = ((name, read_name(name)) for name in names)
    found = [Sidecar(folder / name, parts) for name, parts in parsed if parts is not None]
    return sorted(found, key=lambda sidecar: len(sidecar.name.entities))


def read_repetition_time(
    bold: Path,
    *,
    dataset_root: Path | None = None,
    raw_root: Path | None = None,
    list_folder: Callable[[Path], Sequence[Sidecar]] = list_sidecars,
) -> float:
    """Read the repetition time of a BOLD file, in seconds, from its sidecars.

    By the inheritance principle of BIDS a JSON file applies when it lies in the folder of the BOLD
    file or above it, has the same suffix, and has no entity that the BOLD file lacks. The nearest
    one that states ``RepetitionTime`` wins, in one folder the one with most entities. The image's
    header is never asked, for headers are often wrong.

    Parameters
    ----------
    bold : the BOLD file.
    dataset_root : where inheritance ends. Without it, the nearest folder above that has a
        ``dataset_description.json``, else the one that holds ``sub-*``, else the BOLD file's own.
    raw_root : the raw dataset that the derivatives were made of; its sidecars of the run are
        asked when those of the derivatives say nothing, as fMRIPrep 1.x wrote none.
    list_folder : lists the JSON files of a folder; a caller with many runs passes a cached one.

    Raises
    ------
    MissingFileError : no sidecar applies, or its content was not fetched.
    DataError : no sidecar states a usable repetition time.
    """
    bold = bold.absolute()
    root = _find_root(bold) if dataset_root is None else dataset_root.absolute()
    sidecars = find_sidecars(bold, root, list_folder)
    if raw_root is not None:
        sidecars = [*_find_raw_sidecars(bold, root, raw_root, list_folder), *sidecars]
    if not sidecars:
        msg = (
            f"No JSON sidecar for {bold}. Expected one of the same name that ends in .json, or an "
            f"inherited one such as {root / 'task-*_bold.json'}, with the RepetitionTime in "
            "seconds. Write or fetch it."
        )
        raise MissingFileError(msg)
    for sidecar in reversed(sidecars):
        home = root if sidecar.is_relative_to(root) else raw_root
        metadata = read_json_object(sidecar, dataset_root=home)
        if "RepetitionTime" in metadata:
            try:
                return _check_repetition_time(metadata["RepetitionTime"], sidecar)
            except DataError as err:
                in_header = read_header_time_s(bold)
                if in_header is None:
                    raise
                raise DataError(f"{err} The header of {bold.name} says {in_header:g}.") from err
    listed = ", ".join(str(sidecar) for sidecar in sidecars)
    msg = f"No RepetitionTime in the JSON sidecars of {bold}: {listed}. Add it there, in seconds."
    raise DataError(msg)


def find_sidecars(
    bold: Path, root: Path, list_folder: Callable[[Path], Sequence[Sidecar]]
) -> list[Path]:
    """Return the JSON files that apply to a BOLD file, the most general first."""
    folders = [bold.parent, *bold.parent.parents]
    if root not in folders:
        msg = f"{bold} does not lie in the dataset {root}."
        raise UsageError(msg)
    name = read_name(bold.name)
    if name is None:
        twin = bold.with_name(bold.name.removesuffix(".gz").removesuffix(".nii") + ".json")
        return [twin] if twin.exists() else []
    return _pick(reversed(folders[: folders.index(root) + 1]), name, list_folder)


def _find_raw_sidecars(
    bold: Path, root: Path, raw_root: Path, list_folder: Callable[[Path], Sequence[Sidecar]]
) -> list[Path]:
    """Return the JSON files of a raw dataset that apply to a run, the most general first."""
    name = read_name(bold.name)
    below = bold.parent.relative_to(root)
    folders = [raw_root / part for part in reversed([below, *below.parents])]
    if name is None:
        return []
    return _pick((folder for folder in folders if folder.is_dir()), name, list_folder)


def _pick(
    folders: Iterable[Path], name: BidsName, list_folder: Callable[[Path], Sequence[Sidecar]]
) -> list[Path]:
    return [
        sidecar.path
        for folder in folders
        for sidecar in list_folder(folder)
        if sidecar.name.suffix == name.suffix
        and sidecar.name.entities.items() <= name.entities.items()
    ]


def _find_root(bold: Path) -> Path:
    for folder in bold.parents:
        if (folder / "dataset_description.json").exists():
            return folder
    for folder in bold.parents:
        if folder.name.startswith("sub-"):
            return folder.parent
    return bold.parent


def _check_repetition_time(value: object, sidecar: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"Expected RepetitionTime in seconds, a number, found {value!r:.80} in {sidecar}."
        raise DataError(msg)
    if not 0 < value < math.inf:  # false for NaN, too
        msg = f"Expected a RepetitionTime above 0 s, found {value!r:.80} in {sidecar}. Correct it."
        raise DataError(msg)
    if value >= _SURELY_MILLISECONDS:
        msg = (
            f"RepetitionTime is {value!r:.80} in {sidecar}, which looks like milliseconds. "
            "BIDS wants seconds: correct the sidecar."
        )
        raise DataError(msg)
    return float(value)

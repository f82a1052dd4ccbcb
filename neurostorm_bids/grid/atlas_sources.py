"""Where an atlas comes from: a path, TemplateFlow, or its authors."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from neurostorm_bids.errors import MissingFileError, UsageError

_AAL_VERSIONS = {"AAL": "SPM12", "AAL3": "3v2"}
_AAL_SPACE = "MNIColin27"

_KINDS = ("_dseg.nii.gz", "_probseg.nii.gz")  # the first is preferred
_RESOLUTION = 2


class AtlasSource(NamedTuple):
    """An atlas image on this machine.

    Parameters
    ----------
    name : as it was asked for, or the file's name without its ending.
    path : the image.
    space : the standard space it is in; None if nothing says so.
    rows : index and name of its regions, if they came with it.
    """

    name: str
    path: Path
    space: str | None
    rows: list[tuple[int, str]] | None = None


def is_path(text: str) -> bool:
    """Tell whether what was given for an atlas is a path, and no name."""
    return re.search(r"[/\\]|\.nii(\.gz)?$", text) is not None


def locate_atlas(name_or_path: str | Path, space: str) -> AtlasSource:
    """Find an atlas on this machine, or download it; `find_atlas` says by which names.

    Raises
    ------
    UsageError
        If no atlas has this name.
    MissingFileError
        If the atlas is not on this machine and cannot be downloaded.
    """
    if isinstance(name_or_path, Path) or is_path(name_or_path):
        path = Path(name_or_path)
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        stated = re.search(r"(?:^|_)(?:tpl|space)-([A-Za-z0-9]+)", stem)
        return AtlasSource(stem, path, stated and stated[1])
    if name_or_path in _AAL_VERSIONS:
        return _fetch_aal(name_or_path)
    return _fetch_from_templateflow(name_or_path, space)


def find_local_atlas(name: str, space: str) -> AtlasSource | None:
    """Find an atlas of TemplateFlow that lies on this machine; None if it does not.

    TemplateFlow itself is not asked: it makes its folder, and may use the network.

    Parameters
    ----------
    name : ``NAME:VARIANT``, the variant as it stands after ``desc-``.
    space : the standard space of the grid.
    """
    atlas, _, variant = name.partition(":")
    for home in list_templateflow_homes():
        folder = home / f"tpl-{space}"
        names = [
            path.name
            for path in folder.glob(f"tpl-*_atlas-{atlas}_*_dseg.nii.gz")
            if _read_entity("desc", path.name) == variant
            and path.is_file()
            and path.stat().st_size  # what was not fetched is a link into nowhere, or empty
        ]
        if names:
            nearest = min(names, key=lambda one: (_read_resolution(one) != _RESOLUTION, one))
            return AtlasSource(name, folder / nearest, space)
    return None


def list_templateflow_homes() -> list[Path]:
    """Return where TemplateFlow may keep its files; its versions differ."""
    named = os.environ.get("TEMPLATEFLOW_HOME")
    if named:
        return [Path(named)]
    caches = [os.environ.get("XDG_CACHE_HOME", ""), "~/.cache", "~/Library/Caches"]
    folders = [os.path.expanduser(cache) for cache in caches if cache]  # noqa: PTH111 - raises not
    return [Path(folder, "templateflow") for folder in folders if Path(folder).is_absolute()]


def _fetch_aal(name: str) -> AtlasSource:
    from nilearn.datasets import fetch_atlas_aal  # noqa: PLC0415 - seconds, and rarely needed

    version = _AAL_VERSIONS[name]
    try:
        fetched = fetch_atlas_aal(version=version, verbose=0)
    except (OSError, RuntimeError) as err:
        call = f"from nilearn.datasets import fetch_atlas_aal; fetch_atlas_aal('{version}')"
        raise _cannot_fetch(name, call, "~/nilearn_data", err) from err
    rows = [(int(i), label) for i, label in zip(fetched.indices, fetched.labels, strict=True)]
    return AtlasSource(name, Path(fetched.maps), _AAL_SPACE, rows)


def _fetch_from_templateflow(name: str, space: str) -> AtlasSource:
    from templateflow import api  # noqa: PLC0415 - reads its archive's index at first use

    atlas, _, variant = name.partition(":")
    files = [Path(file).name for file in api.ls(space, atlas=atlas, extension=".nii.gz")]
    kind = next((kind for kind in _KINDS if any(file.endswith(kind) for file in files)), None)
    if kind is None:
        offered = {_read_entity("atlas", file.name) for file in api.ls(space, extension=".nii.gz")}
        raise UsageError(
            f"Expected an atlas that TemplateFlow has in {space}, {', '.join(_AAL_VERSIONS)}, or "
            f"the path of a NIfTI file; found {name!r}. TemplateFlow has "
            f"{', '.join(sorted(filter(None, offered))) or 'none'}."
        )
    files = [file for file in files if file.endswith(kind)]
    desc = _choose_variant(atlas, variant, {_read_entity("desc", file) for file in files})
    resolutions = {_read_resolution(file) for file in files}
    query: dict[str, Any] = {
        "atlas": atlas,
        "desc": desc,
        "resolution": _RESOLUTION if _RESOLUTION in resolutions else min(resolutions),
        "suffix": kind.removesuffix(".nii.gz").removeprefix("_"),
        "extension": ".nii.gz",
    }
    try:
        path = api.get(space, **query)
    except (OSError, RuntimeError) as err:
        arguments = ", ".join(f"{key}={value!r}" for key, value in query.items())
        call = f"from templateflow.api import get; get('{space}', {arguments})"
        raise _cannot_fetch(name, call, "TEMPLATEFLOW_HOME", err) from err
    return AtlasSource(name, path, space)


def _choose_variant(atlas: str, variant: str, offered: set[str | None]) -> str | None:
    """Choose the shortest ``desc-`` that begins as asked: 7 networks before 17, 100 before 1000."""
    if not variant and len(offered) == 1:
        return offered.pop()
    begin_so = [desc for desc in offered if desc and variant and desc.startswith(variant)]
    if begin_so:
        return min(begin_so, key=len)
    choices = ", ".join(f"{atlas}:{desc}" for desc in sorted(filter(None, offered)))
    raise UsageError(
        f"Expected one of the variants of {atlas}, {choices or 'of which it has none'}; found "
        f"{atlas}:{variant}. Name one of them, or how it begins."
    )


def _read_resolution(file_name: str) -> int:
    return int(_read_entity("res", file_name) or _RESOLUTION)


def _read_entity(key: str, file_name: str) -> str | None:
    found = re.search(rf"_{key}-([A-Za-z0-9]+)", file_name)
    return found and found[1]


def _cannot_fetch(name: str, call: str, home: str, err: Exception) -> MissingFileError:
    return MissingFileError(
        f"The atlas {name} is not on this machine, and it could not be downloaded: {err}. Where "
        f'there is a network, run\n    python -c "{call}"\nand copy what it put into {home} to '
        "this machine; or give the path of a NIfTI file."
    )

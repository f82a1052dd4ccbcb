"""From the files that Brainlife staged for a task to a folder that looks like fMRIPrep's."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

from neurostorm_bids.derivatives.atomic import explain_write_errors, write_files
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.errors import DataError, MissingFileError, UsageError
from neurostorm_bids.inputs.files import check_readable, read_json_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

BOLD = ("fmri", "bold")
"""Keys that name the series; the first that is there is read."""

INPUTS = (*BOLD, "sidecar", "mask", "regressors", "regressors_json", "events")
"""Keys of config.json that name staged files."""

_ENTITIES = {
    "ses": ("session", "ses"),
    "task": ("task", "TaskName"),
    "acq": ("acq", "acquisition"),
    "rec": ("rec", "reconstruction"),
    "dir": ("dir", "direction"),
    "run": ("run",),
}
_OTHER_SIGNS = re.compile(r"[^0-9A-Za-z]+")
_SPACE = re.compile(r"MNI152[0-9A-Za-z]+")
_SPACE_TAG = re.compile(r"(?:space-)?(?P<space>MNI152[0-9A-Za-z]+)")
_MAX_LABEL = 60


class Input(NamedTuple):
    """What Brainlife says of a staged series: ``meta`` and both kinds of tags."""

    meta: Mapping[str, Any]
    tags: tuple[str, ...]


def stage_inputs(config: Mapping[str, Any], task_dir: Path, folder: Path) -> list[str]:
    """Write a folder of derivatives that links to the staged files.

    Parameters
    ----------
    config : contents of ``config.json``; paths are relative to the task's folder.
    task_dir : the task's folder.
    folder : is made, or emptied if an earlier try of the task left it.

    Returns
    -------
    Warnings.

    Raises
    ------
    UsageError
        If no series is named, or its participant or space is not known.
    DataError
        If no repetition time is told, or a file is none.
    MissingFileError
        If a file that is named is not there.
    """
    bold = _find_file(config, next((key for key in BOLD if config.get(key)), BOLD[0]), task_dir)
    if bold is None:
        raise UsageError(
            "config.json names no series. Give the staged BOLD file as "
            '"fmri": "../<task>/bold.nii.gz".'
        )
    described = _describe_input(config)
    entities = _name_entities(described)
    space = _find_space(config, described)
    stem = "_".join(f"{key}-{label}" for key, label in entities.items())
    warnings: list[str] = []
    sidecar = _compose_sidecar(config, bold, described, task_dir, warnings)
    links = {f"{stem}_space-{space}_desc-preproc_bold{_get_extension(bold)}": bold}
    mask = _find_file(config, "mask", task_dir)
    if mask is not None:
        links[f"{stem}_space-{space}_desc-brain_mask{_get_extension(mask)}"] = mask
    for key, extension in (("regressors", ".tsv"), ("regressors_json", ".json")):
        table = _find_file(config, key, task_dir)
        if table is not None:
            links[f"{stem}_desc-confounds_regressors{extension}"] = table
    levels = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    func = folder.joinpath(*levels, "func")
    with explain_write_errors(folder):
        if folder.exists():
            shutil.rmtree(folder)
        func.mkdir(parents=True)
        for name, source in links.items():
            (func / name).symlink_to(source)
    write_files(
        {
            func / f"{stem}_space-{space}_desc-preproc_bold.json": format_json(sidecar),
            folder / "dataset_description.json": format_json(_describe_dataset(described)),
        }
    )
    return warnings


def _find_file(config: Mapping[str, Any], key: str, task_dir: Path) -> Path | None:
    """Return the staged file of a key, absolute; None if the key is absent or empty."""
    value = config.get(key)
    if not value:
        return None
    if not isinstance(value, str):
        raise UsageError(
            f"config.json: expected the path of one file for {key!r}, found {value!r}."
        )
    path = task_dir / value
    if not path.exists():
        raise MissingFileError(
            f"config.json names {value} for {key!r}, and there is no such file. Stage the input "
            "again."
        )
    check_readable(path)
    # The task's own folder may be a link; what is below it stays as it was named.
    return task_dir.resolve() / value


def _describe_input(config: Mapping[str, Any]) -> Input:
    """Return what Brainlife says of the input that the series belongs to."""
    inputs = config.get("_inputs")
    entries = [one for one in inputs if isinstance(one, dict)] if isinstance(inputs, list) else []
    own = [one for one in entries if set(BOLD) & {one.get("id"), *_list_texts(one.get("keys"))}]
    chosen = (own or entries or [{}])[0]
    meta = chosen.get("meta")
    return Input(
        meta=meta if isinstance(meta, dict) else {},
        tags=(*_list_texts(chosen.get("tags")), *_list_texts(chosen.get("datatype_tags"))),
    )


def _list_texts(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _name_entities(described: Input) -> dict[str, str]:
    """Return the entities of the series' name; whatever BIDS does not allow in a label is cut."""
    subject = _make_label(described.meta.get("subject"))
    if not subject:
        raise UsageError(
            "Brainlife does not say whose series this is. Expected the subject under "
            f"_inputs[].meta in config.json, found {described.meta.get('subject')!r}."
        )
    entities = {"sub": subject}
    for entity, keys in _ENTITIES.items():
        labels = (_make_label(described.meta.get(key)) for key in keys)
        label = next((one for one in labels if one), "")
        if label:
            entities[entity] = label
    entities.setdefault("task", "unknown")
    return {key: entities[key] for key in ("sub", *_ENTITIES) if key in entities}


def _make_label(value: object) -> str:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    text = str(value) if is_number or isinstance(value, str) else ""
    return _OTHER_SIGNS.sub("", text)[:_MAX_LABEL]


def _find_space(config: Mapping[str, Any], described: Input) -> str:
    """Return the standard space, as the task's option, the meta data or the tags name it.

    Raises
    ------
    UsageError
        If none is named, it is no MNI152 space, or they disagree.
    """
    tagged = [match["space"] for tag in described.tags if (match := _SPACE_TAG.fullmatch(tag))]
    named = [*_iterate_texts([config.get("space"), described.meta.get("space")]), *tagged]
    spaces = list(dict.fromkeys(named))
    wrong = [space for space in spaces if not _SPACE.fullmatch(space)]
    if len(spaces) == 1 and not wrong:
        return spaces[0]
    found = f"{', '.join(map(repr, spaces))}" if spaces else "none"
    raise UsageError(
        f"Expected one MNI152 space that the series is in, found {found}. Tag the input "
        '"space-MNI152NLin2009cAsym" (or as it is), or set the option "space"; a series in the '
        "participant's own space has to be preprocessed again with an MNI152 output space."
    )


def _iterate_texts(values: Iterable[object]) -> list[str]:
    return [value.strip() for value in values if isinstance(value, str) and value.strip()]


def _compose_sidecar(
    config: Mapping[str, Any],
    bold: Path,
    described: Input,
    task_dir: Path,
    warnings: list[str],
) -> dict[str, Any]:
    """Return the series' sidecar: the staged one, or what Brainlife keeps of it."""
    staged = _find_file(config, "sidecar", task_dir)
    beside = bold.with_name(f"{bold.name.removesuffix(_get_extension(bold))}.json")
    if staged is None and beside.is_file():
        staged = beside
    sidecar = {} if staged is None else read_json_object(staged)
    kept = described.meta.get("RepetitionTime")
    stated = sidecar.get("RepetitionTime", kept)
    if stated is None:
        raise DataError(
            "The repetition time is not told. Expected RepetitionTime, in seconds, in the sidecar "
            "or under _inputs[].meta in config.json. Add it to the input's meta data."
        )
    if kept is not None and stated != kept:
        warnings.append(
            f"The sidecar's RepetitionTime of {stated!r} was taken; Brainlife's meta data say "
            f"{kept!r}."
        )
    return {**sidecar, "RepetitionTime": stated}


def _get_extension(path: Path) -> str:
    """Return ``.nii.gz`` or ``.nii``."""
    for extension in (".nii.gz", ".nii"):
        if path.name.endswith(extension):
            return extension
    raise DataError(f"Expected an image that ends in .nii.gz or .nii, found {path.name}.")


def _describe_dataset(described: Input) -> dict[str, Any]:
    tags = ", ".join(described.tags)
    return {
        "Name": "A series staged by brainlife.io",
        "BIDSVersion": "1.10.1",
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "brainlife.io",
                **({"Description": f"Tagged {tags}."} if tags else {}),
            }
        ],
    }

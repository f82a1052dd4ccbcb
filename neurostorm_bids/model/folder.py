"""The package's own model folder: ``model.safetensors``, ``config.json`` and ``MODEL.md``.

``config.json`` says what the weights are, on which grid and for which target, and where they come
from. No file named in it is ever opened.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from neurostorm_bids.errors import DataError, MissingFileError, OutputError, ReadError, UsageError
from neurostorm_bids.model.assessment import Calibration, count_reference
from neurostorm_bids.model.calibration import Novelty
from neurostorm_bids.model.card import write_card
from neurostorm_bids.model.config import HeadConfig, ModelConfig, TargetSpec
from neurostorm_bids.model.digest import digest_file
from neurostorm_bids.model.scratch import open_scratch
from neurostorm_bids.model.shapes import Prefixes, check_shapes, expect_shapes
from neurostorm_bids.model.weights import Checkpoint, Provenance, change_target, check_finite

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "MODEL.md"
FORMAT = "neurostorm-bids model"
FORMAT_VERSION = 1
MAX_CONFIG_BYTES = 2**20

_NOVELTY = "novelty."
_PREFIXES = Prefixes(backbone="backbone.", head="head.", decoder="decoder.")
_KEYS = {"format", "format_version", "model", "head", "target", "grid", "provenance", "weights"}
_CALIBRATION = "calibration"
_MASK = "mask"


def is_model_folder(path: Path) -> bool:
    """Say whether a folder holds a model of this package, and nothing else."""
    if not path.is_dir() or path.is_symlink():
        return False
    names = {entry.name for entry in path.iterdir()}
    return {WEIGHTS, CONFIG} <= names <= {WEIGHTS, CONFIG, CARD}


def read_model_folder(
    folder: Path, *, target: TargetSpec | None = None, source: str | None = None
) -> Checkpoint:
    """Read a model folder, strictly.

    Parameters
    ----------
    target : what the head predicts, in place of what the folder says.
    source : where the folder comes from, for the provenance; its name by default.

    Raises
    ------
    MissingFileError
        If a file is not there.
    DataError
        If a file is damaged, of another format, or the weights are not exactly those that the
        configuration asks for.
    """
    path = folder / WEIGHTS
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise MissingFileError(
                f"{folder} is not a model folder: it has no {name}. Give a folder that "
                "neurostorm-model convert wrote, or a published .ckpt file."
            )
    values = _read_config(folder / CONFIG)
    try:
        config = ModelConfig.from_dict(values["model"])
        head = None if values["head"] is None else HeadConfig.from_dict(values["head"])
        stored = None if values["target"] is None else TargetSpec.from_dict(values["target"])
        origin = Provenance.from_dict(values["provenance"])
        n_reference = count_reference(values[_CALIBRATION]) if _CALIBRATION in values else 0
    except DataError as err:
        raise DataError(f"{folder / CONFIG}: {err} Take the folder anew from its source.") from err
    if head is None and target is not None:
        raise UsageError(f"{folder} has no head, so it cannot predict {target.name!r}.")
    sha256 = digest_file(path)
    if values["weights"] != {"sha256": sha256}:
        raise DataError(
            f"{path} is not the file that {CONFIG} was written with: expected SHA-256 "
            f"{values['weights']}, found {sha256}. Take both files anew from their source."
        )
    parts = _read_weights(path, config, head, n_reference=n_reference)
    checkpoint = Checkpoint(
        config=config,
        head=head,
        target=stored,
        weights=parts[_PREFIXES.backbone],
        head_weights=parts[_PREFIXES.head],
        decoder_weights=parts[_PREFIXES.decoder],
        mask_scheme=values.get(_MASK),
        grid=values["grid"],
        provenance=Provenance(
            name=folder.resolve().name,
            source=source or folder.resolve().name,
            sha256=sha256,
            format="folder",
            notes=(*origin.notes, *_tell_origin(origin)),
            lessons=origin.lessons,
        ),
        calibration=_read_calibration(folder / CONFIG, values, parts[_NOVELTY]),
    )
    return checkpoint if target is None else change_target(checkpoint, target)


def write_model_folder(folder: Path, checkpoint: Checkpoint, *, overwrite: bool = False) -> None:
    """Write a checkpoint as a model folder, all of it or nothing.

    Parameters
    ----------
    folder : made if it is not there; its parent too.
    checkpoint : with its grid.
    overwrite : replace a model folder that is there already. Never replaces anything else.

    Raises
    ------
    OutputError
        If the folder is there already, or cannot be written.
    UsageError
        If the checkpoint has no grid.
    """
    if checkpoint.grid is None:
        raise UsageError("A model folder says on which grid its input lies. Give the grid.")
    folder = folder.absolute()
    _check_place(folder, overwrite=overwrite)
    # Beside the folder, so that the last step is a renaming within one file system.
    try:
        with open_scratch(folder) as scratch:
            _fill(scratch.new, checkpoint)
            _move_into_place(scratch.new, folder, aside=scratch.old)
    except OSError as err:
        raise OutputError(f"{folder} cannot be written: {err}. Give another folder.") from err


def _check_place(folder: Path, *, overwrite: bool) -> None:
    """Refuse to replace anything but an empty folder or, if wanted, a model folder."""
    if not (folder.exists() or folder.is_symlink()):
        return
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        return
    if not is_model_folder(folder):
        raise OutputError(f"{folder} is there already, and is not a model folder. Give another.")
    if not overwrite:
        raise OutputError(
            f"The model folder {folder} is there already. Overwrite it or give another."
        )


def _move_into_place(scratch: Path, folder: Path, *, aside: Path) -> None:
    """Rename `scratch` to `folder`; a model folder there steps aside, and back on failure."""
    if not is_model_folder(folder):
        scratch.rename(folder)
        return
    folder.rename(aside)
    try:
        scratch.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
    shutil.rmtree(aside)


def _fill(folder: Path, checkpoint: Checkpoint) -> None:
    parts = (checkpoint.weights, checkpoint.head_weights, checkpoint.decoder_weights)
    tensors = {
        prefix + key: tensor.detach().cpu().float().contiguous()
        for prefix, part in zip(_PREFIXES, parts, strict=True)
        for key, tensor in part.items()
    }
    calibration = checkpoint.calibration
    if calibration is not None and calibration.novelty is not None:
        arrays = calibration.novelty.to_arrays()
        tensors |= {_NOVELTY + key: torch.from_numpy(array) for key, array in arrays.items()}
    check_finite(tensors, path=folder / WEIGHTS)
    # The library's own writer tells a full disk as an error of its own, and makes files that nobody
    # else may read, whatever the umask; labs share models.
    (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
    sha256 = digest_file(folder / WEIGHTS)
    values = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": checkpoint.config.to_dict(),
        "head": None if checkpoint.head is None else checkpoint.head.to_dict(),
        "target": None if checkpoint.target is None else checkpoint.target.to_dict(),
        "grid": dict(checkpoint.grid or {}),
        "provenance": checkpoint.provenance.to_dict(),
        "weights": {"sha256": sha256},
    }
    if calibration is not None:
        values[_CALIBRATION] = calibration.to_dict()
    if checkpoint.mask_scheme is not None:
        values[_MASK] = checkpoint.mask_scheme
    (folder / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(write_card(checkpoint, sha256=sha256), encoding="utf-8")
    for name in (WEIGHTS, CONFIG, CARD):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())


def _read_config(path: Path) -> dict[str, Any]:
    """Read ``config.json``: all of its keys, and no others, in a format this version knows."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as err:
        raise ReadError(f"Reading {path} broke off: {err}. Try again.") from err
    try:
        if len(text) > MAX_CONFIG_BYTES:
            raise ValueError(f"it is larger than {MAX_CONFIG_BYTES} bytes")
        values = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise DataError(f"{path} is not the JSON of a model: {err}.") from err
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise DataError(f"{path} is not the configuration of a {FORMAT}: it does not say so.")
    if values.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{path}: expected format version {FORMAT_VERSION}, found "
            f"{values.get('format_version')!r:.80}. Install the version of neurostorm-bids that "
            "wrote it, or a later one."
        )
    if values.keys() - {_CALIBRATION, _MASK} != _KEYS:
        raise DataError(f"{path}: expected the keys {sorted(_KEYS)}, found {sorted(values)}.")
    if not isinstance(values["grid"], dict):
        raise DataError(f"{path}: expected named values as grid, found {values['grid']!r:.80}.")
    return values


def _read_weights(
    path: Path, config: ModelConfig, head: HeadConfig | None, *, n_reference: int
) -> dict[str, dict[str, Tensor]]:
    """Read the weights of each part by its prefix, their shapes checked before their values.

    `n_reference` is how many quantiles the statistics of training embeddings have; 0 for none.
    """
    parts: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in (*_PREFIXES, _NOVELTY)}
    try:
        # The library checks the header's size and that every tensor lies within the file.
        with safe_open(path, framework="pt") as file:
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            decoder = {
                key.removeprefix(_PREFIXES.decoder): shape
                for key, shape in found.items()
                if key.startswith(_PREFIXES.decoder)
            }
            expected = expect_shapes(config, head, decoder=decoder, prefixes=_PREFIXES)
            if n_reference:
                size = config.n_features
                shapes = {"mean": (size,), "whitening": (size, size), "reference": (n_reference,)}
                expected |= {_NOVELTY + key: shape for key, shape in shapes.items()}
            check_shapes(found, expected, path=path)
            for key in found:
                prefix, dot, bare = key.partition(".")
                parts[prefix + dot][bare] = file.get_tensor(key).float()
    except (SafetensorError, OSError) as err:
        raise DataError(f"{path} is damaged: {err}. Take it anew from its source.") from err
    for part in parts.values():
        check_finite(part, path=path)
    return parts


def _read_calibration(
    path: Path, values: dict[str, Any], novelty: dict[str, Tensor]
) -> Calibration | None:
    """Read the calibration of ``config.json``, which lies at `path`; None if it has none."""
    if _CALIBRATION not in values:
        return None
    try:
        arrays = {key: tensor.numpy() for key, tensor in novelty.items()}
        return Calibration.from_dict(
            values[_CALIBRATION], novelty=Novelty.from_arrays(arrays) if arrays else None
        )
    except DataError as err:
        raise DataError(f"{path}: {err} Take the folder anew from its source.") from err


def _tell_origin(origin: Provenance) -> tuple[str, ...]:
    """Say what a folder was made from; nothing for weights that were in no file before."""
    return (f"Made from {origin.source} (SHA-256 {origin.sha256}).",) if origin.sha256 else ()

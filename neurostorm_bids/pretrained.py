"""Models ready for use: loaded from a file, a name or an address, and saved as a folder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from neurostorm_bids.errors import DataError
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.checkpoints import (
    Checkpoint,
    Provenance,
    fit_clip_length,
    locate_model,
    read_checkpoint,
    write_model_folder,
)
from neurostorm_bids.model.heads import build_head
from neurostorm_bids.model.hub import SCHEME, HubAddress, find_entry, find_kept

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from neurostorm_bids.model.assessment import Calibration
    from neurostorm_bids.model.config import HeadConfig, ModelConfig, TargetSpec

__all__ = ["Model", "Provenance", "load_model", "open_checkpoint", "save_model"]


@dataclass(kw_only=True)
class Model:
    """A network with all that is needed to feed it and to read its output.

    Attributes
    ----------
    config, head_config : sizes of the backbone and of the head.
    backbone : (B, C, X, Y, Z, T) -> (B, n_features, X', Y', Z', T).
    head : the backbone's output -> (B, n_outputs), logits or z-scores; None for an encoder alone.
    grid : on which a run must lie; its shape is the first three of `config.img_size`.
    target : what the head predicts; None without a head.
    provenance : where the weights come from, and what was assumed on reading them.
    calibration : how far to trust what it says of a run; None where that is not known.
    precision : of the network's products, when it predicts; weights and outputs are float32.
    decoder_weights, mask_scheme : what makes a masked autoencoder of the backbone, as in
        `Checkpoint`; empty and None for other models.
    """

    config: ModelConfig
    head_config: HeadConfig | None
    backbone: Backbone
    head: nn.Module | None
    grid: GridSpec
    target: TargetSpec | None
    provenance: Provenance
    calibration: Calibration | None = None
    precision: Literal["float32", "bf16"] = "float32"
    decoder_weights: Mapping[str, Tensor] = field(default_factory=dict)
    mask_scheme: str | None = None

    @property
    def clip_length(self) -> int:
        """Volumes in one clip."""
        return self.config.clip_length


def load_model(
    name_or_path: str | Path,
    *,
    config: ModelConfig | None = None,
    target: TargetSpec | None = None,
    grid: GridSpec | None = None,
    clip_length: int | None = None,
) -> Model:
    """Load a model, in evaluation mode, on the CPU.

    Parameters
    ----------
    name_or_path : a model folder or a published ``.ckpt`` file; else a name in the catalogue; else
        ``hf://owner/repository/file@revision``.
    config : sizes of the backbone, for a published file that does not say them.
    target : what the head predicts, in place of what the file or the catalogue says.
    grid : of the input, in place of what the file says; a published file has the published field
        of view.
    clip_length : volumes per clip, in place of the file's; the time embedding is fitted to it.

    Raises
    ------
    MissingFileError
        If nothing is there, or it cannot be fetched.
    DataError
        If the file cannot be used as it is.
    UsageError
        If an argument does not go with the file.
    """
    checkpoint = open_checkpoint(name_or_path, config=config, target=target, grid=grid)
    if clip_length is not None:
        checkpoint = fit_clip_length(checkpoint, clip_length)
    config, head_config = checkpoint.config, checkpoint.head
    head = None if head_config is None else build_head(head_config, config.n_features)
    if head is not None:
        _fill(head, checkpoint.head_weights)
    backbone = Backbone(config)
    _fill(backbone, checkpoint.weights)
    return Model(
        config=config,
        head_config=head_config,
        backbone=backbone,
        head=head,
        grid=GridSpec.from_dict(checkpoint.grid or {}),
        target=checkpoint.target,
        provenance=checkpoint.provenance,
        calibration=checkpoint.calibration,
        decoder_weights=checkpoint.decoder_weights,
        mask_scheme=checkpoint.mask_scheme,
    )


def save_model(model: Model, folder: str | Path, *, overwrite: bool = False) -> None:
    """Write a model as a folder that `load_model` reads.

    Raises
    ------
    OutputError
        If the folder is there already (unless it is a model folder and `overwrite` is true), or
        cannot be written.
    """
    checkpoint = Checkpoint(
        config=model.config,
        head=model.head_config,
        target=model.target,
        weights=model.backbone.state_dict(),
        head_weights={} if model.head is None else model.head.state_dict(),
        decoder_weights=model.decoder_weights,
        mask_scheme=model.mask_scheme,
        grid=model.grid.to_dict(),
        provenance=model.provenance,
        calibration=model.calibration,
    )
    write_model_folder(Path(folder), checkpoint, overwrite=overwrite)


def open_checkpoint(
    name_or_path: str | Path,
    *,
    config: ModelConfig | None = None,
    target: TargetSpec | None = None,
    grid: GridSpec | None = None,
) -> Checkpoint:
    """Find and read a checkpoint, with what the catalogue knows of it, and with its grid.

    Parameters and errors are those of `load_model`.
    """
    path = locate_model(name_or_path)
    entry = find_entry(name_or_path)
    is_kept = find_kept(str(name_or_path)) is not None
    if is_kept and path.is_dir():  # which tells by itself what it is and where it comes from
        entry = None
    is_known = entry is not None and (not is_kept or entry.sha256 is not None)
    source = None
    if entry is not None:
        target = target or entry.target
        source = str(entry.address) if is_known else None
    elif str(name_or_path).startswith(SCHEME):
        source = str(HubAddress.parse(str(name_or_path)))
    checkpoint = read_checkpoint(path, config=config, target=target, source=source)
    if entry is not None:
        note = (
            f"{entry.name} in the catalogue; licence {entry.licence}. {entry.description}"
            if is_known
            else f"It lies under the name {entry.name} in the folder of models. The catalogue gave "
            "its target, but has no checksum to tell whether this is the same file."
        )
        provenance = checkpoint.provenance
        checkpoint = replace(
            checkpoint, provenance=replace(provenance, notes=(*provenance.notes, note))
        )
    return replace(checkpoint, grid=_choose_grid(checkpoint, grid).to_dict())


def _choose_grid(checkpoint: Checkpoint, grid: GridSpec | None) -> GridSpec:
    """Return the grid given, else the file's own, else the published one; check its shape."""
    shape = checkpoint.config.img_size[:3]
    if grid is None and checkpoint.grid is None:
        return GridSpec.published(shape)
    if grid is None:
        grid = GridSpec.from_dict(checkpoint.grid or {})
    if grid.shape != shape:
        raise DataError(
            f"The model {checkpoint.provenance.name} reads {shape} voxels, but its grid has "
            f"{grid.shape}. Give a grid of the model's shape."
        )
    return grid


def _fill(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights that were checked already into a module, and set it to evaluation mode."""
    with torch.no_grad():
        module.load_state_dict(weights, strict=True)
    module.eval()

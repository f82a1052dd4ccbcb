"""Read a model file of either kind, by what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neurostorm_bids.errors import MissingFileError, UsageError
from neurostorm_bids.model.folder import read_model_folder, write_model_folder
from neurostorm_bids.model.hub import locate_model
from neurostorm_bids.model.published import read_published
from neurostorm_bids.model.weights import Checkpoint, Provenance, fit_clip_length

if TYPE_CHECKING:
    from pathlib import Path

    from neurostorm_bids.model.config import ModelConfig, TargetSpec

__all__ = [
    "Checkpoint",
    "Provenance",
    "fit_clip_length",
    "locate_model",
    "read_checkpoint",
    "write_model_folder",
]


def read_checkpoint(
    path: Path,
    *,
    config: ModelConfig | None = None,
    target: TargetSpec | None = None,
    source: str | None = None,
) -> Checkpoint:
    """Read a published ``.ckpt`` file or a model folder: strictly, and executing nothing.

    Parameters
    ----------
    config : sizes of the backbone, for a published file that does not say them.
    target : what the head predicts, in place of what the file says.
    source : where the file comes from, for the provenance; its name by default.

    Raises
    ------
    MissingFileError
        If nothing is there.
    DataError
        If the file is damaged, of another kind, or its weights do not fit its configuration.
    UsageError
        If `config` is given for a model folder, or `target` for a model without a head.
    """
    if path.is_dir():
        if config is not None:
            raise UsageError(
                f"{path} is a model folder and holds its own configuration: give none."
            )
        return read_model_folder(path, target=target, source=source)
    if not path.exists():
        raise MissingFileError(
            f"No model at {path}. Give a model folder or a published .ckpt file."
        )
    return read_published(path, config=config, target=target, source=source)

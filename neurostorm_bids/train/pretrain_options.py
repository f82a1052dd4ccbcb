"""What a call of the pretrain level was asked to do; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from neurostorm_bids.call import Call
from neurostorm_bids.inputs import Cleaning, Selection
from neurostorm_bids.train.options import TrainOptions

if TYPE_CHECKING:
    from pathlib import Path

Objective = Literal["mae", "contrastive", "mae+contrastive"]
StrdKind = Literal["redundant", "published"]


@dataclass(frozen=True, kw_only=True)
class PretrainOptions:
    """The pretrain level's options, with their defaults.

    Attributes
    ----------
    bids_dir, output_dir, derivatives, selection, cleaning, skip_bids_validation : as for
        `ParticipantOptions`.
    work_dir : prepared runs and checkpoints; None for ``.work`` in the output folder.
    model : weights to start from; None for random ones.
    objective : reconstruct masked tokens, tell clips apart, or both.
    preset, embed_dim : the network and its grid; see `train.presets`.
    mask : what is masked as a whole, ``space/time``; None for ``window/random`` or, with an atlas,
        ``atlas/random``.
    mask_ratio : share of the units that are masked.
    atlas : name or path; its regions are masked and errors are reported for them.
    strd, strd_kind, strd_rate : whether and how redundant tokens are dropped in training.
    contrastive_weight : of the contrastive loss beside that of the autoencoder.
    augment : whether clips are turned, scaled, smoothed and made noisy.
    validation_share : of the participants, who are never trained on.
    sampling_weights : by dataset; empty for as many samples as it has clips.
    store_bits : per voxel and volume of the prepared runs.
    nprocs : processes that prepare runs, and CPUs that torch may use.
    train : how the training runs.
    debug : keep absolute paths in the logs.
    clean_workdir : remove first what earlier calls kept in `work_dir`.
    call : its name, and the options as they were given.
    """

    bids_dir: Path
    output_dir: Path
    work_dir: Path | None = None
    derivatives: tuple[tuple[str, Path], ...] = ()
    selection: Selection = field(default_factory=Selection)
    cleaning: Cleaning = field(default_factory=Cleaning)
    skip_bids_validation: bool = False
    model: str | None = None
    objective: Objective = "mae"
    preset: str = "base"
    embed_dim: int | None = None
    mask: str | None = None
    mask_ratio: float = 0.5
    atlas: str | None = None
    strd: bool = False
    strd_kind: StrdKind = "redundant"
    strd_rate: float = 0.1
    contrastive_weight: float = 1.0
    augment: bool = False
    validation_share: float = 0.1
    sampling_weights: tuple[tuple[str, float], ...] = ()
    store_bits: Literal[8, 16] = 8
    nprocs: int | None = None
    train: TrainOptions = field(default_factory=TrainOptions)
    debug: bool = False
    clean_workdir: bool = False
    call: Call = field(default_factory=Call, compare=False, repr=False)

    @property
    def mask_scheme(self) -> str:
        """What is masked as a whole."""
        return self.mask or ("window/random" if self.atlas is None else "atlas/random")

    @property
    def folder(self) -> Path:
        """Where prepared runs and checkpoints lie."""
        return self.work_dir or self.output_dir / ".work"

    @property
    def name(self) -> str:
        """Of the model that comes of it: the preset and the objective."""
        objective = self.objective.replace("+", "-")
        masked = self.mask_scheme.replace("/", "-")
        return "_".join(
            [self.preset, objective] + ([masked] if self.objective != "contrastive" else [])
        )

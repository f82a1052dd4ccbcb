"""What a checkpoint holds, whatever its format, and how it is fitted to another clip length."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from torch.nn import functional

from neurostorm_bids.errors import DataError
from neurostorm_bids.model import fields
from neurostorm_bids.model.lessons import Lesson
from neurostorm_bids.model.masking import check_scheme
from neurostorm_bids.model.shapes import list_some

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from neurostorm_bids.model.assessment import Calibration
    from neurostorm_bids.model.config import HeadConfig, ModelConfig, TargetSpec


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where weights come from.

    Attributes
    ----------
    name : short label: the stem of the file, or the name of the folder.
    source : name of the file or folder, or its ``hf://`` address; never an absolute path.
    sha256 : of the file that holds the weights, in hexadecimal; empty for weights made in memory.
    format : a file published for NeuroSTORM, or this package's model folder.
    notes : what was assumed or changed on reading, one sentence each.
    lessons : what the backbone was trained on by this program, as far as that is known.
    """

    name: str
    source: str
    sha256: str
    format: Literal["published", "folder"]
    notes: tuple[str, ...] = ()
    lessons: tuple[Lesson, ...] = ()

    def __post_init__(self) -> None:
        for name in ("name", "source", "sha256"):
            fields.check_type(self, name, str, expected="a text")
        fields.check_choice(self, "format", ("published", "folder"))
        if not isinstance(self.notes, tuple) or not all(isinstance(n, str) for n in self.notes):
            raise DataError(f"Provenance: expected a list of texts as notes, found {self.notes!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON writes them; `lessons` only where there are any."""
        values = fields.to_dict(self)
        return values if self.lessons else {k: v for k, v in values.items() if k != "lessons"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Provenance:
        """Read what `to_dict` wrote; raise `DataError` for anything else."""
        made = fields.from_dict(cls, values)
        given: Any = made.lessons
        if not isinstance(given, tuple):
            raise DataError(f"Provenance: expected a list as lessons, found {given!r:.80}.")
        return replace(made, lessons=tuple(Lesson.from_dict(one) for one in given))


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model as it lies in a file, checked: every weight is there, in its shape, and finite.

    Attributes
    ----------
    config, head, target : of the backbone; of the head, and what it predicts (None without one).
    weights, head_weights : float32, by the keys of `Backbone` and of `build_head`'s module.
    decoder_weights : of a masked autoencoder, by their published keys; empty otherwise.
    mask_scheme : how tokens were masked when the decoder was trained, ``space/time``; None where
        that is not known.
    grid : the grid of the input, as plain values; None where the file does not say.
    provenance : where it comes from.
    calibration : how far to trust the outputs; None where that is not known.
    """

    config: ModelConfig
    head: HeadConfig | None
    target: TargetSpec | None
    weights: Mapping[str, Tensor]
    head_weights: Mapping[str, Tensor] = field(default_factory=dict)
    decoder_weights: Mapping[str, Tensor] = field(default_factory=dict)
    mask_scheme: str | None = None
    grid: Mapping[str, Any] | None = None
    provenance: Provenance
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        _check_target(self.head, self.target)
        _check_tokens(self.head, self.config)
        check_scheme(self.mask_scheme)
        if self.calibration is not None:
            kind = None if self.target is None else self.target.kind
            self.calibration.check(kind=kind, n_features=self.config.n_features)


def check_finite(weights: Mapping[str, Tensor], *, path: Path) -> None:
    """Raise `DataError` if a weight is NaN or infinite."""
    if bad := [key for key, value in weights.items() if not bool(value.isfinite().all())]:
        raise DataError(
            f"Weights in {path} are NaN or infinite: {list_some(bad)}. The file is damaged, or its "
            "training diverged; take another checkpoint."
        )


def change_target(checkpoint: Checkpoint, target: TargetSpec) -> Checkpoint:
    """Return the checkpoint with another target, and of its calibration what still holds."""
    calibration, provenance = checkpoint.calibration, checkpoint.provenance
    if calibration is not None and target != checkpoint.target:
        calibration = calibration.keep_novelty()
        note = "The calibration of the outputs is left out: it was made for another target."
        provenance = replace(provenance, notes=(*provenance.notes, note))
    return replace(checkpoint, target=target, calibration=calibration, provenance=provenance)


def fit_clip_length(checkpoint: Checkpoint, clip_length: int) -> Checkpoint:
    """Return the checkpoint for clips of another length, with a note of what was done.

    For a longer clip the time embeddings (1, dim, 1, 1, 1, T) are stretched over it: linear
    interpolation, half-sample centres, ends held. A shorter clip takes the first part of them, as
    in the published model.

    Raises
    ------
    DataError
        If the model cannot read clips of this length.
    """
    config = checkpoint.config
    old = config.clip_length
    if clip_length == old:
        return checkpoint
    config = replace(config, img_size=(*config.img_size[:3], clip_length))
    weights = dict(checkpoint.weights)
    for key, value in checkpoint.weights.items():
        if key.endswith(".time_embed"):
            weights[key] = _fit_time_embed(value, clip_length)
    how = "interpolated linearly from" if clip_length > old else "cut from"
    notes = [f"The time embedding for {clip_length} volumes was {how} that for {old}."]
    if checkpoint.calibration is not None:
        notes.append(f"The calibration is left out: it was made with clips of {old} volumes.")
    provenance = replace(checkpoint.provenance, notes=(*checkpoint.provenance.notes, *notes))
    return replace(
        checkpoint, config=config, weights=weights, provenance=provenance, calibration=None
    )


def _fit_time_embed(value: Tensor, clip_length: int) -> Tensor:
    """Cut or stretch a time embedding, shape (1, dim, 1, 1, 1, T)."""
    if clip_length <= value.shape[-1]:
        return value[..., :clip_length].clone()
    longer = functional.interpolate(
        value.flatten(1, 4), size=clip_length, mode="linear", align_corners=False
    )  # (1, dim, clip_length)
    return longer.reshape(*value.shape[:-1], clip_length)


def _check_target(head: HeadConfig | None, target: TargetSpec | None) -> None:
    """Raise `DataError` unless the target has as many outputs as the head."""
    predicts = head is not None and head.version != "embedding"
    if predicts != (target is not None):
        raise DataError(
            "A head that predicts and a target go together; found "
            f"{'a head' if predicts else 'no such head'} and "
            f"{'no target' if target is None else f'the target {target.name!r}'}."
        )
    if head is None or target is None:
        return
    expected = 1 if target.n_outputs == 2 else target.n_outputs  # noqa: PLR2004 - one logit
    if head.n_outputs != expected or (head.version == "regression") != (
        target.kind == "regression"
    ):
        raise DataError(
            f"The target {target.name!r} ({target.kind}, {target.n_outputs} outputs) does not fit "
            f"the head ({head.version}, {head.n_outputs} outputs; two classes share one). "
            "Give a target with as many classes as the head was trained for."
        )


def _check_tokens(head: HeadConfig | None, config: ModelConfig) -> None:
    x, y, z, t = config.stage_grid(config.n_stages - 1)
    if head is not None and head.version == "v3" and x * y * z * t > head.n_tokens:
        raise DataError(
            f"A clip of {t} volumes has {x * y * z * t} tokens, but the head has positions for "
            f"{head.n_tokens}. Take a shorter clip."
        )

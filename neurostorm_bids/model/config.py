"""What a model is made of, as plain values that are saved with its weights.

Importable without torch. Every value is checked when the object is made, because a configuration
may come from a file that a stranger wrote: sizes are bounded before anything is allocated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from neurostorm_bids.errors import DataError
from neurostorm_bids.model.fields import (
    check_choice,
    check_int,
    check_real,
    check_sizes,
    check_type,
    from_dict,
    to_dict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Size3 = tuple[int, int, int]
Size4 = tuple[int, int, int, int]
HeadVersion = Literal["v1", "v2", "v3", "regression", "embedding"]
TargetKind = Literal["classification", "regression"]

MAX_STAGES = 8
MAX_DEPTH = 64
MAX_WIDTH = 16_384
MAX_CLIP_VALUES = 2**28
"""Values in one input clip, and in one clip's tokens: 1 GiB in float32."""
MAX_PARAMETERS = 2**29
"""Parameters of one backbone or one head: 2 GiB in float32."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the backbone; axes are X, Y, Z, T.

    Attributes
    ----------
    img_size : voxels and volumes of one clip.
    in_chans : values per voxel and volume.
    embed_dim : channels of the first stage; each later stage has `c_multiplier` times more.
    depths : blocks per stage.
    window_size, first_window_size : patches that one scan runs over; the second in stage 0.
    patch_size : voxels per patch; one volume along T.
    last_layer_full_msa : the last stage's window is its whole spatial grid, never shifted.
    d_state, d_conv, expand : state size, taps and widening of the Mamba layers.
    prompt_len : learned tokens in front of every window; 0 for none.
    drop_path_rate : in training, share of the last block's updates left out for a clip; earlier
        blocks leave out proportionally less.
    """

    img_size: Size4
    in_chans: int = 1
    embed_dim: int
    depths: tuple[int, ...]
    window_size: Size4
    first_window_size: Size4
    patch_size: Size4
    c_multiplier: int = 2
    last_layer_full_msa: bool
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    prompt_len: int = 0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        for name in ("img_size", "window_size", "first_window_size", "patch_size"):
            check_sizes(self, name, length=4, high=4096)
        check_sizes(self, "depths", length=None, high=MAX_DEPTH)
        for name, low, high in (
            ("in_chans", 1, 1024),
            ("embed_dim", 1, MAX_WIDTH),
            ("c_multiplier", 1, 8),
            ("d_state", 1, 256),
            ("d_conv", 1, 16),
            ("expand", 1, 8),
            ("prompt_len", 0, 4096),
        ):
            check_int(self, name, low=low, high=high)
        check_type(self, "last_layer_full_msa", bool, expected="true or false")
        check_real(self, "drop_path_rate", low=0.0, high=1.0)
        self._check_grid()
        self._check_memory()

    @classmethod
    def published(cls) -> Self:
        """Return the sizes of the published base model: 96 voxels of 2 mm, 20 volumes of 0.8 s."""
        return cls(
            img_size=(96, 96, 96, 20),
            embed_dim=36,
            depths=(2, 2, 6, 2),
            window_size=(4, 4, 4, 4),
            first_window_size=(4, 4, 4, 4),
            patch_size=(6, 6, 6, 1),
            last_layer_full_msa=True,
        )

    @property
    def clip_length(self) -> int:
        """Volumes in one clip."""
        return self.img_size[3]

    @property
    def n_stages(self) -> int:
        """Stages of the encoder."""
        return len(self.depths)

    @property
    def n_features(self) -> int:
        """Channels of the backbone's output."""
        return self.stage_dim(self.n_stages - 1)

    def stage_dim(self, stage: int) -> int:
        """Return the channels of a stage, counted from 0."""
        dim: int = self.embed_dim * self.c_multiplier**stage
        return dim

    def stage_grid(self, stage: int) -> Size4:
        """Return the patches along X, Y, Z and T that a stage sees."""
        x, y, z = (
            size // patch // 2**stage
            for size, patch in zip(self.img_size[:3], self.patch_size[:3], strict=True)
        )
        return x, y, z, self.clip_length

    def stage_window(self, stage: int) -> Size4:
        """Return the window of a stage, before it shrinks to axes that are shorter."""
        if self.last_layer_full_msa and stage == self.n_stages - 1:
            return *self.stage_grid(stage)[:3], self.window_size[3]
        return self.first_window_size if stage == 0 else self.window_size

    def is_shifted(self, stage: int, block: int) -> bool:
        """Return whether a block moves its windows by half a window: every second one."""
        is_full = self.last_layer_full_msa and stage == self.n_stages - 1
        return block % 2 == 1 and not is_full

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON writes them."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; raise `DataError` for anything else."""
        return from_dict(cls, values)

    def _check_grid(self) -> None:
        if self.n_stages < 2 or self.n_stages > MAX_STAGES:  # noqa: PLR2004
            raise DataError(
                f"A model has 2 to {MAX_STAGES} stages, found {self.n_stages} "
                f"(depths {self.depths})."
            )
        if self.patch_size[3] != 1:
            raise DataError(
                f"A patch spans one volume: expected 1 as last of patch_size, "
                f"found {self.patch_size}."
            )
        steps = [patch * 2 ** (self.n_stages - 1) for patch in self.patch_size[:3]]
        if any(size % step for size, step in zip(self.img_size[:3], steps, strict=True)):
            raise DataError(
                f"Every spatial axis of img_size must be a multiple of {steps} (the patch, halved "
                f"after each of {self.n_stages} stages but the last), found {self.img_size}."
            )

    def _check_memory(self) -> None:
        clip_values = math.prod(self.img_size) * self.in_chans
        token_values = math.prod(self.stage_grid(0)) * self.embed_dim * self.expand
        for what, count, limit in (
            ("values in a clip", clip_values, MAX_CLIP_VALUES),
            ("values in a clip's tokens", token_values, MAX_CLIP_VALUES),
            ("parameters", _count_parameters(self), MAX_PARAMETERS),
        ):
            if count > limit:
                raise DataError(
                    f"The model's configuration asks for {count:,} {what}; at most {limit:,} "
                    "are accepted. Check img_size, embed_dim and depths."
                )


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What stands on the backbone.

    Attributes
    ----------
    version : v1 linear; v2 two linear layers; v3 transformer; regression; embedding.
    n_outputs : values the head returns; 1 for two classes (the logit of class 1).
    n_tokens : v3 only, tokens of the backbone's output (X' * Y' * Z' * T); 0 otherwise.
    n_layers, n_heads : v3 only, transformer layers and attention heads.
    """

    version: HeadVersion
    n_outputs: int
    n_tokens: int = 0
    n_layers: int = 2
    n_heads: int = 4

    def __post_init__(self) -> None:
        check_choice(self, "version", get_args(HeadVersion))
        check_int(self, "n_outputs", low=1, high=MAX_WIDTH)
        check_int(self, "n_tokens", low=int(self.version == "v3"), high=2**20)
        check_int(self, "n_layers", low=1, high=MAX_DEPTH)
        check_int(self, "n_heads", low=1, high=256)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON writes them."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; raise `DataError` for anything else."""
        return from_dict(cls, values)


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """What a head predicts, and in which unit.

    Attributes
    ----------
    name : of the target, for example ``age``.
    kind : classification or regression.
    classes : names of the classes, in the order of the head's outputs; for two classes the head's
        one output speaks for the second.
    unit : of a regression target, for example ``years``.
    mean, sd : of a regression target in training, in its unit. None: unknown, and predictions stay
        z-scores.
    """

    name: str
    kind: TargetKind
    classes: tuple[str, ...] = ()
    unit: str | None = None
    mean: float | None = None
    sd: float | None = None

    def __post_init__(self) -> None:
        check_type(self, "name", str, expected="a text")
        if not self.name:
            raise DataError("A target needs a name, found an empty one.")
        check_choice(self, "kind", get_args(TargetKind))
        if self.kind == "classification":
            self._check_classification()
        else:
            self._check_regression()

    @property
    def n_outputs(self) -> int:
        """Numbers predicted per clip: one probability per class, or one value."""
        return len(self.classes) if self.kind == "classification" else 1

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON writes them."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; raise `DataError` for anything else."""
        return from_dict(cls, values)

    def _check_classification(self) -> None:
        names = self.classes
        is_list = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
        if not is_list or len(names) < 2 or len(set(names)) != len(names):  # noqa: PLR2004
            raise DataError(
                f"Target {self.name!r}: expected two or more different class names, "
                f"found {names!r}."
            )
        if (self.unit, self.mean, self.sd) != (None, None, None):
            raise DataError(f"Target {self.name!r}: classes have no unit, mean or deviation.")

    def _check_regression(self) -> None:
        if self.classes:
            raise DataError(
                f"Target {self.name!r}: a regression target has no classes, found {self.classes!r}."
            )
        if self.unit is not None:
            check_type(self, "unit", str, expected="a text")
        if (self.mean is None) != (self.sd is None):
            raise DataError(
                f"Target {self.name!r}: mean and deviation go together, "
                f"found mean {self.mean!r} and sd {self.sd!r}."
            )
        if self.mean is not None:
            check_real(self, "mean", low=-math.inf, high=math.inf)
            check_real(self, "sd", low=0.0, high=math.inf)
            if self.sd == 0:
                raise DataError(f"Target {self.name!r}: the deviation must not be 0.")


def _count_parameters(config: ModelConfig) -> int:
    """Return the parameters of a backbone of these sizes."""
    count = math.prod(config.patch_size) * config.in_chans * config.embed_dim + config.embed_dim
    for stage, depth in enumerate(config.depths):
        dim = config.stage_dim(stage)
        inner, rank = config.expand * dim, math.ceil(dim / 16)
        mixer = inner * (3 * dim + config.d_state * 3 + 2 * rank + config.d_conv + 3)
        mlp = 8 * dim * dim + 5 * dim
        count += depth * (mixer + mlp + 4 * dim + config.prompt_len * dim)
        count += (math.prod(config.stage_grid(stage)[:3]) + config.clip_length) * dim
        if stage < config.n_stages - 1:
            count += 8 * dim * config.stage_dim(stage + 1) + 16 * dim
    return count

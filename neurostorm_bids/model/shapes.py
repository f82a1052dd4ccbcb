"""Which weights a model of given sizes has, and whether a file holds exactly these."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from neurostorm_bids.errors import DataError
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.heads import build_head

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from torch import Tensor

    from neurostorm_bids.model.config import HeadConfig, ModelConfig

    Shape = tuple[int, ...]

_MAX_LISTED = 6


class Prefixes(NamedTuple):
    """What stands before the keys of each part of a model in a file."""

    backbone: str
    head: str
    decoder: str


def expect_shapes(
    config: ModelConfig,
    head: HeadConfig | None,
    *,
    decoder: Mapping[str, Shape],
    prefixes: Prefixes,
) -> dict[str, Shape]:
    """Return the shape of every weight a file should hold, by its key there.

    `decoder` holds the shapes found of the autoencoder's own weights; empty without any.
    """
    parts = (backbone_shapes(config), head_shapes(head, config), decoder_shapes(config, decoder))
    return {
        prefix + key: shape
        for prefix, part in zip(prefixes, parts, strict=True)
        for key, shape in part.items()
    }


def backbone_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Return the shape of every weight of a backbone, without allocating any."""
    with torch.device("meta"):
        return _shapes(Backbone(config).state_dict())


def head_shapes(head: HeadConfig | None, config: ModelConfig) -> dict[str, Shape]:
    """Return the shape of every weight of a head; none without a head."""
    if head is None:
        return {}
    with torch.device("meta"):
        return _shapes(build_head(head, config.n_features).state_dict())


def decoder_shapes(config: ModelConfig, found: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shape of every weight of an autoencoder's decoder and mask tokens.

    The stages mirror the encoder's but the last one, from the deepest up: a stage's blocks are as
    wide as those of the encoder's stage, and patch expanding stands where merging stood. `found`,
    the shapes in the file, tells how many mask tokens there are: older files have one for every
    patch of a window, as ``mask_token``, and none of the other two kinds. None at all: no decoder.
    """
    if not found:
        return {}
    encoder = backbone_shapes(config)
    shapes = _expanding_shapes("first_patch_expanding", config.n_features)
    for up, stage in enumerate(range(config.n_stages - 2, -1, -1)):
        old, new = f"layers.{stage}.blocks.", f"layers_up.{up}.blocks."
        shapes |= {
            new + key.removeprefix(old): shape
            for key, shape in encoder.items()
            if key.startswith(old) and not key.endswith(".prompt")
        }
        if stage > 0:
            shapes |= _expanding_shapes(f"layers_up.{up}.upsample", config.stage_dim(stage))
    n_values = config.patch_size[0] * config.patch_size[1] * config.patch_size[2] * config.in_chans
    shapes |= _mask_token_shapes(config.embed_dim, found)
    return shapes | {
        "norm_up.weight": (config.embed_dim,),
        "norm_up.bias": (config.embed_dim,),
        "decoder_pred.weight": (n_values, config.embed_dim),
        "decoder_pred.bias": (n_values,),
    }


def check_shapes(found: Mapping[str, Shape], expected: Mapping[str, Shape], *, path: Path) -> None:
    """Raise `DataError` unless the same keys are there, with the same shapes."""
    faults = []
    if missing := expected.keys() - found.keys():
        faults.append(f"missing {list_some(missing)}")
    if unexpected := found.keys() - expected.keys():
        faults.append(f"unexpected {list_some(unexpected)}")
    if wrong := {key for key in expected.keys() & found.keys() if expected[key] != found[key]}:
        shapes = (f"{key} {found[key]} in place of {expected[key]}" for key in wrong)
        faults.append(f"of another shape {list_some(shapes)}")
    if faults:
        raise DataError(
            f"The weights in {path} are not those of its configuration: {'; '.join(faults)}. "
            "Check that it is a NeuroSTORM checkpoint, and that a configuration given by hand "
            "(embed_dim, depths, patch_size, img_size) is the one it was trained with."
        )


def _expanding_shapes(name: str, dim: int) -> dict[str, Shape]:
    """Return the shapes of a patch expanding: dim channels become 8 patches of dim / 2."""
    return {
        f"{name}.expand.weight": (4 * dim, dim),
        f"{name}.norm.weight": (dim // 2,),
        f"{name}.norm.bias": (dim // 2,),
    }


def _mask_token_shapes(embed_dim: int, found: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the mask tokens' shapes; how many patches a window has is taken as found."""
    one: Shape = (embed_dim,)
    if not {"window_mask_token", "atlas_mask_token"} & found.keys():
        n_patches = found.get("mask_token", ())[:-1]
        return {"mask_token": (*n_patches[:1], *one)}
    n_patches = found.get("window_mask_token", ())[:1]
    return {"mask_token": one, "window_mask_token": (*n_patches, *one), "atlas_mask_token": one}


def _shapes(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {key: tuple(value.shape) for key, value in state.items()}


def list_some(names: Iterable[str]) -> str:
    """List the first names, in order, and count the others."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _MAX_LISTED} more" if len(ordered) > _MAX_LISTED else ""
    return ", ".join(ordered[:_MAX_LISTED]) + more

"""The masked autoencoder: hide tokens behind a learned one, encode, decode, compare the hidden.

Masked tokens stay in the sequence. The encoder is the `Backbone` that other levels use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.block import Block
from neurostorm_bids.model.masking import index_in_window
from neurostorm_bids.model.strd import attach_strd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neurostorm_bids.model.config import ModelConfig, Size4
    from neurostorm_bids.model.masking import MaskScheme
    from neurostorm_bids.model.strd import StrdConfig

_ENCODER = "backbone."
_MASK_TOKENS = ("mask_token", "window_mask_token", "atlas_mask_token")


class Reconstruction(NamedTuple):
    """What the autoencoder returns for a batch of clips.

    Attributes
    ----------
    loss : Tensor, scalar: mean of `patch_error` over the masked patches.
    patch_error : Tensor, shape (B, X', Y', Z', T): squared error, mean over a patch's voxels.
    patches : Tensor, shape (B, X', Y', Z', T, values per patch); `join_patches` makes a clip of it.
    latent : Tensor, shape (B, C', X'', Y'', Z'', T), the encoder's output.
    """

    loss: Tensor
    patch_error: Tensor
    patches: Tensor
    latent: Tensor


class PatchExpanding(nn.Module):
    """Make 2 x 2 x 2 tokens of `out_dim` channels of each token: merging the other way round."""

    def __init__(self, dim: int, *, out_dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 8 * out_dim, bias=False)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Expand tokens (B, X, Y, Z, T, dim) -> (B, 2 X, 2 Y, 2 Z, T, out_dim)."""
        n, size_x, size_y, size_z, size_t, _ = x.shape
        x = self.expand(x).reshape(n, size_x, size_y, size_z, size_t, 2, 2, 2, -1)
        x = x.permute(0, 1, 5, 2, 6, 3, 7, 4, 8)  # (B, X, 2, Y, 2, Z, 2, T, out_dim)
        expanded: Tensor = self.norm(x.flatten(5, 6).flatten(3, 4).flatten(1, 2))
        return expanded


class DecoderStage(nn.Module):
    """Blocks as wide as those of the encoder's stage, then patch expanding, except in the last."""

    def __init__(self, config: ModelConfig, stage: int) -> None:
        super().__init__()
        dim = config.stage_dim(stage)
        self.blocks = nn.ModuleList(
            Block(config, dim=dim, window=config.window_size, shifted=block % 2 == 1)
            for block in range(config.depths[stage])
        )
        self.upsample = (
            PatchExpanding(dim, out_dim=config.stage_dim(stage - 1)) if stage > 0 else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Update tokens (B, X, Y, Z, T, C)."""
        for block in self.blocks:
            x = block(x)
        return x if self.upsample is None else self.upsample(x)


class MaskedAutoencoder(nn.Module):
    """Encoder, decoder and the learned tokens that stand for masked ones.

    Parameters
    ----------
    config : sizes of the encoder; the decoder mirrors it.
    scheme : what is masked, which says the learned token that stands for it. Those of the other
        schemes are kept, and not trained.
    strd : whether and how the encoder's Mamba layers drop tokens in training.
    """

    def __init__(
        self, config: ModelConfig, *, scheme: MaskScheme, strd: StrdConfig | None = None
    ) -> None:
        super().__init__()
        self.config, self.scheme = config, scheme
        self.backbone = Backbone(config)
        n_places = torch.Size(config.first_window_size).numel()
        self.mask_token = nn.Parameter(torch.empty(config.embed_dim))
        self.window_mask_token = nn.Parameter(torch.empty(n_places, config.embed_dim))
        self.atlas_mask_token = nn.Parameter(torch.empty(config.embed_dim))
        for name in _MASK_TOKENS:
            nn.init.trunc_normal_(self.get_parameter(name), std=0.02)
            self.get_parameter(name).requires_grad_(name == _name_mask_token(scheme))
        last = config.n_stages - 1
        self.first_patch_expanding = PatchExpanding(
            config.stage_dim(last), out_dim=config.stage_dim(last - 1)
        )
        self.layers_up = nn.ModuleList(
            DecoderStage(config, stage) for stage in reversed(range(last))
        )
        self.norm_up = nn.LayerNorm(config.embed_dim)
        patch_values = torch.Size(config.patch_size).numel() * config.in_chans
        self.decoder_pred = nn.Linear(config.embed_dim, patch_values)
        if strd is not None:
            attach_strd(self.backbone, strd)

    def forward(self, clips: Tensor, mask: Tensor) -> Reconstruction:
        """Reconstruct clips from their visible tokens.

        Parameters
        ----------
        clips : Tensor, shape (B, C, X, Y, Z, T)
        mask : Tensor of bool, shape (B, X', Y', Z', T): True for masked tokens, at least one.

        Raises
        ------
        UsageError
            If the mask is not on the clips' tokens.
        """
        tokens = self.backbone.patch_embed(clips)
        if mask.shape != tokens.shape[:5]:
            raise UsageError(
                f"Expected a mask of the clips' tokens, shape {tuple(tokens.shape[:5])}, found "
                f"{tuple(mask.shape)}. Draw it for this grid and this length of clips."
            )
        latent = self.backbone.encode(self._hide(tokens, mask))
        patches = self._decode(latent)
        target = cut_patches(clips, self.config.patch_size)
        dtype = torch.promote_types(patches.dtype, torch.float32)
        patch_error = (patches.to(dtype) - target.to(dtype)).square().mean(dim=-1)
        loss = (patch_error * mask).sum() / mask.sum()
        return Reconstruction(loss, patch_error, patches, latent)

    def published_state(self) -> dict[str, Tensor]:
        """Return all weights by their published keys, without ``model.``."""
        return {key.removeprefix(_ENCODER): value for key, value in self.state_dict().items()}

    def load_published_state(self, state: Mapping[str, Tensor]) -> None:
        """Load weights by their published keys, without ``model.``.

        Older files hold one ``mask_token`` for each place in a window and no other: it becomes the
        ``window_mask_token``, and its mean over places the other two.

        Raises
        ------
        DataError
            If keys or shapes are not exactly those of this autoencoder.
        """
        state = _split_old_token(state)
        parts = {name for name, _ in self.backbone.named_children()}
        own = {
            _ENCODER + key if key.split(".")[0] in parts else key: value
            for key, value in state.items()
        }
        try:
            self.load_state_dict(own)
        except RuntimeError as err:
            raise DataError(
                f"The weights do not fit this autoencoder. {err}. Check the sizes in its "
                "configuration: embed_dim, depths, patch_size, first_window_size, img_size."
            ) from err

    def _hide(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Put the scheme's learned token in place of masked tokens (B, X', Y', Z', T, E)."""
        name = _name_mask_token(self.scheme)
        # Not by `get_parameter`: where devices share the weights out, it is a view of a parameter.
        learned: Tensor = getattr(self, name).to(tokens.dtype)
        if name == "window_mask_token":
            size_x, size_y, size_z, size_t = tokens.shape[1:5]
            grid = size_x, size_y, size_z, size_t
            places = index_in_window(grid, self.config.first_window_size)
            # Not by indexing, whose gradient threads sum up in the order in which they come.
            learned = functional.embedding(places.to(learned.device), learned)
        return torch.where(mask.unsqueeze(-1), learned, tokens)

    def _decode(self, latent: Tensor) -> Tensor:
        """Return patches (B, X', Y', Z', T, values) for the encoder's output."""
        x = self.first_patch_expanding(latent.movedim(1, -1))
        for stage in self.layers_up:
            x = stage(x)
        patches: Tensor = self.decoder_pred(self.norm_up(x))
        return patches


def cut_patches(clips: Tensor, patch_size: Size4) -> Tensor:
    """Cut clips (B, C, X, Y, Z, T) into patches (B, X', Y', Z', T, px * py * pz * C).

    Within a patch x runs slowest, then y, z and the channel, as in the patch embedding.
    """
    px, py, pz, _ = patch_size
    n, chans, size_x, size_y, size_z, size_t = clips.shape
    x = clips.reshape(n, chans, size_x // px, px, size_y // py, py, size_z // pz, pz, size_t)
    return x.permute(0, 2, 4, 6, 8, 3, 5, 7, 1).flatten(5)


def join_patches(patches: Tensor, patch_size: Size4) -> Tensor:
    """Undo `cut_patches`."""
    px, py, pz, _ = patch_size
    n, n_x, n_y, n_z, size_t, _ = patches.shape
    x = patches.reshape(n, n_x, n_y, n_z, size_t, px, py, pz, -1)
    x = x.permute(0, 8, 1, 5, 2, 6, 3, 7, 4)  # (B, C, X', px, Y', py, Z', pz, T)
    return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)


def _name_mask_token(scheme: MaskScheme) -> str:
    if scheme.space == "atlas":
        return "atlas_mask_token"
    is_windowed = scheme.space == "window" and scheme.time == "random"
    return "window_mask_token" if is_windowed else "mask_token"


def _split_old_token(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Bring the mask tokens of older files into the newer form."""
    token = state.get("mask_token")
    if token is None or token.ndim == 1 or set(_MASK_TOKENS[1:]) & state.keys():
        return state
    mean = token.mean(dim=0)
    tokens = {"mask_token": mean, "window_mask_token": token, "atlas_mask_token": mean.clone()}
    return {**state, **tokens}

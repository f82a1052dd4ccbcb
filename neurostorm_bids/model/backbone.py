"""The encoder: patches, four stages of windowed Mamba blocks, merging between them.

Clips are (B, C, X, Y, Z, T); inside, channels come last: (B, X, Y, Z, T, C).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neurostorm_bids.errors import UsageError
from neurostorm_bids.model.backends import check_forced_backend
from neurostorm_bids.model.block import Block
from neurostorm_bids.model.operations import FAST, Operations, choose_operations, is_single

if TYPE_CHECKING:
    from neurostorm_bids.model.config import ModelConfig, Size4


class PatchEmbed(nn.Module):
    """One linear map from the voxels of a patch to a token.

    Parameters
    ----------
    patch_size : voxels along X, Y and Z, and one volume.
    in_chans : values per voxel and volume.
    dim : channels of a token.
    """

    def __init__(self, patch_size: Size4, *, in_chans: int, dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        px, py, pz, _ = patch_size
        self.fc = nn.Linear(px * py * pz * in_chans, dim)

    def forward(self, x: Tensor, *, ops: Operations = FAST) -> Tensor:
        """Embed clips (B, C, X, Y, Z, T) -> (B, X', Y', Z', T, dim), on a CPU slab by slab."""
        ops = choose_operations(ops, x, n_states=1)
        weight, bias = self.fc.weight, self.fc.bias
        is_followed = torch.is_grad_enabled() and x.requires_grad
        if ops.embed is not None and is_single(x, weight, bias) and not is_followed:
            px, py, pz, _ = self.patch_size
            return ops.embed(x, weight, bias, patch=(px, py, pz))
        thickness = x.shape[2] if x.is_cuda else self.patch_size[0]  # a GPU waits for each start
        slabs = torch.split(x, thickness, dim=2)
        return torch.cat([self._embed(slab, ops) for slab in slabs], dim=1)

    def _embed(self, slab: Tensor, ops: Operations) -> Tensor:
        """Embed layers of patches (B, C, X, Y, Z, T) -> (B, X', Y', Z', T, dim)."""
        px, py, pz, _ = self.patch_size
        n, chans, x, y, z, t = slab.shape
        voxels = slab.reshape(n, chans, x // px, px, y // py, py, z // pz, pz, t)
        voxels = voxels.permute(0, 2, 4, 6, 3, 5, 7, 1, 8)  # (B, X', Y', Z', px, py, pz, C, T)
        # Two copies, the first with T contiguous, are faster than one that takes T apart at once.
        patches = voxels.reshape(n, x // px, y // py, z // pz, -1, t).transpose(4, 5).contiguous()
        return ops.linear(patches, self.fc.weight, self.fc.bias)


class PositionEmbed(nn.Module):
    """One learned vector per position in space and one per volume, added to the tokens."""

    def __init__(self, grid: Size4, dim: int) -> None:
        super().__init__()
        x, y, z, t = grid
        self.pos_embed = nn.Parameter(torch.empty(1, dim, x, y, z, 1))
        self.time_embed = nn.Parameter(torch.empty(1, dim, 1, 1, 1, t))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.time_embed, std=0.02)

    def forward(self, x: Tensor, *, may_overwrite: bool = False) -> Tensor:
        """Add the embeddings to tokens (B, X, Y, Z, T, C); T may be shorter than at training."""
        space = self.pos_embed.movedim(1, -1).contiguous()
        time = self.time_embed[..., : x.shape[4]].movedim(1, -1).contiguous()
        # A sum in the memory of half precision would be in half precision.
        may_overwrite = may_overwrite and x.dtype == space.dtype
        return (x.add_(space) if may_overwrite else x + space).add_(time)


class PatchMerging(nn.Module):
    """Join the 2 x 2 x 2 neighbours in space into one token of `out_dim` channels."""

    def __init__(self, dim: int, *, out_dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(8 * dim, out_dim, bias=False)
        self.norm = nn.LayerNorm(8 * dim)

    def forward(self, x: Tensor, *, ops: Operations = FAST) -> Tensor:
        """Merge tokens (B, X, Y, Z, T, dim) -> (B, X / 2, Y / 2, Z / 2, T, out_dim)."""
        slabs = torch.split(x, x.shape[1] if x.is_cuda else 2, dim=1)  # as for patches
        return torch.cat([self._merge(slab, ops) for slab in slabs], dim=1)

    def _merge(self, slab: Tensor, ops: Operations) -> Tensor:
        """Merge layers of tokens (B, X, Y, Z, T, dim) -> (B, X / 2, Y / 2, Z / 2, T, out_dim)."""
        n, size_x, size_y, size_z, size_t, dim = slab.shape
        x = slab.reshape(n, size_x // 2, 2, size_y // 2, 2, size_z // 2, 2, size_t, dim)
        x = x.permute(0, 1, 3, 5, 7, 2, 4, 6, 8).flatten(5)  # z neighbours, then C, run fastest
        return ops.linear(self.norm(x), self.reduction.weight)


class Stage(nn.Module):
    """Blocks of one width, then patch merging when `downsample` is given.

    Parameters
    ----------
    blocks : in order.
    downsample : what follows the blocks; None for the last stage.
    """

    def __init__(self, blocks: list[Block], *, downsample: PatchMerging | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor, *, ops: Operations = FAST, may_overwrite: bool = False) -> Tensor:
        """Update tokens (B, X, Y, Z, T, C); see `Backbone.forward` for `ops`."""
        for block in self.blocks:
            x = block(x, ops=ops, may_overwrite=may_overwrite)
            may_overwrite = _is_unseen(block)
        return x if self.downsample is None else self.downsample(x, ops=ops)


class Backbone(nn.Module):
    """The encoder; parameters carry the published names without their ``model.``.

    Parameters
    ----------
    config : the sizes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        check_forced_backend()
        self.config = config
        self.patch_embed = PatchEmbed(
            config.patch_size, in_chans=config.in_chans, dim=config.embed_dim
        )
        stages = range(config.n_stages)
        self.pos_embeds = nn.ModuleList(
            PositionEmbed(config.stage_grid(stage), config.stage_dim(stage)) for stage in stages
        )
        self.layers = nn.ModuleList(_make_stage(config, stage) for stage in stages)

    def forward(self, x: Tensor, *, ops: Operations = FAST) -> Tensor:
        """Encode clips.

        Parameters
        ----------
        x : Tensor, shape (B, C, X, Y, Z, T), T at most ``config.clip_length``.
        ops : what computes products and scans; `operations.REFERENCE` runs plainly and slowly over
            whole tensors, and is what the faster ways must equal.

        Returns
        -------
        Tensor, shape (B, ``config.n_features``, X', Y', Z', T)

        Raises
        ------
        UsageError
            When the clips have another shape than the model reads.
        """
        self._check_clips(x)
        ops = choose_operations(ops, x, n_states=self.config.d_state)
        tokens = self.patch_embed(x, ops=ops)
        return self._encode(tokens, ops=ops, may_overwrite=_is_unseen(self.patch_embed))

    def encode(self, tokens: Tensor, *, ops: Operations = FAST) -> Tensor:
        """Run the stages over embedded patches (B, X', Y', Z', T, E); returns as `forward`."""
        return self._encode(tokens, ops=ops, may_overwrite=False)

    def _encode(self, tokens: Tensor, *, ops: Operations, may_overwrite: bool) -> Tensor:
        for pos_embed, stage in zip(self.pos_embeds, self.layers, strict=True):
            tokens = pos_embed(tokens, may_overwrite=may_overwrite)
            tokens = stage(tokens, ops=ops, may_overwrite=_is_unseen(pos_embed))
            may_overwrite = _is_unseen(stage)
        return tokens.movedim(-1, 1)

    def _check_clips(self, x: Tensor) -> None:
        config = self.config
        expected = (config.in_chans, *config.img_size[:3])
        if x.ndim != 6 or tuple(x.shape[1:5]) != expected or len(x) == 0 or x.shape[5] == 0:  # noqa: PLR2004
            raise UsageError(
                f"Expected clips of shape (B, C, X, Y, Z, T) with (C, X, Y, Z) = {expected}, "
                f"found {tuple(x.shape)}. Bring the run onto the model's grid first."
            )
        if x.shape[5] > config.clip_length:
            raise UsageError(
                f"Expected clips of at most {config.clip_length} volumes, found {x.shape[5]}. "
                f"Give shorter clips, or load the model with clip_length={x.shape[5]}."
            )


def _is_unseen(module: nn.Module) -> bool:
    """Return whether nobody keeps what a module has just given: no gradient, and no hook."""
    is_hooked = any(part._forward_hooks for part in module.modules())  # noqa: SLF001
    return not (torch.is_grad_enabled() or is_hooked)


def _make_stage(config: ModelConfig, stage: int) -> Stage:
    dim, depth = config.stage_dim(stage), config.depths[stage]
    n_before, n_blocks = sum(config.depths[:stage]), sum(config.depths)
    blocks = [
        Block(
            config,
            dim=dim,
            window=config.stage_window(stage),
            shifted=config.is_shifted(stage, block),
            drop_path_rate=config.drop_path_rate * (n_before + block) / max(1, n_blocks - 1),
            prompt_len=config.prompt_len,
        )
        for block in range(depth)
    ]
    is_last = stage == config.n_stages - 1
    downsample = None if is_last else PatchMerging(dim, out_dim=config.stage_dim(stage + 1))
    return Stage(blocks, downsample=downsample)

"""Random changes to clips in training: turned, scaled, smoothed, noisy; a clip's volumes alike.

Everything runs on the device of the clips, for a whole batch at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from neurostorm_bids.model.fields import check_real

if TYPE_CHECKING:
    from torch import Generator, Tensor

_KERNEL_DEVIATIONS = 4
"""Deviations of a smoothing kernel after which it is cut off."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How far clips are changed; all zero for not at all.

    Attributes
    ----------
    max_rotation_deg : about each axis, drawn uniformly from both directions.
    max_scaling : along each axis, as a share of the size, drawn uniformly from both directions.
    noise_sd : deviation of Gaussian noise, in the clip's units (z-scores).
    noise_probability : share of the clips that get noise.
    max_smoothing_voxels : deviation of the Gaussian kernel along each axis, drawn uniformly from 0.
    smoothing_probability : share of the clips that are smoothed.
    """

    max_rotation_deg: float = 10.0
    max_scaling: float = 0.1
    noise_sd: float = 0.1
    noise_probability: float = 0.3
    max_smoothing_voxels: float = 0.5
    smoothing_probability: float = 0.1

    def __post_init__(self) -> None:
        for name, high in (
            ("max_rotation_deg", 180.0),
            ("max_scaling", 0.9),
            ("noise_sd", 1e6),
            ("noise_probability", 1.0),
            ("max_smoothing_voxels", 16.0),
            ("smoothing_probability", 1.0),
        ):
            check_real(self, name, low=0.0, high=high)


@torch.no_grad()
def augment_clips(
    clips: Tensor,
    *,
    config: AugmentConfig,
    generator: Generator,
    voxel_size_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Turn, scale, smooth and add noise, differently for each clip and alike for its volumes.

    Parameters
    ----------
    clips : Tensor, shape (B, C, X, Y, Z, T); not changed.
    config : how far.
    generator : source of randomness.
    voxel_size_mm : along X, Y, Z; only their ratios matter, so that rotation keeps shapes.

    Returns
    -------
    Tensor, shape (B, C, X, Y, Z, T); what was outside the grid before is the clip's minimum.
    """
    n_clips, device = len(clips), clips.device

    def draw(*shape: int) -> Tensor:
        return torch.rand(n_clips, *shape, generator=generator, device=generator.device).to(device)

    angles = torch.deg2rad((2 * draw(3) - 1) * config.max_rotation_deg)
    scales = 1 + (2 * draw(3) - 1) * config.max_scaling
    matrices = rotate(angles) @ torch.diag_embed(1 / scales)
    clips = transform_clips(clips, matrices, voxel_size_mm=voxel_size_mm)

    is_smoothed = draw(1) < config.smoothing_probability
    clips = smooth_clips(clips, draw(3) * config.max_smoothing_voxels * is_smoothed)

    has_noise = draw(1, 1, 1, 1, 1) < config.noise_probability
    noise = torch.randn(
        (*clips.shape[:5], 1), generator=generator, device=generator.device, dtype=clips.dtype
    )
    return clips + noise.to(device) * (config.noise_sd * has_noise).to(clips.dtype)


def transform_clips(
    clips: Tensor, matrices: Tensor, *, voxel_size_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> Tensor:
    """Resample clips about the centre of their grid, trilinearly, all volumes of one alike.

    Parameters
    ----------
    clips : Tensor, shape (B, C, X, Y, Z, T)
    matrices : Tensor, shape (B, 3, 3), from a place in the result to where it is read in the clip,
        in mm along X, Y, Z from the centre.
    voxel_size_mm : along X, Y, Z.

    Returns
    -------
    Tensor, shape (B, C, X, Y, Z, T); places read from outside the grid are the clip's minimum.
    """
    n_clips, chans, size_x, size_y, size_z, n_volumes = clips.shape
    lowest = clips.flatten(1).amin(1).view(-1, 1, 1, 1, 1)
    volumes = clips.permute(0, 1, 5, 2, 3, 4).flatten(1, 2)  # (B, C * T, X, Y, Z)
    half_mm = torch.tensor(
        [size * mm / 2 for size, mm in zip((size_x, size_y, size_z), voxel_size_mm, strict=True)],
        device=clips.device,
    )
    to_unit = matrices * half_mm / half_mm.unsqueeze(1)  # from and to -1 … 1 across the grid
    theta = functional.pad(to_unit.flip(1, 2), (0, 1)).to(clips.dtype)  # grid_sample: Z, Y, X
    places = functional.affine_grid(
        theta, [n_clips, 1, size_x, size_y, size_z], align_corners=False
    )
    moved = functional.grid_sample(volumes - lowest, places, align_corners=False) + lowest
    moved = moved.reshape(n_clips, chans, n_volumes, size_x, size_y, size_z)
    return moved.movedim(2, -1).contiguous()


def rotate(angles: Tensor) -> Tensor:
    """Return the matrices (B, 3, 3) that turn about X, then Y, then Z by angles (B, 3) in rad."""
    cos, sin = angles.cos(), angles.sin()
    turned = torch.eye(3, device=angles.device, dtype=angles.dtype).expand(len(angles), 3, 3)
    for axis in range(3):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn = torch.eye(3, device=angles.device, dtype=angles.dtype).repeat(len(angles), 1, 1)
        turn[:, first, first] = turn[:, second, second] = cos[:, axis]
        turn[:, first, second] = -sin[:, axis]
        turn[:, second, first] = sin[:, axis]
        turned = turn @ turned
    return turned


def smooth_clips(clips: Tensor, sd_voxels: Tensor) -> Tensor:
    """Smooth each volume with a Gaussian kernel; beyond the grid its edge goes on.

    Parameters
    ----------
    clips : Tensor, shape (B, C, X, Y, Z, T)
    sd_voxels : Tensor, shape (B, 3), deviation of the kernel along X, Y, Z; 0 for none.
    """
    chosen = sd_voxels.amax(1) > 0
    if not bool(chosen.any()):
        return clips
    smoothed = clips[chosen]
    reach = math.ceil(_KERNEL_DEVIATIONS * float(sd_voxels.max()))
    offsets = torch.arange(-reach, reach + 1, device=clips.device)
    for axis in range(3):
        sd = sd_voxels[chosen, axis].clamp(min=1e-3).unsqueeze(1)
        kernel = torch.softmax(-0.5 * (offsets / sd).square(), dim=1).to(clips.dtype)  # (b, taps)
        size = clips.shape[2 + axis]
        reads = (torch.arange(size, device=clips.device) + offsets.unsqueeze(1)).clamp(0, size - 1)
        parts = (
            smoothed.index_select(2 + axis, read) * weight.view(-1, 1, 1, 1, 1, 1)
            for read, weight in zip(reads, kernel.unbind(1), strict=True)
        )
        smoothed = sum(parts, start=torch.zeros_like(smoothed))
    return clips.index_put((chosen.nonzero()[:, 0],), smoothed)

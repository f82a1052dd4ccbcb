"""The embedding of patches in C: voxels are read where they lie in the clip, and once."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neurostorm_bids.kernels.packing import run_packed

if TYPE_CHECKING:
    from torch import Tensor

_POINTERS = ("from", "to", "weight", "bias", "offsets", "starts", "packed")
_SIZES = ("n_rows", "n_patches", "n_volumes", "patch_step", "n_features", "dim", "next")


class _Job(ctypes.Structure):
    """``ns_patches`` of ``kernels.h``, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in _SIZES),
    )


def embed_patches_c(
    clips: Tensor, weight: Tensor, bias: Tensor, *, patch: tuple[int, int, int]
) -> Tensor:
    """Map each patch of each volume linearly to a token; the clips get no gradient.

    Parameters
    ----------
    clips : Tensor of float32, shape (B, C, X, Y, Z, T)
    weight : Tensor, shape (dim, px * py * pz * C); the voxels' x runs slowest, the channel fastest.
    bias : Tensor, shape (dim,)
    patch : voxels along X, Y and Z; each divides its axis.

    Returns
    -------
    Tensor, shape (B, X / px, Y / py, Z / pz, T, dim)

    Raises
    ------
    MissingFileError
        When the library was not built.
    ValueError
        When shapes do not fit together.
    """
    _check_shapes(clips, weight, bias, patch)
    embedded: Tensor = _Embed.apply(clips, weight, bias, patch)  # type: ignore[no-untyped-call]
    return embedded


class _Embed(Function):
    """The embedding with the gradient of its weights, which keeps the clips only."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        clips: Tensor,
        weight: Tensor,
        bias: Tensor,
        patch: tuple[int, int, int],
    ) -> Tensor:
        """Return the tokens (B, X', Y', Z', T, dim)."""
        ctx.patch = patch
        ctx.save_for_backward(clips)
        return _embed(clips, weight, bias, patch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return the gradients of weight and bias, slab by slab of patches along X."""
        (clips,) = ctx.saved_tensors
        px, py, pz = ctx.patch
        n, n_channels, _, size_y, size_z, n_volumes = clips.shape
        dim = grad.shape[-1]
        grad_weight = grad.new_zeros(clips.shape[1] * px * py * pz, dim)
        for number, slab in enumerate(torch.split(clips, px, dim=2)):
            voxels = slab.reshape(n, n_channels, px, size_y // py, py, size_z // pz, pz, n_volumes)
            voxels = voxels.permute(2, 4, 6, 1, 0, 3, 5, 7)  # (px, py, pz, C, B, Y', Z', T)
            part = grad[:, number].reshape(-1, dim)
            grad_weight.addmm_(voxels.reshape(len(grad_weight), -1), part)
        return None, grad_weight.t(), grad.flatten(0, -2).sum(0), None


def _embed(clips: Tensor, weight: Tensor, bias: Tensor, patch: tuple[int, int, int]) -> Tensor:
    clips = clips.contiguous()
    n, n_channels, *grid, n_volumes = clips.shape
    counts = [axis // side for axis, side in zip(grid, patch, strict=True)]
    to = torch.empty((n, *counts, n_volumes, len(weight)), dtype=torch.float32)
    px, py, pz = patch
    strides = (clips.stride(1), *clips.stride()[2:5])
    tensors = {
        "from": clips,
        "to": to,
        "weight": weight.contiguous(),
        "bias": bias.contiguous(),
        # Places in the clips: a patch's voxels as seen from its first; where rows of patches begin.
        "offsets": _count_places((px, py, pz, n_channels), (*strides[1:], strides[0])),
        "starts": _count_places(
            (n, *counts[:2]), (clips[0].numel(), px * strides[1], py * strides[2])
        ),
    }
    job = _Job(
        n_rows=n * counts[0] * counts[1],
        n_patches=counts[2],
        n_volumes=n_volumes,
        patch_step=pz * n_volumes,
        n_features=weight.shape[1],
        dim=len(weight),
    )
    run_packed("patches_forward", job, tensors, n_parts=job.n_rows)
    return to


def _count_places(counts: tuple[int, ...], steps: tuple[int, ...]) -> Tensor:
    """Return where the parts of a grid lie in memory, by how far they are apart along each axis."""
    places = torch.zeros((), dtype=torch.int64)
    for count, step in zip(counts, steps, strict=True):
        places = places.unsqueeze(-1) + torch.arange(count) * step
    return places


def _check_shapes(clips: Tensor, weight: Tensor, bias: Tensor, patch: tuple[int, int, int]) -> None:
    """Let nothing reach C that would be read past its end."""
    n_features = clips.shape[1] * patch[0] * patch[1] * patch[2]
    if tuple(weight.shape) != (len(bias), n_features):
        raise ValueError(
            f"Expected weights of shape {(len(bias), n_features)}, found {tuple(weight.shape)}"
        )
    if any(axis % side for axis, side in zip(clips.shape[2:5], patch, strict=True)):
        raise ValueError(f"Expected patches of {patch} to fill {tuple(clips.shape[2:5])}")
    if any(part.dtype != torch.float32 or not part.is_cpu for part in (clips, weight, bias)):
        raise ValueError("Expected clips, weights and bias to be float32 on the CPU")

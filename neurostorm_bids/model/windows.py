"""Windows of a 4D feature map: the short sequences that the scan runs over."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from neurostorm_bids.model.config import Size4


def fit_window(grid: Sequence[int], window: Size4, *, shifted: bool) -> tuple[Size4, Size4]:
    """Return the window and the shift that a feature map of this size gets.

    On an axis no longer than the window, the window shrinks to the axis and does not shift.

    Parameters
    ----------
    grid : patches along X, Y, Z, T.
    window : sides along X, Y, Z, T, in patches.
    shifted : whether windows move by half a window.
    """
    sizes = [min(side, axis) for side, axis in zip(window, grid, strict=True)]
    shifts = [
        side // 2 if shifted and axis > side else 0 for side, axis in zip(window, grid, strict=True)
    ]
    return _four(sizes), _four(shifts)


def pad_to_windows(x: Tensor, window: Size4) -> Tensor:
    """Append zeros at the far end of each axis, up to the next multiple of the window.

    Parameters
    ----------
    x : Tensor, shape (B, X, Y, Z, T, C)
    window : sides along X, Y, Z, T, in patches.
    """
    x_end, y_end, z_end, t_end = (
        -axis % side for axis, side in zip(x.shape[1:5], window, strict=True)
    )
    return functional.pad(x, (0, 0, 0, t_end, 0, z_end, 0, y_end, 0, x_end))


def shift(x: Tensor, steps: Size4) -> Tensor:
    """Move a feature map (B, X, Y, Z, T, C) towards the origin; what leaves comes in at the end.

    Negative steps move it back.
    """
    if not any(steps):
        return x
    return torch.roll(x, [-step for step in steps], dims=(1, 2, 3, 4))


def partition_windows(x: Tensor, window: Size4) -> Tensor:
    """Cut a 4D feature map into windows that do not overlap.

    Parameters
    ----------
    x : Tensor, shape (B, X, Y, Z, T, C)
    window : sides along X, Y, Z, T, in patches; each divides its axis.

    Returns
    -------
    Tensor, shape (B * n_windows, prod(window), C); T runs fastest, over windows and within them.
    """
    n_x, n_y, n_z, n_t = _count_windows(x.shape[1:5], window)
    w_x, w_y, w_z, w_t = window
    x = x.reshape(len(x), n_x, w_x, n_y, w_y, n_z, w_z, n_t, w_t, x.shape[-1])
    x = x.permute(0, 1, 3, 5, 7, 2, 4, 6, 8, 9)  # (B, nX, nY, nZ, nT, wX, wY, wZ, wT, C)
    return x.flatten(5, 8).flatten(0, 4)


def merge_windows(windows: Tensor, window: Size4, *, grid: Sequence[int]) -> Tensor:
    """Undo `partition_windows`.

    Parameters
    ----------
    windows : Tensor, shape (B * n_windows, prod(window), C)
    window : sides along X, Y, Z, T, in patches.
    grid : sizes X, Y, Z, T of the feature map; multiples of the window.

    Returns
    -------
    Tensor, shape (B, X, Y, Z, T, C)
    """
    x = windows.reshape(-1, *_count_windows(grid, window), *window, windows.shape[-1])
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4, 8, 9)  # (B, nX, wX, nY, wY, nZ, wZ, nT, wT, C)
    return x.flatten(7, 8).flatten(5, 6).flatten(3, 4).flatten(1, 2)


def cut_windows(x: Tensor, window: Size4, steps: Size4) -> Tensor:
    """Pad, shift and partition a feature map (B, X, Y, Z, T, C) -> (B * n_windows, N, C)."""
    return partition_windows(shift(pad_to_windows(x, window), steps), window)


def join_windows(windows: Tensor, window: Size4, steps: Size4, *, grid: Sequence[int]) -> Tensor:
    """Undo `cut_windows`: merge, shift back and drop the padding.

    `grid` is the feature map's X, Y, Z, T, before padding.
    """
    padded = [axis + -axis % side for axis, side in zip(grid, window, strict=True)]
    x = merge_windows(windows, window, grid=padded)
    x = shift(x, _four([-step for step in steps]))
    size_x, size_y, size_z, size_t = grid
    return x[:, :size_x, :size_y, :size_z, :size_t]


def index_windows(
    shape: Sequence[int], window: Size4, steps: Size4, *, device: torch.device
) -> Tensor:
    """Say which token stands where after `cut_windows`.

    Parameters
    ----------
    shape : sizes B, X, Y, Z, T of the feature map.
    window, steps : as in `cut_windows`.

    Returns
    -------
    Tensor of int64, shape (B * n_windows, N) : positions in the flattened (B * X * Y * Z * T)
    tokens; -1 where a window holds padding. It is remembered: nobody may write to it.
    """
    sizes = tuple(shape)
    if device.type == "cuda":  # where many small operations take longer than a block
        return _keep_index(sizes, window, steps, device)
    index = _keep_index((1, *sizes[1:]), window, steps, device)
    if sizes[0] == 1:
        return index
    firsts = torch.arange(sizes[0], device=device).view(-1, 1, 1) * math.prod(sizes[1:])
    return torch.where(index < 0, index, index + firsts).flatten(0, 1)


@functools.lru_cache(maxsize=64)
def _keep_index(
    sizes: tuple[int, ...], window: Size4, steps: Size4, device: torch.device
) -> Tensor:
    with torch.inference_mode(mode=False):  # or nothing that needs a gradient could use it later
        return _make_index(sizes, window, steps, device)


def _make_index(
    sizes: tuple[int, ...], window: Size4, steps: Size4, device: torch.device
) -> Tensor:
    count = torch.Size(sizes).numel()
    positions = torch.arange(1, count + 1, device=device).view(*sizes, 1)
    return cut_windows(positions, window, steps).squeeze(-1) - 1


def _count_windows(grid: Sequence[int], window: Size4) -> Size4:
    return _four([axis // side for axis, side in zip(grid, window, strict=True)])


def _four(sizes: Sequence[int]) -> Size4:
    x, y, z, t = sizes
    return x, y, z, t

"""Which tokens the autoencoder does not see: give each token a unit, draw units, mask them whole.

Token grids are (X', Y', Z', T').
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import torch

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.model.fields import check_choice

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from neurostorm_bids.model.config import Size4

SPACES = ("random", "window", "atlas")
TIMES = ("random", "tube")


@dataclass(frozen=True, kw_only=True)
class MaskScheme:
    """What is masked as a whole.

    Attributes
    ----------
    space : single positions, the windows of the first stage, or the regions of an atlas.
    time : a part of the clip (one volume for positions, else a window of time), or all of it.
    """

    space: Literal["random", "window", "atlas"]
    time: Literal["random", "tube"]

    def __post_init__(self) -> None:
        check_choice(self, "space", SPACES)
        check_choice(self, "time", TIMES)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a scheme as it is written on the command line: ``space/time``."""
        names = {f"{space}/{time}": (space, time) for space in SPACES for time in TIMES}
        if text not in names:
            raise UsageError(
                f"Expected one of {', '.join(names)} as mask, found {text!r}. Choose one of these."
            )
        space, time = text.split("/")
        return cls(space=space, time=time)  # type: ignore[arg-type]  # checked above

    def __str__(self) -> str:
        return f"{self.space}/{self.time}"


def check_scheme(text: object) -> None:
    """Raise `DataError` unless a file's mask is one that `MaskScheme.parse` reads, or None."""
    names = [f"{space}/{time}" for space in SPACES for time in TIMES]
    if text is not None and text not in names:
        raise DataError(
            f"Expected one of {', '.join(names)} as mask of a pretrained model, found {text!r:.80}."
        )


def number_units(
    scheme: MaskScheme, grid: Size4, *, window: Size4, regions: Tensor | None = None
) -> Tensor:
    """Give each token the number of the unit it is masked with.

    Parameters
    ----------
    scheme : what a unit is.
    grid : tokens along X, Y, Z, T.
    window : sides along X, Y, Z, T, in tokens; windows at the far end may be cut by the grid. Of a
        region masked for a part of the clip, a unit spans the last of these sides.
    regions : Tensor of integers, shape (X', Y', Z'), for the atlas schemes: the region of each
        token, in any numbers from 0; negative where there is none, the background.

    Returns
    -------
    Tensor of int64, shape (X', Y', Z', T') : units 0, 1, …, each with at least one token; -1 for
    tokens that are never masked.

    Raises
    ------
    UsageError
        If regions are missing, not asked for, all background, or on another grid.
    """
    _check_regions(scheme, grid, regions)
    if regions is not None:
        found, places = torch.unique(regions.long().clamp(min=-1), return_inverse=True)
        places = places - int(found[0] < 0)
    elif scheme.space == "window":
        places = _number_blocks(grid[:3], window[:3])
    else:
        places = _number_blocks(grid[:3], (1, 1, 1))
    length = grid[3] if scheme.time == "tube" else 1 if scheme.space == "random" else window[3]
    times = _number_blocks(grid[3:], (length,)).to(places.device)
    units = places.unsqueeze(-1) * (times[-1] + 1) + times
    return torch.where(places.unsqueeze(-1) < 0, -1, units)


def draw_mask(units: Tensor, *, ratio: float, n_clips: int, generator: Generator) -> Tensor:
    """Draw units for each clip by itself, and mask all of their tokens.

    Parameters
    ----------
    units : Tensor of int64, shape (X', Y', Z', T'), from `number_units`.
    ratio : share of the units to mask, between 0 and 1; rounded to whole units, of which one at
        least is masked and one is not. Where units differ in size, as regions do, the share of the
        tokens varies around it.
    n_clips : clips to draw for.
    generator : source of randomness; the same state gives the same mask on every device of `units`.

    Returns
    -------
    Tensor of bool, shape (n_clips, X', Y', Z', T'), on the device of `units` : True where masked.

    Raises
    ------
    UsageError
        If the ratio is not between 0 and 1, or there are fewer than two units.
    """
    n_units = int(units.max()) + 1
    if not 0 < ratio < 1 or n_units < 2:  # noqa: PLR2004
        raise UsageError(
            f"Expected a mask ratio between 0 and 1 of two or more units, found {ratio} of "
            f"{n_units}. Give another ratio or, where units are too few, another mask or atlas."
        )
    n_drawn = min(max(1, round(ratio * n_units)), n_units - 1)
    keys = torch.rand(n_clips, n_units, generator=generator, device=generator.device)
    drawn = keys.topk(n_drawn).indices
    is_drawn = torch.zeros(n_clips, n_units + 1, dtype=torch.bool, device=drawn.device)
    is_drawn.scatter_(1, drawn, value=True)
    return is_drawn.to(units.device)[:, units]  # unit -1 reads the last column, never drawn


def index_in_window(grid: Size4, window: Size4) -> Tensor:
    """Give each token its place within its window, T fastest.

    Returns
    -------
    Tensor of int64, shape (X', Y', Z', T') : 0 … prod(window) - 1.
    """
    index = torch.zeros((), dtype=torch.int64)
    for axis, side in zip(grid, window, strict=True):
        index = index.unsqueeze(-1) * side + torch.arange(axis) % side
    return index


def _number_blocks(grid: tuple[int, ...], block: tuple[int, ...]) -> Tensor:
    """Return the number of the block that each position lies in, the last axis fastest."""
    numbers = torch.zeros((), dtype=torch.int64)
    for axis, side in zip(grid, block, strict=True):
        numbers = numbers.unsqueeze(-1) * -(-axis // side) + torch.arange(axis) // side
    return numbers


def _check_regions(scheme: MaskScheme, grid: Size4, regions: Tensor | None) -> None:
    if (scheme.space == "atlas") != (regions is not None):
        raise UsageError(
            f"The mask {scheme} {'needs' if regions is None else 'takes no'} regions. "
            "Give an atlas with the atlas schemes, and with these alone."
        )
    if regions is None:
        return
    if tuple(regions.shape) != grid[:3]:
        raise UsageError(
            f"Expected regions on the token grid {grid[:3]}, found {tuple(regions.shape)}. "
            "Bring the atlas onto the model's grid first."
        )
    if not bool((regions >= 0).any()):
        raise UsageError(
            "No token belongs to a region of the atlas. Check that the atlas covers the model's "
            "field of view, and that its space is the model's."
        )

"""A clip as the store has it, with what restores it: much smaller than the clip itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from neurostorm_bids.grid.normalise import Statistics
    from neurostorm_bids.grid.quantise import Codes, Quantisation
    from neurostorm_bids.grid.spec import Size3


class StoredClip(NamedTuple):
    """Some source volumes in 8 or 16 bits, and how they make T volumes of the model's clock.

    Attributes
    ----------
    codes : shape (V, n_brain).
    quantisation : what they stand for.
    mask_bits : uint8; the grid's voxels, eight to a byte, the first in the highest bit.
    shape : of the grid.
    before, after : int64, shape (T,); which two of the V volumes make a volume.
    weight : float32, shape (T,); of the second.
    statistics : of the run's z-score.
    clip_negatives : whether negative values count as 0.
    """

    codes: NDArray[Codes]
    quantisation: Quantisation
    mask_bits: NDArray[np.uint8]
    shape: Size3
    before: NDArray[np.intp]
    after: NDArray[np.intp]
    weight: NDArray[np.float32]
    statistics: Statistics
    clip_negatives: bool

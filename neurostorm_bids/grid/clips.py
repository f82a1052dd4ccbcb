"""A series into clips, and how much each clip counts for the run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import numpy as np

from neurostorm_bids.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from neurostorm_bids.grid.series import Series


class ClipReader:
    """Reads clips of a series for a network, and meanwhile those that come next.

    To be used in a ``with`` statement.

    Parameters
    ----------
    starts : first volumes of all clips, in the order in which they will be asked for.
    length : volumes of a clip.
    n_threads : that read ahead; 0 to read when asked only.
    """

    def __init__(
        self, series: Series, starts: Sequence[int], *, length: int, n_threads: int
    ) -> None:
        self._series, self._starts, self._length = series, starts, length
        self._pool = ThreadPoolExecutor(n_threads) if n_threads else None
        self._ahead: dict[int, Future[NDArray[np.float32]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def read(self, starts: Sequence[int]) -> NDArray[np.float32]:
        """Read some clips, and begin with as many of those after them.

        Returns
        -------
        float32, shape (K, X, Y, Z, length)
        """
        clips = [self._take(start) for start in starts]
        joined = clips[0][None] if len(clips) == 1 else np.stack(clips)
        del clips
        if self._pool is not None:
            after = self._starts.index(starts[-1]) + 1
            for start in self._starts[after : after + len(starts)]:
                if start not in self._ahead:
                    self._ahead[start] = self._pool.submit(
                        self._series.read_clip, start, self._length
                    )
        return joined

    def _take(self, start: int) -> NDArray[np.float32]:
        ahead = self._ahead.pop(start, None)
        return self._series.read_clip(start, self._length) if ahead is None else ahead.result()


def find_clip_starts(n_volumes: int, clip_length: int) -> list[int]:
    """Find where clips begin, so that together they show every volume of a run.

    Clips stand back to back; where volumes are left over, one more clip ends at the last volume
    and overlaps the clip before it. A run shorter than a clip gives one clip from 0, for which
    `Series.read_clip` pads.

    Parameters
    ----------
    n_volumes, clip_length : volumes on the model's clock.
    """
    if n_volumes < 1 or clip_length < 1:
        raise UsageError(
            "Clips need at least one volume per run and per clip; "
            f"found a run of {n_volumes} and clips of {clip_length}."
        )
    starts = list(range(0, n_volumes - clip_length + 1, clip_length)) or [0]
    if n_volumes > clip_length and starts[-1] + clip_length < n_volumes:
        starts.append(n_volumes - clip_length)
    return starts


def weigh_clips(starts: Sequence[int], clip_length: int, n_volumes: int) -> NDArray[np.float64]:
    """Weigh clips so that each volume of the run counts once.

    A volume that several clips show is shared between them in equal parts; volumes that pad a
    short run count for nothing.

    Parameters
    ----------
    starts : first volume of each clip, within the run.
    clip_length, n_volumes : volumes on the model's clock.

    Returns
    -------
    float64, shape (n_clips,); the sum is 1.
    """
    if not starts or min(starts) < 0 or max(starts) >= n_volumes or clip_length < 1:
        raise UsageError(
            f"Clips begin inside the run and have at least one volume; found starts {starts}, "
            f"clips of {clip_length} in a run of {n_volumes}. Use find_clip_starts."
        )
    n_showing = np.zeros(n_volumes)
    for start in starts:
        n_showing[start : start + clip_length] += 1
    shares = np.divide(1.0, n_showing, out=np.zeros(n_volumes), where=n_showing > 0)
    weights = np.array([shares[start : start + clip_length].sum() for start in starts])
    weights /= weights.sum()
    return weights

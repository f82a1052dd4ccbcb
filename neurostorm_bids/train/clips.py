"""Samples into batches: clips are read ahead by threads and joined when a device asks for them."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from neurostorm_bids.train.restore import restore_clip

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from neurostorm_bids.grid.storedclip import StoredClip
    from neurostorm_bids.train.sampling import Sample, SampleOrder


class ClipSource(Protocol):
    """A run that clips can be read from."""

    def read_clip(self, start: int, length: int) -> NDArray[np.float32]:
        """Read consecutive volumes: float32, shape (X, Y, Z, length)."""

    def read_stored_clip(self, start: int, length: int) -> StoredClip:
        """Read the same as it is stored."""


class LoadedSample(NamedTuple):
    """A sample with its clips in memory: each of shape (1, X, Y, Z, T), or as they are stored."""

    sample: Sample
    clips: tuple[Tensor, ...] | tuple[StoredClip, ...]


class Batch(NamedTuple):
    """Samples that a device works on at once.

    Attributes
    ----------
    samples : what they show, and their sources of randomness.
    clips : as many tensors as a sample has clips, each of shape (B, 1, X, Y, Z, T).
    """

    samples: tuple[Sample, ...]
    clips: tuple[Tensor, ...]

    @classmethod
    def join(cls, loaded: Sequence[LoadedSample], device: torch.device) -> Batch:
        """Stack samples, on a device; what comes as it is stored is restored there."""
        views = zip(*(one.clips for one in loaded), strict=True)
        clips = tuple(_join_clips(view, device) for view in views)
        return cls(tuple(one.sample for one in loaded), clips)


def _join_clips(clips: tuple[Tensor, ...] | tuple[StoredClip, ...], device: torch.device) -> Tensor:
    """Stack clips on a device: (B, 1, X, Y, Z, T)."""
    if isinstance(clips[0], Tensor):
        return torch.stack(clips).to(device)
    joined = torch.empty((len(clips), 1, *clips[0].shape, len(clips[0].weight)), device=device)
    for place, clip in zip(joined, clips, strict=True):
        place[0] = restore_clip(clip, device)
    return joined


class ClipDataset:
    """Samples in an order, and how their clips are read.

    Parameters
    ----------
    order : which clips, when.
    clip_length : volumes of a clip.
    open_run : gives the run that is stored at a path; called once for each sample.
    """

    def __init__(
        self, order: SampleOrder, *, clip_length: int, open_run: Callable[[Path], ClipSource]
    ) -> None:
        self.order = order
        self._clip_length, self._open_run = clip_length, open_run

    def load(self, sample: Sample, *, as_stored: bool = False) -> LoadedSample:
        """Read the clips of a sample; `as_stored` leaves it to `Batch.join` to restore them."""
        run = self._open_run(sample.run.path)
        if as_stored:
            return LoadedSample(
                sample, tuple(run.read_stored_clip(at, self._clip_length) for at in sample.starts)
            )
        clips = (run.read_clip(start, self._clip_length) for start in sample.starts)
        return LoadedSample(sample, tuple(torch.from_numpy(clip).unsqueeze(0) for clip in clips))

    def stream(
        self, positions: Iterable[int], *, workers: int, as_stored: bool = False
    ) -> Generator[LoadedSample, None, None]:
        """Load the samples at these positions in turn, with up to `workers` more ahead.

        See `load`. They are read by threads: most of the work is NumPy's, which lets others run.
        """
        ahead: deque[Future[LoadedSample]] = deque()
        with ThreadPoolExecutor(workers, thread_name_prefix="read-clips") as pool:
            try:
                for position in positions:
                    sample = self.order[position]
                    ahead.append(pool.submit(self.load, sample, as_stored=as_stored))
                    if len(ahead) > workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

"""Samples into batches: clips are read ahead by threads and joined when a device asks for them."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from neurostorm_bids.train.sampling import Sample, SampleOrder


class ClipSource(Protocol):
    """A run that clips can be read from."""

    def read_clip(self, start: int, length: int) -> NDArray[np.float32]:
        """Read consecutive volumes: float32, shape (X, Y, Z, length)."""


class LoadedSample(NamedTuple):
    """A sample with its clips, each of shape (1, X, Y, Z, T), in memory."""

    sample: Sample
    clips: tuple[Tensor, ...]


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
        """Stack samples, on a device."""
        views = zip(*(one.clips for one in loaded), strict=True)
        clips = tuple(torch.stack(view).to(device) for view in views)
        return cls(tuple(one.sample for one in loaded), clips)


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

    def load(self, sample: Sample) -> LoadedSample:
        """Read the clips of a sample."""
        run = self._open_run(sample.run.path)
        clips = (run.read_clip(start, self._clip_length) for start in sample.starts)
        return LoadedSample(sample, tuple(torch.from_numpy(clip).unsqueeze(0) for clip in clips))

    def stream(
        self, positions: Iterable[int], *, workers: int
    ) -> Generator[LoadedSample, None, None]:
        """Load the samples at these positions in turn, with up to `workers` more ahead.

        They are read by threads: most of the work is NumPy's, which lets other threads run.
        """
        ahead: deque[Future[LoadedSample]] = deque()
        with ThreadPoolExecutor(workers, thread_name_prefix="read-clips") as pool:
            try:
                for position in positions:
                    ahead.append(pool.submit(self.load, self.order[position]))
                    if len(ahead) > workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

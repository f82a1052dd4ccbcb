"""Several items at once, and fewer where memory does not hold them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

import torch

from neurostorm_bids.errors import TemporaryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

CUDA_BATCH_SIZE = 16
"""Clips at once on a GPU when the batch size is ``"auto"``; halved as often as memory asks."""


def choose_batch_size(batch_size: int | None, device: torch.device) -> int:
    """Return how many clips to run at once: as asked, else one on a CPU."""
    return batch_size or (CUDA_BATCH_SIZE if device.type == "cuda" else 1)


def shrink_batch(size: int, device: torch.device, err: torch.OutOfMemoryError) -> int:
    """Return half as many clips at once; raise `TemporaryError` where it was one already."""
    if size == 1:
        raise TemporaryError(
            f"One clip does not fit into the memory of {device}. Free memory there, or take "
            "--device cpu."
        ) from err
    logger.info("Out of memory on %s: going on with %d clips at once", device, size // 2)
    torch.cuda.empty_cache()
    return size // 2


def work_in_batches(
    work: Callable[[Sequence[Item]], Result],
    items: Sequence[Item],
    *,
    device: torch.device,
    batch_size: int | None = None,
    tell: Callable[[int], object] = lambda _: None,
) -> list[Result]:
    """Work on items, several at once; halve their number as often as memory asks.

    Parameters
    ----------
    batch_size : items at once; None chooses (one on a CPU).
    tell : is called with how many items were done since the last call.

    Raises
    ------
    TemporaryError
        When even one item does not fit into the device's memory.
    """
    size = choose_batch_size(batch_size, device)
    results: list[Result] = []
    done = 0
    while done < len(items):
        batch = items[done : done + size]
        try:
            results.append(work(batch))
        except torch.OutOfMemoryError as err:
            size = shrink_batch(size, device, err)
            continue
        done += len(batch)
        tell(len(batch))
    return results

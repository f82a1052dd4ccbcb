"""Participants into tasks: each large one alone, small ones together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

BYTES_PER_TASK = 1_000_000_000
"""BOLD files that are worth starting a process and loading a model for: minutes of work."""
MAX_TASKS = 1000
"""Slurm's own limit of an array is 1001 unless the site has set another."""


def pack_participants(
    sizes: Mapping[str, int], *, participants_per_task: int | None = None
) -> list[tuple[str, ...]]:
    """Spread participants over tasks, in their order.

    Parameters
    ----------
    sizes : bytes of the BOLD files that are still to be read, by participant.
    participants_per_task : None fills each task up to a gigabyte, and further where an array would
        have too many tasks.
    """
    if participants_per_task is not None:
        labels = list(sizes)
        return [
            tuple(labels[start : start + participants_per_task])
            for start in range(0, len(labels), participants_per_task)
        ]
    tasks: list[tuple[str, ...]] = []
    n_at_least = -(-len(sizes) // MAX_TASKS)
    pack: list[str] = []
    n_bytes = 0
    for label, size in sizes.items():
        if pack and n_bytes + size > BYTES_PER_TASK and len(pack) >= n_at_least:
            tasks.append(tuple(pack))
            pack, n_bytes = [], 0
        pack.append(label)
        n_bytes += size
    return [*tasks, tuple(pack)] if pack else tasks

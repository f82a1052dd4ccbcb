"""How much memory runs need, and how many fit into what the user gives."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, NamedTuple

import psutil

from neurostorm_bids.errors import TemporaryError, UserError
from neurostorm_bids.grid.read import open_volumes
from neurostorm_bids.model.batching import CUDA_BATCH_SIZE
from neurostorm_bids.participant.models import load_models
from neurostorm_bids.predict import choose_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neurostorm_bids.inputs import BoldRun
    from neurostorm_bids.options import ParticipantOptions
    from neurostorm_bids.participant.jobs import Job
    from neurostorm_bids.pretrained import Model

logger = logging.getLogger(__name__)

BRAIN_MM3 = 2.2e6
"""A generous brain: the mask of the MNI templates has 1.9e6 mm3."""
FLOAT_BYTES = 4
INTERPOLATION_BYTES = 8 * 12 + 8
"""Per brain voxel: eight neighbours, each with a weight in 8 bytes and an index in 4."""
CLIP_COPIES = 3
"""A clip that is read ahead, the one at work, and as it is normalised in the patch embedding."""
TOKEN_COPIES = 10
"""Memory of the network in units of its first stage's tokens; 8.3 were measured (base model)."""
GRADIENT_COPIES = 160
"""The same where gradients are kept: a training step of the base model was measured at 1.8 GB."""
OVERHEAD_BYTES = 64_000_000
"""Buffers of reading, of the mask and of the tables."""


class MemoryPlan(NamedTuple):
    """What fits.

    Attributes
    ----------
    jobs : those that fit, with the batch sizes they may use.
    n_workers : runs at a time.
    refused : what does not fit, and why.
    looks_ahead : whether a process may read a run while it works on another.
    """

    jobs: list[Job]
    n_workers: int
    refused: list[tuple[Job, TemporaryError]]
    looks_ahead: bool = False


def plan_memory(jobs: Sequence[Job], options: ParticipantOptions) -> MemoryPlan:
    """Choose batch sizes and the number of runs at a time so that all stays within ``--mem``.

    Every process holds what this one holds now, program and models, and its run on top. A run that
    does not fit alone is worked on in smaller batches, and refused where one clip is too much.
    Where there is a CPU to do it, a process that works alone reads the next run ahead, if that fits
    too.
    """
    n_workers = max(1, min(options.runs_at_once, len(jobs)))
    limit = options.memory_bytes
    on_gpu = choose_device(options.device).type == "cuda"
    can_look_ahead = options.threads_per_run > 1 or on_gpu
    if limit is None:
        return MemoryPlan(list(jobs), n_workers, [], can_look_ahead)
    models = load_models(options)
    base = measure_process_bytes()
    gradients = options.attribution == "ig"
    fitting: list[Job] = []
    needs: list[int] = []
    refused: list[tuple[Job, TemporaryError]] = []
    for job in jobs:
        size = options.batch_size or choose_default_batch(options)
        need = base + estimate_run_bytes(job.run, models, batch_size=size, gradients=gradients)
        while need > limit and size > 1:
            size //= 2
            need = base + estimate_run_bytes(job.run, models, batch_size=size, gradients=gradients)
        if need > limit:
            refused.append((job, _refuse(job, need, limit)))
            continue
        if size != (options.batch_size or choose_default_batch(options)):
            logger.info("%s: %d clip(s) at once, to stay within --mem", job.run.label, size)
        fitting.append(job._replace(batch_size=size))
        needs.append(need)
    allowed = count_workers(needs, limit=limit, base=base, wanted=n_workers)
    if allowed < n_workers and fitting:
        logger.info("%d run(s) at a time in place of %d, to stay within --mem", allowed, n_workers)
    looks_ahead = can_look_ahead and (allowed == 1 or on_gpu)
    if looks_ahead and not _fits_ahead(fitting, needs, models, limit=limit):
        looks_ahead = False
        logger.info("No run is read while another is worked on, to stay within --mem")
    return MemoryPlan(fitting, allowed, refused, looks_ahead)


def _fits_ahead(
    jobs: Sequence[Job], needs: Sequence[int], models: Sequence[Model], *, limit: int
) -> bool:
    """Return whether every run fits beside the series of the next."""
    following = [estimate_series_bytes(job.run, models) for job in jobs[1:]]
    return all(need + ahead <= limit for need, ahead in zip(needs, following, strict=False))


def estimate_run_bytes(
    run: BoldRun, models: Sequence[Model], *, batch_size: int, gradients: bool = False
) -> int:
    """Return the most memory that a run needs on top of the program and the models.

    From the header and the grids alone: the series, and the clips and tokens of the network. 0 if
    the header cannot be read: the run will fail by itself and say why.

    Parameters
    ----------
    gradients : whether they are computed too, as for an attribution by integrated gradients.
    """
    n_volumes = _count_volumes(run)
    if n_volumes is None:
        return 0
    n_bytes = 0
    for model in models:
        clip = math.prod(model.grid.shape) * model.clip_length * FLOAT_BYTES
        tokens = math.prod(
            math.ceil(n / p)
            for n, p in zip(model.config.img_size, model.config.patch_size, strict=True)
        )
        copies = GRADIENT_COPIES if gradients else TOKEN_COPIES
        network = tokens * model.config.embed_dim * FLOAT_BYTES * copies
        series = _estimate_series(run, model, n_volumes)
        n_bytes = max(n_bytes, series + batch_size * (CLIP_COPIES * clip + network))
    return n_bytes + OVERHEAD_BYTES


def estimate_series_bytes(run: BoldRun, models: Sequence[Model]) -> int:
    """Return the most memory that it takes to bring a run to one of the models' grids.

    0 if the header cannot be read, as above.
    """
    n_volumes = _count_volumes(run)
    if n_volumes is None:
        return 0
    return OVERHEAD_BYTES + max(_estimate_series(run, model, n_volumes) for model in models)


def _estimate_series(run: BoldRun, model: Model, n_volumes: int) -> int:
    """Count the brain's voxels at every volume of the file, and the interpolation."""
    n_voxels = math.prod(model.grid.shape)
    n_brain = min(n_voxels, math.ceil(BRAIN_MM3 / model.grid.side_mm**3))
    series = n_brain * (n_volumes * FLOAT_BYTES + INTERPOLATION_BYTES)
    # Where confounds are regressed out, the residuals are made beside the series.
    return series if run.cleaning.denoise is None else 2 * series


def _count_volumes(run: BoldRun) -> int | None:
    """Read the volumes of a file from its header; None if it cannot be read."""
    try:
        return open_volumes(run.path, name=run.path.name).n_volumes
    except UserError:
        return None


def count_workers(needs: Sequence[int], *, limit: int, base: int, wanted: int) -> int:
    """Return how many runs may be worked on at a time, whichever they are; one at least.

    Parameters
    ----------
    needs : of each run, in bytes, its process included.
    base : of the process that hands out the runs, which is there besides when there are several.
    wanted : as many as the CPUs allow.
    """
    largest = sorted(needs, reverse=True)
    for n_workers in range(min(wanted, len(largest)), 1, -1):
        if base + sum(largest[:n_workers]) <= limit:
            return n_workers
    return 1


def choose_default_batch(options: ParticipantOptions) -> int:
    """Return how many clips are run at once where the user does not say."""
    return CUDA_BATCH_SIZE if choose_device(options.device).type == "cuda" else 1


def measure_process_bytes() -> int:
    """Return the memory that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def _refuse(job: Job, need: int, limit: int) -> TemporaryError:
    return TemporaryError(
        f"{job.run.path.name} needs about {need / 1e9:.2f} GB even with one clip at once, and "
        f"--mem allows {limit / 1e9:.2f} GB. Allow more, or take a larger machine."
    )

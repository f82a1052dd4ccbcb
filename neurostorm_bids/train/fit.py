"""A training from its parts to its result."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neurostorm_bids.errors import UsageError
from neurostorm_bids.train.files import (
    LAST,
    TRAINING_TABLE,
    VALIDATION_TABLE,
    Progress,
    Row,
    TrainState,
    read_table,
)
from neurostorm_bids.train.interruption import watch_signals
from neurostorm_bids.train.loop import Training
from neurostorm_bids.train.optimise import WeightAverage, checkpoint_activations, make_optimizer
from neurostorm_bids.train.step import Learner

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lightning_fabric import Fabric
    from torch import nn

    from neurostorm_bids.train.clips import ClipDataset
    from neurostorm_bids.train.options import TrainOptions
    from neurostorm_bids.train.sampling import SampleOrder
    from neurostorm_bids.train.step import Objective

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a training came to.

    Attributes
    ----------
    n_steps : updates of the weights that were made.
    n_planned : updates that were asked for; more than were made when patience ended the training.
    best_step, best_loss : of the evaluation with the lowest loss.
    training, validation : rows of the tables, by column.
    micro_batch_size : samples at once on a device, in the end.
    """

    n_steps: int
    n_planned: int
    best_step: int
    best_loss: float
    training: tuple[Row, ...]
    validation: tuple[Row, ...]
    micro_batch_size: int

    def describe_end(self) -> str:
        """Say when and why the training ended."""
        if self.n_steps == self.n_planned:
            return f"It ended after all {self.n_planned} updates."
        n_later = sum(row["step"] > self.best_step for row in self.validation)
        return (
            f"It ended after update {self.n_steps} of {self.n_planned}, for {n_later} evaluations "
            f"in a row were no better than that after update {self.best_step} (--patience)."
        )


def fit(
    fabric: Fabric,
    model: nn.Module,
    objective: Objective,
    *,
    train: ClipDataset,
    validation: ClipDataset,
    options: TrainOptions,
    folder: Path,
    settings: Mapping[str, Any] | None = None,
) -> FitResult:
    """Train a model, or go on with a training that was interrupted.

    Every process of the training calls this, with the same arguments. `model` ends with the last
    weights; those with the lowest validation loss are in `folder`, for `files.read_weights`.

    Parameters
    ----------
    fabric : from `devices.start_fabric`.
    model : in training it is changed in place.
    objective : what for.
    train, validation : what it learns from, and what it is evaluated on; no participant in both.
    options : how.
    folder : where checkpoints and tables are kept. All nodes have to see the same one. If it holds
        the checkpoint of an interrupted training, that one goes on.
    settings : whatever else decides the numbers, ready for JSON: to go on, they must be the same.

    Raises
    ------
    UsageError
        If arguments do not fit together, or `folder` belongs to a training with other settings.
    DataError
        If a loss is not a number; which samples made it is then in ``bad_batch.json``.
    TemporaryError
        If a signal asked for the end, or memory runs out; the same call goes on.
    """
    _check_apart(train.order, validation.order)
    n_steps = options.count_steps(train.order.samples_per_epoch)
    if fabric.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
    numbers = {
        **options.describe_numbers(),
        "n_steps": n_steps,
        "training_data": train.order.fingerprint,
        "validation_data": validation.order.fingerprint,
        **(settings or {}),
    }
    learner, state = _set_up(fabric, model, objective, options=options, numbers=numbers)
    if fabric.broadcast((folder / LAST).exists()):
        state.restore(fabric, folder / LAST)
        if fabric.is_global_zero:
            logger.info("Going on after update %d of %d", state.progress.step, n_steps)
    with watch_signals() as end:
        Training(
            fabric=fabric,
            learner=learner,
            state=state,
            train=train,
            validation=validation,
            options=options,
            n_steps=n_steps,
            folder=folder,
            end=end,
        ).run()
    tables = [tuple(read_table(folder / name)) for name in (TRAINING_TABLE, VALIDATION_TABLE)]
    training_rows, validation_rows = fabric.broadcast(tables)
    return FitResult(
        n_steps=state.progress.step,
        n_planned=n_steps,
        best_step=state.progress.best_step,
        best_loss=state.progress.best_loss,
        training=training_rows,
        validation=validation_rows,
        micro_batch_size=learner.micro_batch_size,
    )


def _set_up(
    fabric: Fabric,
    model: nn.Module,
    objective: Objective,
    *,
    options: TrainOptions,
    numbers: Mapping[str, Any],
) -> tuple[Learner, TrainState]:
    """Hand model and optimizer to Fabric."""
    share = options.find_share(fabric.world_size)
    micro_batch_size = min(options.micro_batch_size or share, share)
    if micro_batch_size * fabric.world_size < objective.min_samples:
        raise UsageError(
            f"The objective needs at least {objective.min_samples} samples at once; found "
            f"{micro_batch_size} on each of {fabric.world_size} device(s). Give a larger batch or "
            "micro-batch."
        )
    if options.activation_checkpointing:
        checkpoint_activations(model)
    wrapped, optimizer = fabric.setup(model, make_optimizer(model, options))
    decay = options.ema_decay
    average = None if decay is None else WeightAverage(model, decay=decay)
    learner = Learner(
        fabric,
        wrapped,
        optimizer=optimizer,
        objective=objective,
        clip_norm=options.clip_norm,
        micro_batch_size=micro_batch_size,
    )
    state = TrainState(
        model=wrapped, optimizer=optimizer, average=average, progress=Progress(), numbers=numbers
    )
    return learner, state


def _check_apart(train: SampleOrder, validation: SampleOrder) -> None:
    both = {run.participant for run in train.runs} & {run.participant for run in validation.runs}
    if both:
        raise UsageError(
            "Expected participants to be trained on or evaluated on, found in both: "
            f"{', '.join(sorted(both))}. Part them with split_participants."
        )

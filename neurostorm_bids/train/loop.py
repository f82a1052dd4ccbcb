"""The training loop."""

from __future__ import annotations

import logging
import math
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NoReturn

from neurostorm_bids.errors import DataError, TemporaryError
from neurostorm_bids.train.devices import end_helper, is_on_any
from neurostorm_bids.train.files import BAD_BATCH, BEST, LAST, write_json
from neurostorm_bids.train.log import TrainingLog
from neurostorm_bids.train.optimise import find_learning_rate

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from lightning_fabric import Fabric

    from neurostorm_bids.train.clips import ClipDataset, LoadedSample
    from neurostorm_bids.train.files import TrainState
    from neurostorm_bids.train.interruption import EndRequest
    from neurostorm_bids.train.options import TrainOptions
    from neurostorm_bids.train.sampling import SampleOrder
    from neurostorm_bids.train.step import Learner

logger = logging.getLogger(__name__)

N_EVALUATIONS = 20


@dataclass(frozen=True, kw_only=True)
class Training:
    """The loop, and what it works with.

    Attributes
    ----------
    fabric : the processes that take part.
    learner : updates the weights.
    state : what a checkpoint holds.
    train, validation : what is learned from, and what is evaluated on.
    options : how.
    n_steps : updates in all.
    folder : for checkpoints and tables.
    end : whether a signal asked for the end.
    """

    fabric: Fabric
    learner: Learner
    state: TrainState
    train: ClipDataset
    validation: ClipDataset
    options: TrainOptions
    n_steps: int
    folder: Path
    end: EndRequest

    def run(self) -> None:
        """Update the weights until all steps are done, or patience is; evaluate on the way."""
        options, progress = self.options, self.state.progress
        if progress.evaluated_step == self.n_steps or self._is_patience_lost():
            return  # it was finished before
        steps = range(progress.step, self.n_steps)
        with self._open_log() as log, closing(self._stream(self.train, steps)) as batches:
            while True:
                if self._is_evaluation_due():
                    self._evaluate(log)
                if progress.step == self.n_steps or self._is_patience_lost():
                    break
                measured = self.learner.learn(next(batches))
                self._check_finite(measured, self.train.order, progress.step)
                rate = find_learning_rate(
                    progress.step,
                    n_steps=self.n_steps,
                    warmup_steps=options.warmup_steps,
                    peak=options.learning_rate,
                )
                self.learner.update(rate)
                progress.step += 1
                if self.state.average is not None:
                    self.state.average.update(progress.step)
                if log is not None:
                    log.add_training({"step": progress.step, **measured, "learning_rate": rate})
                self._end_if_asked()
                if progress.step % options.checkpoint_every == 0:
                    self.state.save(self.fabric, self.folder / LAST)
        self.state.save(self.fabric, self.folder / LAST)

    def _is_patience_lost(self) -> bool:
        """Return whether as many evaluations in a row as there is patience were no better.

        It follows from the checkpoint alone, so that all processes agree, and so does a training
        that goes on from there.
        """
        patience, progress = self.options.patience, self.state.progress
        is_evaluated = progress.evaluated_step == progress.step
        return bool(patience) and is_evaluated and progress.n_without_better >= patience

    def _is_evaluation_due(self) -> bool:
        progress = self.state.progress
        every = self.options.evaluate_every or max(1, self.n_steps // N_EVALUATIONS)
        is_time = progress.step % every == 0 or progress.step == self.n_steps
        return is_time and progress.evaluated_step < progress.step

    def _evaluate(self, log: TrainingLog | None) -> None:
        """Measure the loss on held-out participants, and keep the weights if it is the lowest.

        Before the first update, this says where the training starts from.
        """
        progress, average = self.state.progress, self.state.average
        with nullcontext() if average is None else average.applied():
            means = self._measure_validation()
        self._end_if_asked()
        progress.evaluated_step = progress.step
        is_best = means["loss"] < progress.best_loss
        progress.n_without_better = 0 if is_best else progress.n_without_better + 1
        if is_best:
            progress.best_step, progress.best_loss = progress.step, means["loss"]
            self.state.save(self.fabric, self.folder / BEST)
        if log is not None:
            log.add_validation({"step": progress.step, **means})
            logger.info(
                "Update %d of %d: validation loss %.5g%s",
                progress.step,
                self.n_steps,
                means["loss"],
                ", the lowest so far" if is_best else "",
            )
            if self._is_patience_lost() and progress.step < self.n_steps:
                logger.info(
                    "Ending after update %d of %d: %d evaluations in a row were no better than "
                    "that after update %d",
                    progress.step,
                    self.n_steps,
                    progress.n_without_better,
                    progress.best_step,
                )

    def _measure_validation(self) -> dict[str, float]:
        """Average over the same samples each time; cut short when a signal asks for the end.

        All processes get the numbers of the first, for they decide by them.
        """
        order = self.validation.order
        n_batches = self.options.count_evaluation_batches(order.samples_per_epoch)
        means: dict[str, float] = {}
        with closing(self._stream(self.validation, range(n_batches))) as batches:
            for step, batch in enumerate(batches):
                measured = self.learner.evaluate(batch)
                self._check_finite(measured, order, step)
                for name, value in measured.items():
                    means[name] = means.get(name, 0.0) + value / n_batches
                if is_on_any(self.fabric, value=self.end.is_made):
                    break
        first: dict[str, float] = self.fabric.broadcast(means)
        return first

    def _stream(
        self, dataset: ClipDataset, steps: range
    ) -> Generator[list[LoadedSample], None, None]:
        """Load this process's share of the batch of each step."""
        share = self.options.find_share(self.fabric.world_size)
        rank, batch_size = self.fabric.global_rank, self.options.batch_size
        positions = (
            step * batch_size + rank * share + place for step in steps for place in range(share)
        )
        reading = dataset.stream(
            positions,
            workers=self.options.workers,
            # On a CPU nothing is sent, and the threads that read restore clips ahead.
            as_stored=self.fabric.device.type == "cuda",
        )
        with closing(reading) as samples:
            for _ in steps:
                yield list(islice(samples, share))

    def _open_log(self) -> TrainingLog | nullcontext[None]:
        if not self.fabric.is_global_zero:
            return nullcontext()
        return TrainingLog(
            self.folder,
            progress=self.state.progress,
            n_steps=self.n_steps,
            clips_per_step=self.options.batch_size * self.train.order.clips_per_sample,
        )

    def _end_if_asked(self) -> None:
        """Save and end, if a signal asked any of the processes to."""
        if not is_on_any(self.fabric, value=self.end.is_made):
            return
        self.state.save(self.fabric, self.folder / LAST)
        end_helper(self.fabric)
        raise TemporaryError(
            f"A signal asked the training to end. It is saved after update "
            f"{self.state.progress.step} of {self.n_steps}; the same command goes on from there."
        )

    def _check_finite(self, measured: Mapping[str, float], order: SampleOrder, step: int) -> None:
        if not all(math.isfinite(value) for value in measured.values()):
            self._report_bad_batch(measured, order, step)

    def _report_bad_batch(
        self, measured: Mapping[str, float], order: SampleOrder, step: int
    ) -> NoReturn:
        first = step * self.options.batch_size
        samples = [order[first + place].describe() for place in range(self.options.batch_size)]
        is_training = order is self.train.order
        path = self.folder / BAD_BATCH
        if self.fabric.is_global_zero:
            facts = {
                "part": "training" if is_training else "validation",
                "updates_before": self.state.progress.step,
                "measured": {name: repr(value) for name, value in measured.items()},
                "samples": samples,
            }
            write_json(path, facts)
        self.fabric.barrier()
        end_helper(self.fabric)
        raise DataError(
            f"Expected a finite loss, found {dict(measured)} after {self.state.progress.step} "
            f"updates. The samples behind it are listed in {path}. Look at those runs and leave "
            "bad ones out; or take a lower learning rate, or the precision 32-true."
        )

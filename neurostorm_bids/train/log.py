"""What can be watched while a training runs: tables, TensorBoard, and a progress bar."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from neurostorm_bids.train.files import TRAINING_TABLE, VALIDATION_TABLE, Table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from neurostorm_bids.train.files import Progress

TENSORBOARD = "tensorboard"


class TrainingLog:
    """Rows of the two tables, also to TensorBoard, and a bar of the clips seen; to be entered.

    The tables hold nothing that depends on time, so that they come out the same however often the
    training was interrupted.

    Parameters
    ----------
    folder : what is written into.
    progress : how far the training is; later rows, from a training that was lost, are cut off.
    n_steps, clips_per_step : of the whole training.
    """

    def __init__(
        self, folder: Path, *, progress: Progress, n_steps: int, clips_per_step: int
    ) -> None:
        self._training = Table(folder / TRAINING_TABLE, last_step=progress.step)
        self._validation = Table(folder / VALIDATION_TABLE, last_step=progress.evaluated_step)
        self._events = TensorBoardLogger(
            folder, name="", version=TENSORBOARD, purge_step=progress.step + 1
        )
        self._clips_per_step = clips_per_step
        self._bar = tqdm(
            total=n_steps * clips_per_step,
            initial=progress.step * clips_per_step,
            unit="clip",
            disable=None,
        )
        self._exits = ExitStack()
        self._time = time.perf_counter()

    def __enter__(self) -> Self:
        self._exits.callback(self._events.finalize, "")
        self._exits.enter_context(self._bar)
        self._exits.enter_context(logging_redirect_tqdm([logging.getLogger("neurostorm_bids")]))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exits.close()

    def add_training(self, row: Mapping[str, float]) -> None:
        """Add what an update measured."""
        before, self._time = self._time, time.perf_counter()
        speed = self._clips_per_step / (self._time - before)
        self._training.append(row)
        self._send("training", {**row, "clips_per_s": speed})
        self._bar.set_postfix(loss=f"{row['loss']:.4g}", refresh=False)
        self._bar.update(self._clips_per_step)

    def add_validation(self, row: Mapping[str, float]) -> None:
        """Add what an evaluation measured."""
        self._validation.append(row)
        self._send("validation", row)
        self._time = time.perf_counter()

    def _send(self, group: str, row: Mapping[str, float]) -> None:
        scalars = {f"{group}/{name}": value for name, value in row.items() if name != "step"}
        self._events.log_metrics(scalars, step=int(row["step"]))

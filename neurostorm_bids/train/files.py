"""What a training leaves in its folder: checkpoints, tables of losses, the note of a bad batch."""

from __future__ import annotations

import csv
import json
import os
import pickle
import struct
import zlib
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any

import torch

from neurostorm_bids.errors import DataError, MissingFileError, OutputError, ReadError, UsageError
from neurostorm_bids.train.devices import is_sharded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric
    from torch import Tensor, nn

    from neurostorm_bids.train.optimise import WeightAverage

LAST = "last.ckpt"
BEST = "best.ckpt"
BAD_BATCH = "bad_batch.json"
TRAINING_TABLE = "training.csv"
VALIDATION_TABLE = "validation.csv"

# What PyTorch raises for a file that is damaged or none of its own.
_DAMAGED = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError),
    *(AttributeError, OverflowError, struct.error, zlib.error),
)
_PARTS = ("model", "average", "progress", "numbers")

Row = dict[str, float]


@dataclass
class Progress:
    """How far a training is.

    Attributes
    ----------
    step : updates of the weights so far.
    evaluated_step : after how many of them the latest evaluation was.
    best_step, best_loss : of the evaluation with the lowest loss.
    n_without_better : evaluations since that one.
    """

    step: int = 0
    evaluated_step: int = -1
    best_step: int = -1
    best_loss: float = float("inf")
    n_without_better: int = 0


@dataclass(frozen=True)
class TrainState:
    """All that a training has to find again to go on as if it had never stopped.

    Attributes
    ----------
    model, optimizer : as Fabric set them up.
    average : moving average of the weights, if there is one.
    progress : how far it is.
    numbers : what decides the numbers it computes; only a training with the same may go on from it.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    progress: Progress
    numbers: Mapping[str, Any]

    def save(self, fabric: Fabric, path: Path) -> None:
        """Write a checkpoint whole or not at all; every process has to call this."""
        partial = _name_partial(path)
        contents: dict[str, Any] = {
            "model": self.model,
            "optimizer": self.optimizer,
            "average": {} if self.average is None else self.average.state_dict(),
            "progress": asdict(self.progress),
            "numbers": dict(self.numbers),
        }
        with _explain_write_errors(path):
            if is_sharded(fabric):
                fabric.save(partial, contents)
            elif fabric.is_global_zero:
                # Fabric itself would write by way of the system's folder for temporary files.
                contents["model"] = self.model.state_dict()
                contents["optimizer"] = self.optimizer.state_dict()
                with partial.open("wb") as file:
                    _save(contents, file)
            if fabric.is_global_zero:
                _put_in_place(partial, path)
        fabric.barrier()

    def restore(self, fabric: Fabric, path: Path) -> None:
        """Go back to where a checkpoint was written; every process has to call this.

        Raises
        ------
        UsageError
            If other options or data were in force then.
        DataError
            If the file cannot be read.
        """
        self._check_numbers(_read(path)["numbers"], path)
        try:
            found = fabric.load(
                path, {"model": self.model, "optimizer": self.optimizer}, weights_only=True
            )
            if self.average is not None:
                self.average.load_state_dict(found["average"])
            progress = Progress(**found["progress"])
        except _DAMAGED as err:
            raise _damaged(path, str(err)) from err
        for name, value in asdict(progress).items():
            setattr(self.progress, name, value)

    def _check_numbers(self, then: Mapping[str, Any], path: Path) -> None:
        names = sorted(then.keys() | self.numbers.keys())
        differences = [
            f"{name} was {then.get(name)!r}, now {self.numbers.get(name)!r}"
            for name in names
            if then.get(name) != self.numbers.get(name)
        ]
        if differences:
            raise UsageError(
                f"{path} belongs to a training with other settings: {'; '.join(differences)}. "
                "Give the same settings to go on with it, or another folder to begin anew."
            )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a checkpoint by their names in the model, onto the CPU.

    Where a moving average was kept, it takes the place of the weights that it follows.

    Raises
    ------
    MissingFileError, DataError
        If the checkpoint is not there or cannot be read.
    """
    contents = _read(path)
    weights: dict[str, Tensor] = {**contents["model"], **contents["average"]}
    if not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
        raise _damaged(path, "its weights are no tensors")
    return {name: weight.clone() for name, weight in weights.items()}


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Write a file whole or not at all."""
    partial = _name_partial(path)
    with _explain_write_errors(path):
        partial.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        _put_in_place(partial, path)


class Table:
    """A CSV file of numbers that grows by a row at a time; the first column is ``step``.

    Parameters
    ----------
    path : rows after `last_step` are cut off, as they come from a training that was lost.
    """

    def __init__(self, path: Path, *, last_step: int) -> None:
        self._path = path
        rows = [row for row in read_table(path) if row["step"] <= last_step]
        partial = _name_partial(path)
        with _explain_write_errors(path):
            with partial.open("w", encoding="utf-8", newline="") as file:
                _write_rows(file, rows, header=True)
            _put_in_place(partial, path)
        self._is_empty = not rows

    def append(self, row: Mapping[str, float]) -> None:
        """Add a row."""
        with (
            _explain_write_errors(self._path),
            self._path.open("a", encoding="utf-8", newline="") as file,
        ):
            _write_rows(file, [row], header=self._is_empty)
        self._is_empty = False


def read_table(path: Path) -> list[Row]:
    """Read the rows of a `Table`; a last one that was cut short is left out.

    Raises
    ------
    DataError, ReadError
        If it is damaged otherwise, or cannot be read.
    """
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = [line for line in file if line.endswith("\n")]
        rows = [
            {name: int(text) if name == "step" else float(text) for name, text in row.items()}
            for row in csv.DictReader(lines)
        ]
    except OSError as err:
        raise ReadError(f"Reading {path} failed: {err}. Check its permissions and disk.") from err
    except (ValueError, TypeError, csv.Error) as err:
        raise DataError(
            f"{path} is not a table of losses that can be read: {err}. Delete the folder of the "
            "training to begin anew."
        ) from err
    if not all("step" in row for row in rows):
        raise DataError(f"{path} has no column step. Delete the training's folder to begin anew.")
    return rows


def _write_rows(file: Any, rows: Sequence[Mapping[str, float]], *, header: bool) -> None:  # noqa: ANN401
    if rows:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint by memory map: weights are not copied before they are used."""
    if not path.exists():
        raise MissingFileError(f"There is no checkpoint {path}. Give the folder of a training.")
    try:
        contents: dict[str, Any] = torch.load(
            path, map_location="cpu", weights_only=True, mmap=True
        )
    except OSError as err:
        raise ReadError(f"Reading {path} failed: {err}. Check its permissions and disk.") from err
    except _DAMAGED as err:
        raise _damaged(path, str(err)) from err
    found = contents if isinstance(contents, dict) else {}
    parts = [name for name in _PARTS if not isinstance(found.get(name), dict)]
    if parts:
        raise _damaged(path, f"it has no {', '.join(parts)}")
    return contents


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} is not a checkpoint that can be read: {why}. Delete it to begin anew."
    )


def _name_partial(path: Path) -> Path:
    """Return the name of a file until all of it is on the disk."""
    return path.with_name(f".{path.name}.partial")


def _put_in_place(partial: Path, path: Path) -> None:
    """Give a file its name, once all of it is on the disk."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _save(contents: Mapping[str, Any], file: IO[bytes]) -> None:
    """Let PyTorch write into a file; a full disk is an `OSError`.

    PyTorch closes its archive whatever happened before, and that fails in turn.
    """
    try:
        torch.save(contents, file)
    except RuntimeError as err:
        if isinstance(err.__context__, OSError):
            raise err.__context__ from err
        raise


@contextmanager
def _explain_write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        with suppress(OSError):  # half a file takes the room that is missing
            _name_partial(path).unlink()
        raise OutputError(
            f"Cannot write {path}: {err.strerror or err}. Free space there, mend the rights of the "
            "folder, or choose another one; the same command goes on from the last checkpoint."
        ) from err

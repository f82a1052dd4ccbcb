"""One result of the participant level: a run's embedding or prediction, as its files tell it."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from neurostorm_bids.derivatives.tables import make_column_names
from neurostorm_bids.errors import DataError
from neurostorm_bids.inputs.declarations import parse_number
from neurostorm_bids.inputs.files import list_names, read_json_object
from neurostorm_bids.inputs.names import join_entities, natural_key, parse_name, read_name
from neurostorm_bids.inputs.scan import DESCRIPTIONS, find_func_folders
from neurostorm_bids.inputs.tsv import MISSING, read_tsv
from neurostorm_bids.model.config import TargetSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neurostorm_bids.inputs.names import BidsName

Kind = Literal["embedding", "predictions"]

_URI = re.compile(r"bids:(?P<dataset>[^:]*):(?P<path>[^\0]+)")
_ENDS = ("_embedding.tsv", "_embedding.json", "_predictions.tsv", "_predictions.json")
_EMBEDDING_OF_RUN = re.compile(f"(?:scan|(?:{'|'.join(DESCRIPTIONS)})Scan)")
_AGAIN = "Run the participant level again with --overwrite."


class ModelKey(NamedTuple):
    """A model, by its name and the checksum of its weights; heads may differ by name alone."""

    name: str
    sha256: str


class Source(NamedTuple):
    """The BOLD file of a run, by dataset and path below it; known only from a sidecar."""

    dataset: str
    path: str


class Prediction(NamedTuple):
    """What is predicted for a run, and how far it is to be trusted.

    Attributes
    ----------
    values : probabilities, shape (C,), or a value, shape (1,).
    interval : ends of the calibrated interval of a value, shape (2,); NaN where there is none.
    novelty : distance of the run from those that the model was trained on; NaN if not known.
    prediction_set : classes in the calibrated set; None where there is none.
    """

    values: NDArray[np.float64]
    interval: NDArray[np.float64]
    novelty: float
    prediction_set: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """A table and what its sidecar says; the numbers are read by `read_values`.

    Attributes
    ----------
    table : the TSV file.
    kind : what the file holds.
    entities : of the run's BOLD file.
    source : the BOLD file; None if the sidecar names none.
    model : what made it.
    target : what is predicted; None for an embedding.
    sidecar : all of it.
    """

    table: Path
    kind: Kind
    entities: Mapping[str, str] = field(hash=False)
    source: Source | None
    model: ModelKey
    target: TargetSpec | None
    sidecar: Mapping[str, Any] = field(hash=False)

    @property
    def participant(self) -> str:
        """The participant's label, without ``sub-``."""
        return self.entities["sub"]

    @cached_property
    def run(self) -> str:
        """The run's label: all entities of the BOLD file."""
        return join_entities(self.entities)

    @property
    def dataset(self) -> str:
        """Name of the dataset of the BOLD file; empty where it is not known."""
        return "" if self.source is None else self.source.dataset

    @property
    def source_name(self) -> str:
        """Path of the BOLD file below its dataset, or its name as the table's name has it."""
        return f"{self.run}_bold.nii.gz" if self.source is None else self.source.path

    @property
    def target_name(self) -> str:
        """Name of what is predicted; empty for an embedding."""
        return "" if self.target is None else self.target.name

    def read_number(self, name: str) -> float | None:
        """Return a finite number of the sidecar; None if it has none of that name."""
        value = self.sidecar.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        return float(value) if abs(value) <= sys.float_info.max else None

    def list_texts(self, name: str) -> list[str]:
        """Return a list of texts of the sidecar; empty if it has none of that name."""
        value = self.sidecar.get(name)
        return [str(item) for item in value] if isinstance(value, list) else []


def list_tables(participant: Path) -> Iterator[tuple[Path, BidsName | None]]:
    """List a participant's embeddings of runs and predictions, also those with one file missing.

    The name is None where it is no name for this folder.
    """
    for session, folder in find_func_folders(participant).items():
        stems = {name.rpartition(".")[0] for name in list_names(folder) if name.endswith(_ENDS)}
        for stem in sorted(stems, key=natural_key):
            table = folder / f"{stem}.tsv"
            name = parse_name(table.name)
            if name is None:
                yield table, None
                continue
            entities = name.entities
            fits = f"sub-{entities.get('sub')}" == participant.name
            fits &= session in {None, entities.get("ses")}
            desc = entities.get("desc", "")
            if name.suffix == "predictions" or _EMBEDDING_OF_RUN.match(desc):
                yield table, name if fits else None


def read_result(table: Path, name: BidsName, *, root: Path) -> Result:
    """Read the sidecar of a table.

    Raises
    ------
    MissingFileError, ReadError, DataError
        If the sidecar or the table is not there, or the sidecar cannot be understood.
    """
    sidecar_path = table.with_suffix(".json")
    if not (table.is_file() and sidecar_path.is_file()):
        absent = (sidecar_path if table.is_file() else table).name
        raise DataError(
            f"{absent} is not there: the run was not finished, or a file was lost. {_AGAIN}"
        )
    sidecar = read_json_object(sidecar_path, dataset_root=root)
    kind: Kind = "embedding" if name.suffix == "embedding" else "predictions"
    source = _find_source(sidecar)
    bold = None if source is None else read_name(source.path.rpartition("/")[2])
    entities = {key: value for key, value in name.entities.items() if key != "desc"}
    if bold is not None and bold.entities.get("sub") == entities.get("sub"):
        entities = dict(bold.entities)
    return Result(
        table=table,
        kind=kind,
        entities=entities,
        source=source,
        model=ModelKey(*(_read_text(sidecar, key) for key in ("ModelName", "ModelSHA256"))),
        target=_read_target(sidecar) if kind == "predictions" else None,
        sidecar=sidecar,
    )


def read_embedding(result: Result) -> NDArray[np.float32]:
    """Read a run's embedding, shape (D,).

    Raises
    ------
    MissingFileError, ReadError, DataError
        If the table cannot be read, or is not one row of finite numbers.
    """
    columns = read_tsv(result.table).columns
    n_rows = len(next(iter(columns.values())))
    if n_rows != 1:
        raise DataError(f"Expected one row, found {n_rows}. {_AGAIN}")
    return np.array(_read_row(columns, 0, list(columns)), dtype=np.float32)


def read_prediction(result: Result) -> Prediction:
    """Read what is predicted for a run.

    Raises
    ------
    MissingFileError, ReadError, DataError
        If the table cannot be read, has no row for the run, or no numbers in it.
    """
    if result.target is None:
        raise ValueError("An embedding is no prediction.")
    columns = read_tsv(result.table).columns
    places = [at for at, level in enumerate(columns.get("level", [])) if level == "run"]
    if len(places) != 1:
        raise DataError(f"Expected one row of the level run, found {len(places)}. {_AGAIN}")
    row = places[0]
    ends = [_read_optional(columns, row, f"interval_{end}") for end in ("low", "high")]
    return Prediction(
        values=np.array(_read_row(columns, row, name_outputs(result.target)), dtype=np.float64),
        interval=np.array(ends, dtype=np.float64),
        novelty=_read_optional(columns, row, "novelty"),
        prediction_set=_read_set(columns, row),
    )


def name_outputs(target: TargetSpec) -> list[str]:
    """Return the columns of what is predicted: probabilities, a value or a z-score."""
    if target.kind == "classification":
        return make_column_names("probability", target.classes)
    return ["value" if target.mean is not None else "zscore"]


def _read_row(columns: Mapping[str, Sequence[str]], row: int, names: Sequence[str]) -> list[float]:
    numbers = []
    for name in names:
        number = parse_number(columns[name][row]) if name in columns else None
        if number is None:
            found = repr(columns[name][row]) if name in columns else "no such column"
            raise DataError(f"Expected a number in column {name}, found {found}. {_AGAIN}")
        numbers.append(number)
    return numbers


def _read_optional(columns: Mapping[str, Sequence[str]], row: int, name: str) -> float:
    number = parse_number(columns[name][row]) if name in columns else None
    return math.nan if number is None else number


def _read_set(columns: Mapping[str, Sequence[str]], row: int) -> tuple[str, ...] | None:
    cell = columns["prediction_set"][row] if "prediction_set" in columns else MISSING
    return None if cell == MISSING else tuple(cell.split("|"))


def _find_source(sidecar: Mapping[str, Any]) -> Source | None:
    sources = sidecar.get("Sources")
    first = sources[0] if isinstance(sources, list) and sources else None
    match = _URI.fullmatch(first) if isinstance(first, str) else None
    return None if match is None else Source(match["dataset"], match["path"])


def _read_text(sidecar: Mapping[str, Any], key: str) -> str:
    value = sidecar.get(key)
    if not (isinstance(value, str) and value):
        raise DataError(f"The sidecar has no {key}: what made the file is unknown. {_AGAIN}")
    return " ".join(value.split())


def _read_target(sidecar: Mapping[str, Any]) -> TargetSpec:
    values = sidecar.get("Target")
    if not isinstance(values, dict):
        raise DataError(f"The sidecar does not say what is predicted (Target). {_AGAIN}")
    return TargetSpec.from_dict(values)

"""Two fine-tunings of one target in the same splits: which of them predicts better."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neurostorm_bids.derivatives.tables import format_cell
from neurostorm_bids.errors import DataError
from neurostorm_bids.inputs.declarations import parse_number
from neurostorm_bids.inputs.names import drop_prefix
from neurostorm_bids.inputs.tsv import read_tsv
from neurostorm_bids.train.comparison import compare_predictions
from neurostorm_bids.train.metrics import measure_classification, measure_regression
from neurostorm_bids.train.resampling import EXCHANGED, Resampling

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neurostorm_bids.inputs.tsv import Table
    from neurostorm_bids.train.comparison import Difference
    from neurostorm_bids.train.metrics import Measure

    Floats = NDArray[np.float64]

PREDICTIONS = "predictions.tsv"
_KEYS = ("participant_id", "example", "fold", "truth")
_SEED = "seed"
_PROBABILITY = "probability_"


class Told(NamedTuple):
    """What a fine-tuning predicted of participants that its models had not seen.

    Attributes
    ----------
    keys : participant_id, example, fold and truth of each row.
    classes : empty for a regression.
    outputs : (n, n_classes) probabilities, or (n,) values; NaN where nothing was predicted.
    """

    keys: tuple[tuple[str, ...], ...]
    classes: tuple[str, ...]
    outputs: Floats


class Pair(NamedTuple):
    """A measure of two fine-tunings; None where it is not defined.

    Attributes
    ----------
    measure : its name.
    first, second : of the one and of the other.
    difference, low, high, p_value : of the first minus the second; see `comparison.Difference`.
    """

    measure: str
    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None


def compare_finetunings(
    first: Path, second: Path, *, resampling: Resampling = EXCHANGED
) -> list[Pair]:
    """Compare the predictions of two fine-tunings, participant by participant.

    Parameters
    ----------
    first, second : folders with ``predictions.tsv``, as ``OUTPUT_DIR/finetune/<name>``.
    resampling : of the intervals and of the paired test; see `compare_predictions`.

    Raises
    ------
    DataError
        If they tell of other people, truths, classes or folds: nothing could be paired.
    MissingFileError, ReadError
        If a table cannot be read.
    """
    one, two = read_predictions(first / PREDICTIONS), read_predictions(second / PREDICTIONS)
    _check_alike(one, two, first, second)
    truth = _read_truth(one)
    differences = compare_predictions(
        truth,
        one.outputs,
        two.outputs,
        [key[0] for key in one.keys],
        folds=[key[2] for key in one.keys],
        resampling=resampling,
    )
    is_known = _find_known(one, two)
    folds = np.unique([key[2] for key in one.keys], return_inverse=True)[1][is_known]
    measure: Measure = (
        partial(measure_classification, folds=folds) if one.classes else measure_regression
    )
    once = np.ones((1, int(is_known.sum())))
    of_one, of_two = (measure(truth[is_known], x.outputs[is_known], once) for x in (one, two))
    return [
        Pair(d.name, float(of_one[d.name][0]), float(of_two[d.name][0]), *_tell(d))
        for d in differences
    ]


def format_comparison(pairs: Sequence[Pair]) -> str:
    """Return the text of a table (TSV) with a row for each measure, six digits of each number."""
    rows = [
        [pair.measure, *("n/a" if x is None else format_cell(float(f"{x:.6g}")) for x in pair[1:])]
        for pair in pairs
    ]
    return "".join("\t".join(row) + "\n" for row in [Pair._fields, *rows])


def read_predictions(path: Path) -> Told:
    """Read what a fine-tuning predicted, rows sorted by their keys.

    Of several seeds the first is taken, that of the model that is kept.

    Raises
    ------
    DataError
        If it is no table of predictions.
    MissingFileError, ReadError
        If it cannot be read.
    """
    table = read_tsv(path)
    columns = table.columns
    named = [name for name in columns if name.startswith(_PROBABILITY)]
    if not set(_KEYS) <= set(columns) or not (named or "prediction" in columns):
        raise DataError(
            f"Expected columns {', '.join(_KEYS)} and predictions in {path}, found "
            f"{', '.join(columns)}. Give the folder OUTPUT_DIR/finetune/<name> of a fine-tuning."
        )
    outputs = np.stack([_read_numbers(table, name) for name in named or ["prediction"]], axis=1)
    keys = list(zip(*(columns[name] for name in _KEYS), strict=True))
    seeds = columns.get(_SEED)
    rows = [row for row in range(len(keys)) if seeds is None or seeds[row] == seeds[0]]
    order = sorted(rows, key=keys.__getitem__)
    return Told(
        keys=tuple((drop_prefix(keys[at][0], "sub"), *keys[at][1:]) for at in order),
        classes=tuple(name.removeprefix(_PROBABILITY) for name in named),
        outputs=outputs[order] if named else outputs[order, 0],
    )


def _read_numbers(table: Table, name: str) -> Floats:
    numbers = [parse_number(cell) for cell in table.columns[name]]
    return np.array([np.nan if number is None else number for number in numbers])


def _read_truth(told: Told) -> Floats:
    cells = [key[3] for key in told.keys]
    if not told.classes:
        return np.array([float(cell) for cell in cells])
    unknown = sorted(set(cells) - set(told.classes))
    if unknown:
        raise DataError(
            f"Expected truths among {', '.join(told.classes)}, found {', '.join(unknown[:5])}."
        )
    return np.array([told.classes.index(cell) for cell in cells], dtype=np.float64)


def _check_alike(one: Told, two: Told, first: Path, second: Path) -> None:
    """Raise `DataError` if rows of the two cannot be paired."""
    differing = sorted({key[0] for key in set(one.keys) ^ set(two.keys)})
    if not differing and one.classes == two.classes:
        return
    what = (
        f"other rows, truths or folds for participants {', '.join(differing[:5])}"
        if differing
        else f"classes {', '.join(one.classes)} and {', '.join(two.classes)}"
    )
    raise DataError(
        f"Expected the same examples in the same folds in {first} and {second}, found {what}. Run "
        f"the second fine-tuning with --splits {first / 'split.tsv'}."
    )


def _find_known(one: Told, two: Told) -> NDArray[np.bool_]:
    both = np.concatenate([told.outputs.reshape(len(told.keys), -1) for told in (one, two)], axis=1)
    return np.asarray(~np.isnan(both).any(axis=1))


def _tell(one: Difference) -> tuple[float | None, float | None, float | None, float | None]:
    return one.value, one.low, one.high, one.p_value

"""What a fine-tuning leaves: the model folder, the split, predictions, scores and the report."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.atomic import remove_leftovers, write_files
from neurostorm_bids.model.lessons import add_lesson
from neurostorm_bids.pretrained import Provenance, save_model
from neurostorm_bids.train.baselines import MAIN_MEASURE
from neurostorm_bids.train.familiar import find_familiar
from neurostorm_bids.train.finetune_report import format_finetuning
from neurostorm_bids.train.learning import find_learners
from neurostorm_bids.train.outcome import MODELS
from neurostorm_bids.train.seeds import summarise_seeds
from neurostorm_bids.train.split_file import format_rounds

if TYPE_CHECKING:
    from pathlib import Path

    from neurostorm_bids.model.adapt import ParameterCount
    from neurostorm_bids.model.lessons import Lesson
    from neurostorm_bids.pretrained import Model
    from neurostorm_bids.train.comparators import Compared
    from neurostorm_bids.train.examples import Examples
    from neurostorm_bids.train.familiar import Familiar
    from neurostorm_bids.train.finetune_options import FinetuneOptions
    from neurostorm_bids.train.rounds import Round
    from neurostorm_bids.train.scores import Score
    from neurostorm_bids.train.splits import Splits

logger = logging.getLogger(__name__)

FOLDER, REPORT = "finetune", "finetune.html"
SPLIT, PREDICTIONS, SCORES = "split.tsv", "predictions.tsv", "scores.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Finetuning:
    """A fine-tuning that has ended, and all that its files tell.

    Attributes
    ----------
    options, examples : what it was given.
    rounds : what came of each seed; the first is that of the model that is kept.
    model : that is kept.
    parameters : that were trained for it.
    notes : what was found on the way, in sentences.
    started_from : name of the model it started from.
    failed : runs that could not be used, and why.
    """

    options: FinetuneOptions
    examples: Examples
    rounds: tuple[Round, ...]
    model: Model
    parameters: ParameterCount
    notes: tuple[str, ...]
    started_from: str
    failed: tuple[tuple[str, str], ...]

    @property
    def splits(self) -> Splits:
        """Those of the first seed."""
        return self.rounds[0].splits

    @property
    def compared(self) -> tuple[Compared, ...]:
        """The model, then the baselines, of the first seed."""
        return self.rounds[0].compared

    @cached_property
    def familiar(self) -> Familiar:
        """Whom of those tested the backbone had been trained on before."""
        folds = self.compared[0].predictions.folds
        tested = [p for p, fold in zip(self.examples.participants, folds, strict=True) if fold]
        return find_familiar(self.model.provenance, self.examples, tested)

    @property
    def name(self) -> str:
        """Of the model and of the folder with its scores: the target and the method."""
        target = re.sub("[^0-9A-Za-z]+", "-", self.examples.target.name).strip("-") or "target"
        return f"{target}_{self.options.adapt}"


def write_finetuning(found: Finetuning) -> None:
    """Write ``models/<name>/``, ``finetune/<name>/`` and ``finetune.html``, each whole or not."""
    output_dir = found.options.output_dir
    save_model(
        replace(found.model, provenance=describe_origin(found)),
        output_dir / MODELS / found.name,
        overwrite=True,
    )
    folder = output_dir / FOLDER / found.name
    report = format_finetuning(found)
    files: dict[Path, str] = {
        folder / SPLIT: format_rounds({one.seed: one.splits for one in found.rounds}),
        folder / PREDICTIONS: format_predictions(found),
        folder / SCORES: json.dumps(list_scores(found), indent=2) + "\n",
        folder / REPORT: report,
        output_dir / REPORT: report,
    }
    for written in (folder, output_dir):
        remove_leftovers(written)
    write_files(files)
    logger.info(
        "The model is %s, its scores lie in %s, its report is %s",
        output_dir / MODELS / found.name,
        folder,
        output_dir / REPORT,
    )


def describe_origin(found: Finetuning) -> Provenance:
    """Say in the model folder where it comes from, how good it is, and beside what."""
    options, target = found.options, found.examples.target
    first, *others = found.compared
    notes = [
        (
            f"Fine-tuned by neurostorm-bids {__version__} from {found.started_from}: --adapt "
            f"{options.adapt}, {found.parameters} trained, seed {options.train.seed}."
        ),
        *(f"Target: {line}" for line in target.describe()),
        (
            "Scores come from participants from whom the model scored had not learnt the target "
            f"({found.splits.method}; {first.scores.n_participants} participants); the model in "
            f"this folder learnt from {_tell_learners(found)}. {found.familiar.describe()}"
        ),
        *(f"Scores of {one.name}: {_tell(one.scores.scores)}." for one in (first, *others)),
        *(one.describe() for one in summarise_seeds(found.rounds) if len(found.rounds) > 1),
        *found.notes,
    ]
    return Provenance(
        name=found.name,
        source=f"fine-tuned from {found.started_from} by neurostorm-bids",
        sha256="",
        format="folder",
        notes=(*found.model.provenance.notes, *notes),
        lessons=_list_lessons(found),
    )


def _list_lessons(found: Finetuning) -> tuple[Lesson, ...]:
    """Return what the backbone that is kept was trained on; a linear head leaves it as it was."""
    before, examples = found.model.provenance.lessons, found.examples
    if found.options.adapt == "linear":
        return before
    learners = set(find_learners(found.splits))
    scans = [examples.scans[position] for position in examples.used_scans]
    own = [scan.stored.fingerprint for scan in scans if scan.run.participant in learners]
    return add_lesson(before, examples.target.name, own)


def format_predictions(found: Finetuning) -> str:
    """Return a table: truth, and what models said that had not learnt from the participant.

    A row for each example and seed.
    """
    examples, classes = found.examples, found.examples.classes
    names = [f"probability_{name}" for name in classes] or ["prediction"]
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    baselines = [] if classes else [_spell(one.name) for one in found.compared[1:]]
    writer.writerow(["participant_id", "example", "seed", "fold", "truth", *names, *baselines])
    for one, (at, label) in product(found.rounds, enumerate(examples.participants)):
        truth = classes[int(examples.truth[at])] if classes else f"{examples.truth[at]:.10g}"
        first, *others = one.compared
        fold = first.predictions.folds[at] or "n/a"
        told = [_format(value) for value in first.predictions.outputs[at]]
        if baselines:
            told += [_format(other.predictions.outputs[at, 0]) for other in others]
        writer.writerow([f"sub-{label}", examples.keys[at], one.seed, fold, truth, *told])
    return text.getvalue()


def list_scores(found: Finetuning) -> dict[str, Any]:
    """Return the scores of the model and of the baselines, ready for JSON."""
    kind = found.examples.target.kind
    return {
        "name": found.name,
        "software": f"neurostorm-bids {__version__}",
        "started_from": found.started_from,
        "adapt": found.options.adapt,
        "parameters": {"trained": found.parameters.trainable, "total": found.parameters.total},
        "target": found.examples.target.describe(),
        "split": found.splits.method,
        "main_measure": MAIN_MEASURE[kind],
        "seed": found.rounds[0].seed,
        "methods": [
            {
                "name": one.name,
                "scores": one.scores.to_dict(),
                "model_minus_this": [asdict(difference) for difference in one.differences],
                "is_beaten_by_the_model": None if one.verdict is None else one.verdict.is_beaten,
            }
            for one in found.compared
        ],
        "over_seeds": {
            "seeds": [one.seed for one in found.rounds],
            "methods": [one.to_dict() for one in summarise_seeds(found.rounds)],
        },
        "notes": list(found.notes),
    }


def _tell_learners(found: Finetuning) -> str:
    return "all of them" if len(found.splits.folds) > 1 else "those that were not held out"


def _tell(scores: tuple[Score, ...]) -> str:
    return ", ".join(
        f"{one.name} {one.value:.3g}"
        + (f" ({one.low:.3g} to {one.high:.3g})" if one.low is not None else "")
        for one in scores
        if one.value is not None
    )


def _spell(name: str) -> str:
    return "_".join(name.split())


def _format(value: float) -> str:
    return f"{value:.6g}" if value == value else "n/a"  # noqa: PLR0124 - NaN differs from itself

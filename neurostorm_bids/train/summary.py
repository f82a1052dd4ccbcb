"""What a pretraining came to: the numbers, and what they say in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from neurostorm_bids.page.words import count, format_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from neurostorm_bids.grid.spec import GridSpec
    from neurostorm_bids.model.config import ModelConfig
    from neurostorm_bids.train.fit import FitResult
    from neurostorm_bids.train.reconstruction import Baselines, Example
    from neurostorm_bids.train.sampling import TrainingRun


class RunNote(NamedTuple):
    """A run that is not in the training, and why."""

    run: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ReconstructionSummary:
    """What the kept weights reconstruct of clips that they were not trained on.

    Attributes
    ----------
    baselines : losses of trivial predictors on all clips and masks of the evaluation.
    example : one volume.
    loss : the column of the training's tables that `baselines` compare with.
    atlas : its name, if one was given.
    regions : from `RegionErrors.tabulate`.
    survivors : from `describe_survivors`: what is left of the regions at the size of patches.
    """

    baselines: Baselines
    example: Example
    loss: str = "loss"
    atlas: str = ""
    regions: pd.DataFrame | None = None
    survivors: pd.DataFrame | None = None

    @property
    def levels(self) -> dict[str, float]:
        """The losses of the trivial predictors, by what these are called."""
        return {
            "voxel's mean where visible": self.baselines.voxel_mean,
            "mean visible patch": self.baselines.patch_mean,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class PretrainingSummary:
    """What the report of a pretraining tells. Texts are shown as they are, paths among them.

    Attributes
    ----------
    name : of the model.
    preset : that its sizes were taken from.
    objective : in words.
    config, grid : of the model.
    n_parameters : of its parts, by name.
    result : what the training came to.
    training_runs, validation_runs : that clips were taken from.
    left_out, failed : runs that were not chosen, and chosen ones that could not be used.
    reconstruction : None where the objective reconstructs nothing.
    options : in force, by name; those of a group in a mapping of its own.
    facts : anything else that belongs into the overview, such as the device and the time it took.
    warnings : what a reader should beware of; `list_warnings` adds what the numbers warn of.
    """

    name: str
    preset: str
    objective: str
    config: ModelConfig
    grid: GridSpec
    n_parameters: Mapping[str, int]
    result: FitResult
    training_runs: Sequence[TrainingRun]
    validation_runs: Sequence[TrainingRun]
    left_out: Sequence[RunNote] = ()
    failed: Sequence[RunNote] = ()
    reconstruction: ReconstructionSummary | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    def tell_outcome(self) -> list[str]:
        """Return paragraphs: what was learned from, how well, and beside what."""
        result = self.result
        learned = (
            f"The weights were updated {count(result.n_steps, 'time')}, learning from "
            f"{_tell_runs(self.training_runs)}. They were evaluated on "
            f"{_tell_runs(self.validation_runs)}, who took no part in the training. "
            f"{result.describe_end()}"
        )
        kept = (
            f"The weights that are kept are those after update {format_number(result.best_step)}, "
            f"where the validation loss was lowest: {format_number(result.best_loss)}."
        )
        first = result.validation[0]
        if first["step"] == 0:
            kept += f" Before the first update it was {format_number(first['loss'])}."
        if self.reconstruction is None:
            return [learned, kept]
        baselines = self.reconstruction.baselines
        ratio = self._measure_kept(self.reconstruction.loss) / min(baselines)
        compared = (
            "On the same clips and masks, predicting each masked voxel by its own mean over the "
            f"volumes in which it is visible loses {format_number(baselines.voxel_mean)}, and by "
            f"the mean of all visible patches {format_number(baselines.patch_mean)}. "
            f"The model loses {format_number(ratio)} times the smaller of the two."
        )
        return [learned, kept, compared]

    def list_warnings(self) -> list[str]:
        """Return the warnings, and what the numbers themselves warn of."""
        warnings = list(self.warnings)
        found, result = self.reconstruction, self.result
        if found is not None and self._measure_kept(found.loss) >= min(found.baselines):
            warnings.append(
                "The model reconstructs no better than averages of visible tokens do. Train for "
                "longer, on more data or with another learning rate before using these weights."
            )
        if 0 < result.best_step == result.validation[-1]["step"]:
            warnings.append(
                "The validation loss was lowest at the last evaluation: a longer training may "
                "lower it further."
            )
        if count_people(self.validation_runs) == 1:
            warnings.append("The evaluation rests on one participant; others may differ.")
        return warnings

    def _measure_kept(self, column: str) -> float:
        """Return the validation loss of the weights that are kept."""
        rows = {row["step"]: row for row in self.result.validation}
        return rows[self.result.best_step][column]


def count_people(runs: Iterable[TrainingRun]) -> int:
    """Count participants: one label is one person, in whichever dataset."""
    return len({run.participant for run in runs})


def count_volumes(runs: Iterable[TrainingRun]) -> int:
    """Count volumes on the model's clock."""
    return sum(run.n_volumes for run in runs)


def _tell_runs(runs: Sequence[TrainingRun]) -> str:
    return (
        f"{count(count_volumes(runs), 'volume')} of {count(len(runs), 'run')} of "
        f"{count(count_people(runs), 'participant')}"
    )

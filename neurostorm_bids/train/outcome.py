"""What a pretraining leaves for its users: the model folder, and the report beside baselines."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from neurostorm_bids import __version__
from neurostorm_bids.model.checkpoints import Checkpoint, Provenance, write_model_folder
from neurostorm_bids.model.lessons import add_lesson
from neurostorm_bids.model.region_errors import RegionErrors
from neurostorm_bids.train.clips import Batch
from neurostorm_bids.train.files import BEST, read_weights
from neurostorm_bids.train.networks import find_parts
from neurostorm_bids.train.reconstruction import (
    Baselines,
    measure_baselines,
    pick_example,
)
from neurostorm_bids.train.report import write_pretraining_report
from neurostorm_bids.train.summary import PretrainingSummary, ReconstructionSummary, RunNote

if TYPE_CHECKING:
    from torch import nn

    from neurostorm_bids.inputs import Unusable
    from neurostorm_bids.model.autoencoder import MaskedAutoencoder
    from neurostorm_bids.model.lessons import Lesson
    from neurostorm_bids.train.clips import ClipDataset
    from neurostorm_bids.train.cohort import Cohort
    from neurostorm_bids.train.fit import FitResult
    from neurostorm_bids.train.objectives import MaskedReconstruction
    from neurostorm_bids.train.presets import Preset
    from neurostorm_bids.train.pretrain_options import PretrainOptions
    from neurostorm_bids.train.regions import Regions

logger = logging.getLogger(__name__)

MODELS = "models"
REPORT = "pretrain.html"
MAX_CLIPS = 64
"""Validation clips from which an example and the errors of regions are taken, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """A training that has ended, and all that its report tells.

    Attributes
    ----------
    options, preset, cohort : what it was given.
    unusable : runs that discovery refused, and why.
    network : as it was trained; its weights are replaced by the best.
    train, validation : the clips.
    masking : the part of the objective that masks; None without one.
    regions : of the atlas; None without one.
    result : what the training came to.
    started_from : name of the weights it started from; None for random ones.
    lessons : what these had been trained on.
    """

    options: PretrainOptions
    preset: Preset
    cohort: Cohort
    unusable: tuple[Unusable, ...]
    network: nn.Module
    train: ClipDataset
    validation: ClipDataset
    masking: MaskedReconstruction | None
    regions: Regions | None
    result: FitResult
    started_from: str | None
    lessons: tuple[Lesson, ...] = ()


def write_outcome(outcome: Outcome, folder: Path) -> None:
    """Take the best weights from a training's folder; write the model and the report.

    ``models/<name>/`` and ``pretrain.html`` in the output folder, each whole or not at all.
    """
    outcome.network.load_state_dict(read_weights(folder / BEST))
    outcome.network.eval()
    _, autoencoder = find_parts(outcome.network)
    found = None
    if autoencoder is not None and outcome.masking is not None:
        found = evaluate_reconstruction(outcome, autoencoder, outcome.masking)
        logger.info(
            "Validation loss %.4g; predicting the mean visible patch %.4g, each voxel's mean over "
            "the volumes in which it is visible %.4g",
            _find_kept_loss(outcome, found.loss),
            found.baselines.patch_mean,
            found.baselines.voxel_mean,
        )
    model = outcome.options.output_dir / MODELS / outcome.options.name
    model.parent.mkdir(parents=True, exist_ok=True)
    write_model_folder(model, make_checkpoint(outcome, found), overwrite=True)
    report = outcome.options.output_dir / REPORT
    write_pretraining_report(report, summarise(outcome, found))
    logger.info("The model is %s, its report %s", model, report)


@torch.no_grad()
def evaluate_reconstruction(
    outcome: Outcome, autoencoder: MaskedAutoencoder, masking: MaskedReconstruction
) -> ReconstructionSummary:
    """Compare the autoencoder with trivial predictors, and its errors by region.

    With the masks of the evaluation: the predictors on all of its clips, as the loss they are
    compared with is; the rest on the first of them.
    """
    dataset, patch_size = outcome.validation, outcome.preset.config.patch_size
    device = next(autoencoder.parameters()).device
    baselines = _measure_predictors(outcome, masking)
    n_clips = min(_count_evaluated(outcome), MAX_CLIPS)
    regions = outcome.regions
    errors = None if regions is None else RegionErrors(regions.tokens, regions.names, patch_size)
    example = None
    size = outcome.result.micro_batch_size
    for first in range(0, n_clips, size):
        positions = range(first, min(first + size, n_clips))
        batch = Batch.join([dataset.load(dataset.order[place]) for place in positions], device)
        clips = batch.clips[0]
        mask = masking.draw_masks(batch.samples).to(device)
        reconstruction = autoencoder(clips, mask)
        if errors is not None:
            errors.add(clips, mask, reconstruction.patch_error)
        if example is None:
            labels = [sample.run.label for sample in batch.samples]
            example = pick_example(
                clips, mask, reconstruction, patch_size=patch_size, labels=labels
            )
    if example is None:
        raise ValueError("there are no validation clips")
    return ReconstructionSummary(
        baselines=baselines,
        example=example,
        loss="mae" if "mae" in outcome.result.validation[0] else "loss",
        regions=None if errors is None else errors.tabulate(),
        atlas="" if regions is None else regions.atlas,
        survivors=None if regions is None else regions.survivors,
    )


def _count_evaluated(outcome: Outcome) -> int:
    """Return how many samples an evaluation of the training takes, in whole batches."""
    options, order = outcome.options.train, outcome.validation.order
    return options.count_evaluation_batches(order.samples_per_epoch) * options.batch_size


def _measure_predictors(outcome: Outcome, masking: MaskedReconstruction) -> Baselines:
    """Average the losses of trivial predictors over the clips and masks of an evaluation."""
    dataset, n_clips = outcome.validation, _count_evaluated(outcome)
    losses = []
    for place in range(n_clips):
        batch = Batch.join([dataset.load(dataset.order[place])], torch.device("cpu"))
        mask = masking.draw_masks(batch.samples)
        losses.append(measure_baselines(batch.clips[0], mask, outcome.preset.config.patch_size))
    patch_means, voxel_means = zip(*losses, strict=True)
    return Baselines(sum(patch_means) / n_clips, sum(voxel_means) / n_clips)


def make_checkpoint(outcome: Outcome, found: ReconstructionSummary | None) -> Checkpoint:
    """Gather what the model folder holds: encoder, decoder if there is one, grid, provenance."""
    options, result, cohort = outcome.options, outcome.result, outcome.cohort
    backbone, autoencoder = find_parts(outcome.network)
    own = backbone.state_dict()
    published = {} if autoencoder is None else autoencoder.published_state()
    notes = [
        f"Pretrained by neurostorm-bids {__version__}: objective {options.objective}"
        + (f", mask {options.mask_scheme}, ratio {options.mask_ratio:g}" if autoencoder else "")
        + f", preset {options.preset}, {result.n_steps} updates of {options.train.batch_size} "
        f"clips, seed {options.train.seed}.",
        (
            f"Data ({', '.join(sorted({run.dataset for run in cohort.runs}))}): "
            f"{len(cohort.training)} run(s) of {len(cohort.split.training)} participant(s) to "
            f"train on, {len(cohort.validation)} of {len(cohort.split.validation)} others to "
            "evaluate on."
        ),
        *options.cleaning.tell(),
        (
            f"These weights are those after update {result.best_step}, with the lowest validation "
            f"loss: {result.best_loss:.6g} (before the first update "
            f"{result.validation[0]['loss']:.6g}). {result.describe_end()}"
        ),
    ]
    if found is not None:
        notes.append(
            "On the same clips and masks, predicting the mean visible patch loses "
            f"{found.baselines.patch_mean:.6g}, each voxel's own mean over the volumes in which "
            f"it is visible {found.baselines.voxel_mean:.6g}."
        )
    if outcome.started_from is not None:
        notes.append(f"Started from {outcome.started_from}.")
    rows = "; ".join(f"{row['step']:.0f}: {row['loss']:.4g}" for row in result.validation)
    notes.append(f"Validation loss by update: {rows}.")
    return Checkpoint(
        config=outcome.preset.config,
        head=None,
        target=None,
        weights=own,
        head_weights={},
        decoder_weights={key: value for key, value in published.items() if key not in own},
        mask_scheme=None if autoencoder is None else str(autoencoder.scheme),
        grid=outcome.preset.grid.to_dict(),
        provenance=Provenance(
            name=options.name,
            source="pretrained by neurostorm-bids",
            sha256="",
            format="folder",
            notes=tuple(notes),
            lessons=add_lesson(outcome.lessons, None, (run.fingerprint for run in cohort.runs)),
        ),
    )


def summarise(outcome: Outcome, found: ReconstructionSummary | None) -> PretrainingSummary:
    """Gather what the report tells."""
    options, cohort = outcome.options, outcome.cohort
    backbone, _ = find_parts(outcome.network)
    n_encoder = sum(p.numel() for p in backbone.parameters())
    n_all = sum(p.numel() for p in outcome.network.parameters())
    orders = (outcome.train.order, outcome.validation.order)
    regions = outcome.regions
    warnings = [] if regions is None else [f"{regions.atlas}: {w}" for w in regions.warnings]
    return PretrainingSummary(
        name=options.name,
        preset=options.preset,
        objective=_tell_objective(options),
        config=outcome.preset.config,
        grid=outcome.preset.grid,
        n_parameters={"encoder": n_encoder, "decoder and heads": n_all - n_encoder},
        result=outcome.result,
        training_runs=outcome.train.order.runs,
        validation_runs=outcome.validation.order.runs,
        left_out=[
            RunNote(run.label, order.tell_lack(run)) for order in orders for run in order.left_out
        ],
        failed=[
            *(RunNote(one.run.path.name, str(one.error)) for one in cohort.failed),
            *(RunNote(one.path.name, str(one.error)) for one in outcome.unusable),
        ],
        reconstruction=found,
        options=_list_options(options),
        warnings=warnings,
    )


def _list_options(options: PretrainOptions) -> dict[str, object]:
    """Return the options in force; of paths only the names, which may be shown to others."""
    values = {**asdict(options), **asdict(options.train)}
    for name in (
        "train",
        "selection",
        "bids_dir",
        "output_dir",
        "work_dir",
        "derivatives",
        "call",
        "clean_workdir",
    ):
        del values[name]
    for name in ("model", "atlas"):
        if values[name] is not None:
            values[name] = Path(values[name]).name
    return values


def _tell_objective(options: PretrainOptions) -> str:
    masked = f"reconstruct masked tokens ({options.mask_scheme}, ratio {options.mask_ratio:g})"
    contrast = "tell participants and clips apart (contrastive)"
    return {
        "mae": masked,
        "contrastive": contrast,
        "mae+contrastive": f"{masked}, and {contrast}, weight {options.contrastive_weight:g}",
    }[options.objective]


def _find_kept_loss(outcome: Outcome, column: str) -> float:
    result = outcome.result
    return next(row[column] for row in result.validation if row["step"] == result.best_step)

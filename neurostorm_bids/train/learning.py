"""Learning a target: on a frozen backbone, or by gradients; out of fold, and for keeps."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neurostorm_bids.model.adapt import configure_head, count
from neurostorm_bids.predict import choose_device
from neurostorm_bids.train.calibrate import Embedded, calibrate
from neurostorm_bids.train.cases import Cases
from neurostorm_bids.train.confounders import tabulate_columns
from neurostorm_bids.train.devices import start_fabric
from neurostorm_bids.train.features import embed_scans
from neurostorm_bids.train.predictor import FitOptions, fit_predictor
from neurostorm_bids.train.probing import evaluate_probe, make_head, pool_features
from neurostorm_bids.train.splits import split_held_out
from neurostorm_bids.train.tuning import Tuner, make_target_spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from neurostorm_bids.model.adapt import ParameterCount
    from neurostorm_bids.pretrained import Model
    from neurostorm_bids.train.evaluate import OutOfFold
    from neurostorm_bids.train.examples import Examples
    from neurostorm_bids.train.features import RunFeatures
    from neurostorm_bids.train.finetune_options import FinetuneOptions
    from neurostorm_bids.train.splits import Splits

logger = logging.getLogger(__name__)


class Learnt(NamedTuple):
    """What came of learning a target.

    Attributes
    ----------
    evaluation : predictions of participants by models that had not seen them.
    model : the one that is kept.
    parameters : that were trained for it.
    notes : on how it was made, in sentences.
    embedded : the runs it learnt from.
    """

    evaluation: OutOfFold
    model: Model
    parameters: ParameterCount
    notes: tuple[str, ...]
    embedded: Embedded


def list_cases(options: FinetuneOptions, examples: Examples, roots: Sequence[Path]) -> Cases:
    """Return the examples with what is removed from features, but without features."""
    confounds = [examples.read(name, roots) for name in options.confound_columns]
    sites = options.site_column if options.harmonise else None
    return Cases(
        target=examples.truth,
        participants=examples.participants,
        classes=examples.classes,
        confounds=tabulate_columns(confounds) if confounds else None,
        sites=None if sites is None else examples.read(sites, roots).cells,
    )


def learn_linear(
    options: FinetuneOptions,
    model: Model,
    examples: Examples,
    cases: Cases,
    splits: Splits,
    *,
    groups: Mapping[str, str | None] | None,
) -> Learnt:
    """Fit ridge or logistic regression on pooled embeddings of the frozen backbone.

    In every fold, and for the model that is kept.
    """
    scans = [examples.scans[position] for position in examples.used_scans]
    found, cases = _embed(options, model, examples, cases)
    fitting = _choose_fitting(options)
    evaluation = evaluate_probe(examples, cases, found, splits, groups=groups, options=fitting)
    is_kept = np.isin(np.asarray(examples.participants, dtype=str), find_learners(splits))
    kept = cases.select(is_kept)
    predictor = fit_predictor(kept, groups=groups, options=fitting)
    spec = make_target_spec(examples.target, kept.target)
    head = make_head(predictor, spec)
    notes = [
        (
            f"The penalty of the model that is kept is {predictor.penalty:g} times the number of "
            "features, chosen by inner folds; in the folds: "
            f"{', '.join(f'{name} {one:g}' for name, one in evaluation.penalties.items())}."
        ),
        *predictor.notes,
    ]
    if options.confound_columns:
        notes.append(
            f"{', '.join(options.confound_columns)} were regressed out in training. The model "
            "folder does not ask for them: it takes everybody to have the training mean."
        )
    if options.harmonise:
        notes.append(
            "Differences between sites were removed in training. The model folder does not ask "
            "for the site: it takes embeddings as they are, as for sites that were not seen."
        )
    final = replace(
        model,
        head=head.to(choose_device(options.train.accelerator)),
        head_config=configure_head(model.config, spec),
        target=spec,
    )
    parameters = count(head)
    logger.info("%s of the head were fitted; the backbone stays as it is", parameters)
    learners = set(find_learners(splits))
    used = zip(scans, found, strict=True)
    runs = [(scan.run.participant, one) for scan, one in used if scan.run.participant in learners]
    embedded = Embedded(
        np.stack([one.whole for _, one in runs]), tuple(participant for participant, _ in runs)
    )
    return Learnt(evaluation, final, parameters, tuple(notes), embedded)


def evaluate_linear(
    options: FinetuneOptions,
    model: Model,
    examples: Examples,
    cases: Cases,
    splits: Splits,
    *,
    groups: Mapping[str, str | None] | None,
) -> OutOfFold:
    """As `learn_linear`, without a model to keep."""
    found, cases = _embed(options, model, examples, cases)
    return evaluate_probe(
        examples, cases, found, splits, groups=groups, options=_choose_fitting(options)
    )


def _embed(
    options: FinetuneOptions, model: Model, examples: Examples, cases: Cases
) -> tuple[list[RunFeatures], Cases]:
    """Return embeddings of the used runs, and the cases with them as features."""
    model.backbone.to(choose_device(options.train.accelerator))
    scans = [examples.scans[position] for position in examples.used_scans]
    found = embed_scans(model, scans, options.folder / "embeddings", batch_size=options.batch_size)
    return found, replace(cases, features=pool_features(examples, found))


def _choose_fitting(options: FinetuneOptions) -> FitOptions:
    return FitOptions(balances_classes=options.balance_classes, seed=options.train.seed)


def learn_by_gradients(
    options: FinetuneOptions,
    model: Model,
    examples: Examples,
    splits: Splits,
    *,
    roots: Sequence[Path],
    groups: Mapping[str, str | None] | None,
) -> Learnt:
    """Train prompts, low-rank updates or everything in every fold, then for the model to keep."""
    tuner = _make_tuner(options, model, examples, roots)
    evaluation, tuned = tuner.evaluate(splits)
    if len(splits.folds) == 1:
        (final,) = tuned
    else:
        logger.info("Training the model that is kept, on all participants")
        people = examples.gather_people(groups)
        (drawn,) = split_held_out(
            people, share=options.validation_share, seed=options.train.seed
        ).folds
        final = tuner.tune(drawn.train, drawn.test)
    note = (
        "The weights of the model that is kept are those after update "
        f"{final.result.best_step}, with the lowest validation loss: "
        f"{final.result.best_loss:.4g}. {final.result.describe_end()}"
    )
    embedded = tuner.embed(final.model, find_learners(splits))
    return Learnt(evaluation, final.model, final.parameters, (note,), embedded)


def evaluate_by_gradients(
    options: FinetuneOptions,
    model: Model,
    examples: Examples,
    splits: Splits,
    *,
    roots: Sequence[Path],
) -> OutOfFold:
    """As `learn_by_gradients`, without a model to keep."""
    evaluation, _ = _make_tuner(options, model, examples, roots).evaluate(splits)
    return evaluation


def _make_tuner(
    options: FinetuneOptions, model: Model, examples: Examples, roots: Sequence[Path]
) -> Tuner:
    return Tuner(
        fabric=start_fabric(options.train),
        model=model,
        examples=examples,
        options=options,
        roots=roots,
        folder=options.folder / "tuning",
    )


def calibrate_learnt(options: FinetuneOptions, examples: Examples, learnt: Learnt) -> Learnt:
    """Give the model that is kept a calibration, with notes on it."""
    outputs = learnt.evaluation.row_outputs
    if outputs is None:
        return learnt
    calibration, notes = calibrate(
        examples.target,
        outputs,
        learnt.embedded,
        coverage=options.coverage,
        seed=options.train.seed,
        differs_from_folder=bool(options.confound_columns) or options.harmonise,
    )
    for note in notes:
        logger.info("%s", note)
    model = replace(learnt.model, calibration=calibration)
    return learnt._replace(model=model, notes=(*learnt.notes, *notes))


def find_learners(splits: Splits) -> tuple[str, ...]:
    """Return who the model that is kept learns from: all, but for those held out of one fold."""
    if len(splits.folds) > 1:
        return splits.participants
    (fold,) = splits.folds
    return (*fold.train, *fold.validation)

"""The finetune level: a pretrained model learns a target, and is scored beside baselines."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from neurostorm_bids.derivatives import check_output_dir, write_dataset_files
from neurostorm_bids.inputs import find_bold_runs, find_datasets
from neurostorm_bids.inputs.tables import list_table_roots
from neurostorm_bids.inputs.targets import read_target
from neurostorm_bids.model.adapt import configure_head, count
from neurostorm_bids.options import count_available_cpus
from neurostorm_bids.predict import choose_device
from neurostorm_bids.pretrained import load_model
from neurostorm_bids.train.calibrate import Embedded, calibrate
from neurostorm_bids.train.cases import Cases
from neurostorm_bids.train.comparators import compare_with_baselines
from neurostorm_bids.train.confounders import tabulate_columns
from neurostorm_bids.train.devices import start_fabric
from neurostorm_bids.train.examples import Examples, find_examples
from neurostorm_bids.train.features import embed_scans
from neurostorm_bids.train.finetune_options import BY_SITE, HELD_OUT, K_FOLD, FinetuneOptions
from neurostorm_bids.train.finetune_outcome import Finetuning, write_finetuning
from neurostorm_bids.train.predictor import FitOptions, fit_predictor
from neurostorm_bids.train.probing import evaluate_probe, make_head, pool_features
from neurostorm_bids.train.rivals import connect_examples, describe_nuisance
from neurostorm_bids.train.scans import prepare_scans
from neurostorm_bids.train.split_file import check_groups, read_splits
from neurostorm_bids.train.splits import (
    HELD_OUT_SHARE,
    N_FOLDS,
    add_validation,
    split_by_site,
    split_held_out,
    split_k_fold,
)
from neurostorm_bids.train.tuning import Tuner, make_target_spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from neurostorm_bids.inputs import Discovery
    from neurostorm_bids.model.adapt import ParameterCount
    from neurostorm_bids.pretrained import Model
    from neurostorm_bids.train.evaluate import OutOfFold
    from neurostorm_bids.train.splits import Splits

    Floats = NDArray[np.float64]

logger = logging.getLogger(__name__)

FALLBACK_SPACES = ("MNI152NLin6Asym", "MNI152NLin2009cAsym")


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


def discover(options: FinetuneOptions) -> Discovery:
    """Find the runs that the options choose; the space of the model's grid is preferred."""
    return _find_runs(options, load_model(options.model))


def describe_target(options: FinetuneOptions, discovery: Discovery) -> list[str]:
    """Say what the target is and who is left out, in lines for a person to read."""
    if options.is_by_clip:
        return ["trial_type: clips are labelled when the runs are prepared."]
    datasets = {run.dataset.path for run in discovery.runs}
    roots = list_table_roots([options.bids_dir, *sorted(datasets)])
    entities = [run.entities for run in discovery.runs]
    return read_target(options.target, entities, roots=roots, kind=options.target_kind).describe()


def run_finetune_level(options: FinetuneOptions) -> int:
    """Read the target, split, learn, score beside baselines, write the model and the report.

    Returns
    -------
    int
        0; 1 when runs could not be used and were left out.
    """
    # What is known of another target, or of other embeddings, says nothing of what is learnt.
    model = replace(load_model(options.model), calibration=None)
    discovery = _find_runs(options, model)
    datasets = list({run.dataset.path: run.dataset for run in discovery.runs}.values())
    check_output_dir(options.output_dir, bids_dir=options.bids_dir, datasets=datasets)
    n_cpus = options.nprocs or count_available_cpus()
    torch.set_num_threads(n_cpus)
    scans = prepare_scans(
        discovery.runs,
        model.grid,
        options.folder / "store",
        n_workers=n_cpus,
        n_bits=options.store_bits,
    )
    roots = list_table_roots([options.bids_dir, *(dataset.path for dataset in datasets)])
    examples = find_examples(options, scans.usable, clip_length=model.clip_length, roots=roots)
    for line in examples.target.describe():
        logger.info("%s", line)
    sites, groups = (
        None if name is None else examples.map_participants(examples.read(name, roots))
        for name in (options.site_column, options.group_column)
    )
    splits = split(options, examples, sites=sites, groups=groups)
    logger.info("Splits: %s", splits.method)
    for note in splits.notes:
        logger.warning("%s", note)
    cases = list_cases(options, examples, roots)
    if options.adapt == "linear":
        learnt = learn_linear(options, model, examples, cases, splits, groups=groups)
    else:
        learnt = learn_by_gradients(options, model, examples, splits, roots=roots, groups=groups)
    learnt = calibrate_learnt(options, examples, learnt)
    connectivity, notes = connect_examples(
        examples, options.folder / "connectivity", atlas=options.atlas
    )
    compared = compare_with_baselines(
        options,
        examples,
        cases,
        splits,
        learnt.evaluation,
        connectivity=connectivity,
        nuisance=describe_nuisance(examples, sites=sites),
        groups=groups,
    )
    write_dataset_files(
        options.output_dir,
        datasets=datasets,
        participants=set(examples.participants),
        models=[],
    )
    unusable = tuple((item.path.name, str(item.error)) for item in discovery.unusable)
    write_finetuning(
        Finetuning(
            options=options,
            examples=examples,
            splits=splits,
            compared=compared,
            model=learnt.model,
            parameters=learnt.parameters,
            notes=(*splits.notes, *learnt.evaluation.notes, *learnt.notes, *notes),
            started_from=model.provenance.name,
            failed=(*scans.failed, *unusable),
        )
    )
    return 1 if scans.failed or discovery.unusable else 0


def split(
    options: FinetuneOptions,
    examples: Examples,
    *,
    sites: Mapping[str, str | None] | None,
    groups: Mapping[str, str | None] | None,
) -> Splits:
    """Decide who is learnt from and who is tested.

    Raises
    ------
    DataError
        If there are too few participants, or a split file puts a group on two sides.
    """
    people, seed = examples.gather_people(groups), options.train.seed
    if options.splits == K_FOLD:
        splits = split_k_fold(people, n_folds=options.n_folds or N_FOLDS, seed=seed)
    elif options.splits == HELD_OUT:
        splits = split_held_out(people, share=options.held_out_share or HELD_OUT_SHARE, seed=seed)
    elif options.splits == BY_SITE:
        splits = split_by_site(examples.participants, sites or {})
    else:
        splits = read_splits(Path(options.splits), people.labels)
    if groups is not None:
        check_groups(splits, groups)
    if options.adapt != "linear" and not all(fold.validation for fold in splits.folds):
        splits = add_validation(splits, people, share=options.validation_share, seed=seed)
    return splits


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
    """Fit ridge or logistic regression on pooled embeddings of the frozen backbone."""
    device = choose_device(options.train.accelerator)
    model.backbone.to(device)
    scans = [examples.scans[position] for position in examples.used_scans]
    found = embed_scans(model, scans, options.folder / "embeddings", batch_size=options.batch_size)
    cases = replace(cases, features=pool_features(examples, found))
    fitting = FitOptions(balances_classes=options.balance_classes, seed=options.train.seed)
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
        head=head.to(device),
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
    tuner = Tuner(
        fabric=start_fabric(options.train),
        model=model,
        examples=examples,
        options=options,
        roots=roots,
        folder=options.folder / "tuning",
    )
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
        f"{final.result.best_step} of {final.result.n_steps}, with the lowest validation loss: "
        f"{final.result.best_loss:.4g}."
    )
    embedded = tuner.embed(final.model, find_learners(splits))
    return Learnt(evaluation, final.model, final.parameters, (note,), embedded)


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


def _find_runs(options: FinetuneOptions, model: Model) -> Discovery:
    return find_bold_runs(
        find_datasets(options.bids_dir, dict(options.derivatives)),
        options.selection,
        preferred_spaces=tuple(dict.fromkeys((model.grid.space, *FALLBACK_SPACES))),
    )

"""The finetune level: a pretrained model learns a target, and is scored beside baselines."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from neurostorm_bids.derivatives import check_output_dir, write_dataset_files
from neurostorm_bids.inputs import discover as discover_runs
from neurostorm_bids.inputs.tables import list_table_roots
from neurostorm_bids.inputs.targets import read_target
from neurostorm_bids.options import count_available_cpus
from neurostorm_bids.pretrained import load_model
from neurostorm_bids.train.comparators import compare_with_baselines
from neurostorm_bids.train.examples import Examples, find_examples
from neurostorm_bids.train.finetune_options import BY_SITE, HELD_OUT, K_FOLD, FinetuneOptions
from neurostorm_bids.train.finetune_outcome import Finetuning, write_finetuning
from neurostorm_bids.train.learning import (
    calibrate_learnt,
    learn_by_gradients,
    learn_linear,
    list_cases,
)
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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neurostorm_bids.inputs import Discovery
    from neurostorm_bids.pretrained import Model
    from neurostorm_bids.train.splits import Splits

logger = logging.getLogger(__name__)


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
    target = read_target(
        options.target,
        entities,
        roots=roots,
        kind=options.target_kind,
        excluded=discovery.excluded,
    )
    return target.describe()


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
    examples = find_examples(
        options,
        scans.usable,
        clip_length=model.clip_length,
        roots=roots,
        excluded=discovery.excluded,
    )
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


def _find_runs(options: FinetuneOptions, model: Model) -> Discovery:
    grid = model.grid
    return discover_runs(options, spaces=[grid.space], voxel_size_mm=grid.side_mm)

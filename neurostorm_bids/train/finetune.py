"""The finetune level: a pretrained model learns a target, and is scored beside baselines."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from neurostorm_bids.derivatives import (
    check_output_dir,
    open_work_dir,
    write_configuration,
    write_dataset_files,
)
from neurostorm_bids.inputs import discover as discover_runs
from neurostorm_bids.inputs.tables import list_table_roots
from neurostorm_bids.inputs.targets import read_target
from neurostorm_bids.options import count_available_cpus
from neurostorm_bids.pretrained import load_model
from neurostorm_bids.train.examples import find_examples
from neurostorm_bids.train.familiar import find_familiar
from neurostorm_bids.train.finetune_outcome import Finetuning, write_finetuning
from neurostorm_bids.train.learning import list_cases
from neurostorm_bids.train.rivals import connect_examples, describe_nuisance
from neurostorm_bids.train.rounds import Material, run_rounds
from neurostorm_bids.train.scans import prepare_scans

if TYPE_CHECKING:
    from neurostorm_bids.inputs import Discovery
    from neurostorm_bids.pretrained import Model
    from neurostorm_bids.train.finetune_options import FinetuneOptions

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
    model = replace(
        load_model(options.model), calibration=None, decoder_weights={}, mask_scheme=None
    )
    discovery = _find_runs(options, model)
    datasets = list({run.dataset.path: run.dataset for run in discovery.runs}.values())
    check_output_dir(options.output_dir, bids_dir=options.bids_dir, datasets=datasets)
    open_work_dir(options.folder, bids_dir=options.bids_dir, clean=options.clean_workdir)
    n_cpus = options.nprocs or count_available_cpus()
    torch.set_num_threads(n_cpus)
    scans = prepare_scans(
        discovery.runs,
        model.grid,
        options.folder / "store",
        n_workers=n_cpus,
        n_bits=options.store_bits,
        clip_length=model.clip_length,
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
    familiar = find_familiar(model.provenance, examples, examples.participants)
    logger.log(logging.WARNING if familiar.n_known else logging.INFO, "%s", familiar.describe())
    sites, groups = (
        None if name is None else examples.map_participants(examples.read(name, roots))
        for name in (options.site_column, options.group_column)
    )
    connected = connect_examples(
        examples,
        options.folder / "connectivity",
        clip_length=model.clip_length,
        atlas=options.atlas,
    )
    rounds = run_rounds(
        options,
        Material(
            model=model,
            examples=examples,
            cases=list_cases(options, examples, roots),
            roots=roots,
            sites=sites,
            groups=groups,
            connectivity=connected.connectivity,
            activity=connected.activity,
            nuisance=describe_nuisance(examples, sites=sites),
        ),
    )
    write_dataset_files(
        options.output_dir,
        datasets=datasets,
        participants=set(examples.participants),
        models=[],
    )
    write_configuration(
        options.output_dir, options.call, bids_dir=options.bids_dir, debug=options.debug
    )
    unusable = tuple((item.path.name, str(item.error)) for item in discovery.unusable)
    write_finetuning(
        Finetuning(
            options=options,
            examples=examples,
            rounds=rounds.rounds,
            model=rounds.learnt.model,
            parameters=rounds.learnt.parameters,
            notes=(*options.cleaning.tell(), *rounds.notes, *connected.notes),
            started_from=model.provenance.name,
            failed=(*scans.failed, *unusable),
        )
    )
    return 1 if scans.failed or discovery.unusable else 0


def _find_runs(options: FinetuneOptions, model: Model) -> Discovery:
    grid = model.grid
    return discover_runs(options, spaces=[grid.space], voxel_size_mm=grid.side_mm)

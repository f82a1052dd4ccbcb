"""The pretrain level: preprocessed BOLD of many participants becomes a pretrained model."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from neurostorm_bids.derivatives import (
    RunStatus,
    check_output_dir,
    open_work_dir,
    write_dataset_files,
    write_status,
)
from neurostorm_bids.errors import UsageError
from neurostorm_bids.grid.store import StoredRun
from neurostorm_bids.inputs import discover as discover_runs
from neurostorm_bids.model.augment import AugmentConfig
from neurostorm_bids.model.autoencoder import MaskedAutoencoder
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.checkpoints import fit_clip_length
from neurostorm_bids.model.masking import MaskScheme
from neurostorm_bids.model.strd import StrdConfig
from neurostorm_bids.options import count_available_cpus
from neurostorm_bids.pretrained import open_checkpoint
from neurostorm_bids.train.clips import ClipDataset
from neurostorm_bids.train.cohort import prepare_cohort
from neurostorm_bids.train.devices import gather_rows, hold_folder, start_fabric
from neurostorm_bids.train.fit import fit
from neurostorm_bids.train.networks import ContrastiveEncoder, JointNetwork, find_parts
from neurostorm_bids.train.objectives import Contrasting, MaskedReconstruction, WeightedSum
from neurostorm_bids.train.outcome import Outcome, write_outcome
from neurostorm_bids.train.presets import find_preset
from neurostorm_bids.train.regions import place_regions
from neurostorm_bids.train.sampling import SampleOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from neurostorm_bids.inputs import Discovery, Unusable
    from neurostorm_bids.model.checkpoints import Checkpoint
    from neurostorm_bids.train.cohort import Cohort
    from neurostorm_bids.train.presets import Preset
    from neurostorm_bids.train.pretrain_options import PretrainOptions
    from neurostorm_bids.train.regions import Regions
    from neurostorm_bids.train.sampling import TrainingRun
    from neurostorm_bids.train.step import Objective

    Gather = Callable[[Tensor], Tensor]

logger = logging.getLogger(__name__)


def discover(options: PretrainOptions) -> Discovery:
    """Find the runs that the options choose; the space of the preset's grid is preferred."""
    grid = find_preset(options.preset).grid
    return discover_runs(options, spaces=[grid.space], voxel_size_mm=grid.side_mm)


def run_pretrain_level(options: PretrainOptions) -> int:
    """Prepare the runs, train, write the model and the report; return the exit status.

    Several processes may run this at the same time, as torchrun and srun start them: one prepares
    the runs while the others wait, all train, the first writes.

    Returns
    -------
    int
        0; 1 when runs could not be used and were left out.
    """
    preset = find_preset(options.preset, embed_dim=options.embed_dim)
    regions = None if options.atlas is None else place_regions(options.atlas, preset)
    start = None if options.model is None else find_start(options.model, preset)
    discovery = discover(options)
    datasets = list({run.dataset.path: run.dataset for run in discovery.runs}.values())
    check_output_dir(options.output_dir, bids_dir=options.bids_dir, datasets=datasets)
    open_work_dir(options.folder, bids_dir=options.bids_dir, clean=options.clean_workdir)
    n_cpus = options.nprocs or count_available_cpus()
    torch.set_num_threads(n_cpus)
    cohort = prepare_cohort(
        discovery.runs,
        preset.grid,
        options.folder / "store",
        n_workers=n_cpus,
        n_bits=options.store_bits,
        clip_length=preset.config.clip_length,
        validation_share=options.validation_share,
        seed=options.train.seed,
    )
    fabric = start_fabric(options.train)
    gather = partial(gather_rows, fabric)
    network = make_network(options, preset, gather=gather)
    if start is not None:
        load_start(network, start)
    objective = make_objective(options, preset, regions=regions, gather=gather)
    train = make_dataset(
        cohort.training, options, preset, weights=dict(options.sampling_weights) or None
    )
    validation = make_dataset(cohort.validation, options, preset, weights=None)
    folder = options.folder / "training" / options.name
    with hold_folder(fabric, folder):
        result = fit(
            fabric,
            network,
            objective,
            train=train,
            validation=validation,
            options=options.train,
            folder=folder,
            settings=_list_settings(options, start),
        )
    if fabric.is_global_zero:
        write_dataset_files(
            options.output_dir,
            datasets=datasets,
            participants={run.participant for run in cohort.runs},
            models=[],
        )
        write_status(
            options.output_dir,
            list_statuses(cohort, discovery.unusable),
            call=options.call,
            bids_dir=options.bids_dir,
            datasets=datasets,
            debug=options.debug,
        )
        write_outcome(
            Outcome(
                options=options,
                preset=preset,
                cohort=cohort,
                unusable=tuple(discovery.unusable),
                network=network,
                train=train,
                validation=validation,
                masking=_find_masking(objective),
                regions=regions,
                result=result,
                started_from=None if start is None else start.provenance.name,
                lessons=() if start is None else start.provenance.lessons,
            ),
            folder,
        )
    return 1 if cohort.failed or discovery.unusable else 0


def list_statuses(cohort: Cohort, unusable: Sequence[Unusable]) -> list[RunStatus]:
    """Say of every run whether it took part in the training, or why it did not."""
    return [
        *(RunStatus(run=r.label, participant=r.participant, state="done") for r in cohort.runs),
        *(
            RunStatus.of_failure(
                one.error if isinstance(one.error, Exception) else RuntimeError(str(one.error)),
                run=one.run.label,
                participant=one.run.participant,
            )
            for one in cohort.failed
        ),
        *(
            RunStatus.of_failure(one.error, run=one.label, participant=one.participant)
            for one in unusable
        ),
    ]


def find_start(model: str, preset: Preset) -> Checkpoint:
    """Read the weights to start from, fitted to the preset's clip length.

    Raises
    ------
    UsageError
        If they are of a network of other sizes, or on another grid.
    """
    checkpoint = fit_clip_length(open_checkpoint(model), preset.config.clip_length)
    found, wanted = checkpoint.config.to_dict(), preset.config.to_dict()
    differing = [
        f"{name} {found[name]} (the preset's {wanted[name]})"
        for name in wanted
        if name != "drop_path_rate" and found[name] != wanted[name]
    ]
    if differing or checkpoint.grid != preset.grid.to_dict():
        raise UsageError(
            f"The model {checkpoint.provenance.name} does not fit the preset: "
            f"{', '.join(differing) or 'it reads another grid'}. Choose the preset of its sizes."
        )
    return checkpoint


def make_network(options: PretrainOptions, preset: Preset, *, gather: Gather) -> nn.Module:
    """Make the network of an objective, with random weights from the global generator."""
    if options.objective == "contrastive":
        return ContrastiveEncoder(Backbone(preset.config), gather=gather)
    strd = StrdConfig(kind=options.strd_kind, rate=options.strd_rate) if options.strd else None
    autoencoder = MaskedAutoencoder(
        preset.config, scheme=MaskScheme.parse(options.mask_scheme), strd=strd
    )
    if options.objective == "mae":
        return autoencoder
    return JointNetwork(autoencoder, gather=gather)


def load_start(network: nn.Module, start: Checkpoint) -> None:
    """Put weights to start from into a network; a decoder too, where both have one."""
    backbone, autoencoder = find_parts(network)
    if autoencoder is not None and start.decoder_weights:
        autoencoder.load_published_state({**start.weights, **start.decoder_weights})
        logger.info("Starting from %s, encoder and decoder", start.provenance.name)
    else:
        backbone.load_state_dict(start.weights)
        logger.info("Starting from the encoder of %s", start.provenance.name)


def make_objective(
    options: PretrainOptions, preset: Preset, *, regions: Regions | None, gather: Gather
) -> Objective:
    """Make what the network is trained for."""
    voxel_size_mm = preset.grid.voxel_size_mm
    contrasting = Contrasting(augment=AugmentConfig(), gather=gather, voxel_size_mm=voxel_size_mm)
    if options.objective == "contrastive":
        return contrasting
    scheme = MaskScheme.parse(options.mask_scheme)
    reconstruction = MaskedReconstruction(
        preset.config,
        scheme=scheme,
        ratio=options.mask_ratio,
        regions=regions.tokens if regions is not None and scheme.space == "atlas" else None,
        augment=AugmentConfig() if options.augment else None,
        voxel_size_mm=voxel_size_mm,
    )
    if options.objective == "mae":
        return reconstruction
    return WeightedSum(
        {
            "mae": (1.0, reconstruction),
            "contrastive": (options.contrastive_weight, contrasting),
        }
    )


def make_dataset(
    runs: Sequence[TrainingRun],
    options: PretrainOptions,
    preset: Preset,
    *,
    weights: dict[str, float] | None,
) -> ClipDataset:
    """Put the clips of runs in an order; runs too short for the objective are left out."""
    length = preset.config.clip_length
    order = SampleOrder(
        runs,
        clip_length=length,
        clips_per_sample=1 if options.objective == "mae" else 2,
        weights=weights,
        seed=options.train.seed,
    )
    if order.left_out:
        logger.warning(
            "%d run(s) are left out, for instance %s: %s",
            len(order.left_out),
            order.left_out[0].label,
            order.tell_lack(order.left_out[0]),
        )
    return ClipDataset(order, clip_length=length, open_run=StoredRun.open)


def _find_masking(objective: Objective) -> MaskedReconstruction | None:
    """Return the part of an objective that masks, if there is one."""
    if isinstance(objective, WeightedSum):
        objective = objective.find("mae")
    return objective if isinstance(objective, MaskedReconstruction) else None


def _list_settings(options: PretrainOptions, start: Checkpoint | None) -> dict[str, Any]:
    """Return what decides the numbers besides the training's own options."""
    cleaning = options.cleaning
    return {
        "objective": options.objective,
        "preset": options.preset,
        "embed_dim": options.embed_dim,
        "mask": options.mask_scheme,
        "mask_ratio": options.mask_ratio,
        "atlas": options.atlas,
        "strd": [options.strd_kind, options.strd_rate] if options.strd else None,
        "contrastive_weight": options.contrastive_weight,
        "augment": options.augment,
        "start": None if start is None else start.provenance.sha256,
        # Only what was asked for, so that trainings from before can go on.
        **({"cleaning": cleaning.describe()} if cleaning.tell() else {}),
    }

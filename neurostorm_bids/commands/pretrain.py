"""The pretrain level's own options; some of them are finetune's too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import click

from neurostorm_bids.commands.levels import LevelOption
from neurostorm_bids.commands.shared import (
    COUNT,
    named_path,
    parse_batch_size,
    print_plan,
    take_cleaning,
    take_selection,
)
from neurostorm_bids.commands.training import default_of, take_train_options
from neurostorm_bids.errors import UsageError
from neurostorm_bids.train.pretrain_options import Objective, PretrainOptions, StrdKind

if TYPE_CHECKING:
    from collections.abc import Sequence


def _pretrain(
    *declarations: str,
    levels: Sequence[str] = ("pretrain",),
    **kwargs: Any,  # noqa: ANN401 - click's own
) -> LevelOption:
    """Make an option of `PretrainOptions`; the last declaration is the field's name."""
    kwargs.setdefault("default", default_of(PretrainOptions, declarations[-1]))
    return LevelOption(list(declarations), levels=levels, **kwargs)


OPTIONS: list[click.Parameter] = [
    _pretrain(
        "--objective",
        "objective",
        type=click.Choice(get_args(Objective)),
        show_default=True,
        help="Reconstruct masked tokens (mae), tell clips apart (contrastive), or both.",
    ),
    _pretrain(
        "--preset",
        "preset",
        show_default=True,
        help="Network and grid: tiny (tests), base (as published), large, low-res (4 mm), long "
        "(40 volumes).",
    ),
    _pretrain(
        "--embed-dim",
        "embed_dim",
        type=COUNT,
        help="Channels of the first stage, in place of the preset's.",
    ),
    _pretrain(
        "--mask",
        "mask",
        metavar="SPACE/TIME",
        help="What is masked as a whole: random, window or atlas in space; random or tube in time. "
        " [default: window/random, with --atlas atlas/random]",
    ),
    _pretrain(
        "--mask-ratio",
        "mask_ratio",
        type=float,
        show_default=True,
        help="Share of the units that are masked.",
    ),
    _pretrain(
        "--atlas",
        "atlas",
        metavar="NAME[:VARIANT]|PATH",
        help="Regions to mask and to report errors for: an atlas of TemplateFlow "
        "(Schaefer2018:200), AAL3, or a NIfTI file with its labels beside it; what is named and "
        "not on this machine is downloaded. For finetune: regions of the functional-connectivity "
        "baseline; for participant: of --attribution.  [there: Schaefer2018:200Parcels7Networks "
        "where it is on this machine, else Seitzman2018, spheres that come with the program]",
        levels=["participant", "pretrain", "finetune"],
    ),
    _pretrain("--strd", "strd", is_flag=True, help="Drop redundant tokens in training."),
    _pretrain(
        "--strd-kind",
        "strd_kind",
        type=click.Choice(get_args(StrdKind)),
        show_default=True,
        help="redundant: the more redundant, the likelier; published: as in the research code.",
    ),
    _pretrain(
        "--strd-rate",
        "strd_rate",
        type=float,
        show_default=True,
        help="Mean share of tokens that redundant drops.",
    ),
    _pretrain(
        "--contrastive-weight",
        "contrastive_weight",
        type=float,
        show_default=True,
        help="Weight of the contrastive loss beside that of mae.",
    ),
    _pretrain(
        "--augment/--no-augment",
        "augment",
        show_default=True,
        help="Turn, scale, smooth and add noise to clips, all volumes of a clip alike.",
    ),
    _pretrain(
        "--validation-share",
        "validation_share",
        type=float,
        show_default=True,
        help="Share of the participants that are never trained on. For finetune: share of a "
        "fold's training participants, who decide when to stop.",
        levels=["pretrain", "finetune"],
    ),
    _pretrain(
        "--sampling-weight",
        "sampling_weights",
        multiple=True,
        metavar="NAME=WEIGHT ...",
        help="Share of each dataset in the samples, in any unit.  [default: as it has clips]",
    ),
    _pretrain(
        "--store-bits",
        "store_bits",
        type=click.Choice(["8", "16"]),
        default=str(default_of(PretrainOptions, "store_bits")),
        show_default=True,
        help="Bits per voxel and volume of the prepared runs.",
        levels=["pretrain", "finetune"],
    ),
]


def run(*, dry_run: bool, **given: Any) -> int:  # noqa: ANN401 - click's parameters
    """Run the level with click's parameters and return the exit status."""
    from neurostorm_bids.train.pretrain_options import PretrainOptions

    models = given.pop("models")
    if len(models) > 1:
        raise UsageError(f"A pretraining starts from one model at most; found {len(models)}.")
    train = take_train_options(given, batch_size=parse_batch_size(given.pop("batch_size")))
    options = PretrainOptions(
        selection=take_selection(given),
        cleaning=take_cleaning(given),
        derivatives=tuple(named_path(value) for value in given.pop("derivatives")),
        model=models[0] if models else None,
        sampling_weights=tuple(_named_weight(value) for value in given.pop("sampling_weights")),
        store_bits=8 if given.pop("store_bits") == "8" else 16,
        train=train,
        **given,
    )
    from neurostorm_bids.train.pretrain import discover, run_pretrain_level

    if dry_run:
        print_plan(discover(options), options.bids_dir)
        return 0
    return run_pretrain_level(options)


def _named_weight(value: str) -> tuple[str, float]:
    name, _, weight = value.partition("=")
    try:
        return name, float(weight)
    except ValueError as err:
        raise UsageError(f"--sampling-weight {value!r} is not of the form NAME=WEIGHT.") from err

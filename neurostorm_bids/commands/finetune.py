"""The finetune level's own options."""

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
from neurostorm_bids.commands.training import (
    default_of,
    refuse_training_options,
    take_train_options,
)
from neurostorm_bids.errors import UsageError
from neurostorm_bids.train.finetune_options import (
    BY_SITE,
    HELD_OUT,
    K_FOLD,
    MAX_EPOCHS,
    PATIENCE,
    Adapt,
    FinetuneOptions,
    Head,
    TargetKind,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def _finetune(
    *declarations: str,
    levels: Sequence[str] = ("finetune",),
    **kwargs: Any,  # noqa: ANN401 - click's own
) -> LevelOption:
    """Make an option of `FinetuneOptions`; the last declaration is the field's name."""
    kwargs.setdefault("default", default_of(FinetuneOptions, declarations[-1]))
    return LevelOption(list(declarations), levels=levels, **kwargs)


OPTIONS: list[click.Parameter] = [
    _finetune(
        "--target-kind",
        "target_kind",
        type=click.Choice(get_args(TargetKind)),
        help="What the target is.  [default: inferred, and shown]",
    ),
    _finetune(
        "--event-delay",
        "event_delay_s",
        type=float,
        metavar="SECONDS",
        help="For --target trial_type and --stimuli: how much later than an event its response is. "
        " [default: 5]",
        levels=["finetune", "group"],
    ),
    _finetune(
        "--adapt",
        "adapt",
        type=click.Choice(get_args(Adapt)),
        show_default=True,
        help="What trains beside the head: nothing (linear), prompts, low-rank updates, all.",
    ),
    _finetune(
        "--head",
        "head",
        type=click.Choice(get_args(Head)),
        help="For classes: linear, two linear maps, transformer.  [default: v1]",
    ),
    _finetune("--prompt-len", "prompt_len", type=COUNT, help="Prompts per window.  [default: 50]"),
    _finetune(
        "--lora-rank", "lora_rank", type=COUNT, help="Of the low-rank updates.  [default: 8]"
    ),
    _finetune(
        "--splits",
        "splits",
        metavar=f"{K_FOLD}|{HELD_OUT}|{BY_SITE}|PATH",
        show_default=True,
        help="Who is tested: everybody once, a part, each site in turn; or a TSV file with a "
        "column participant_id and one per fold. Always whole participants.",
    ),
    _finetune(
        "--n-folds", "n_folds", type=click.IntRange(min=2), help="Parts of k-fold.  [default: 5]"
    ),
    _finetune(
        "--held-out-share",
        "held_out_share",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="Of the participants, who are tested with held-out.  [default: 0.2]",
    ),
    _finetune(
        "--group-column",
        "group_column",
        help="Column, such as the family: participants that share a value stay on one side.",
    ),
    _finetune("--site-column", "site_column", help="Column that names the site."),
    _finetune(
        "--confound-columns",
        "confound_columns",
        multiple=True,
        metavar="COLUMN ...",
        help="Columns whose linear effect is removed from the embeddings, as the training "
        "participants show it.",
    ),
    _finetune(
        "--harmonise",
        "harmonise",
        is_flag=True,
        help="Remove differences between sites from the embeddings (ComBat), as the training "
        "participants show them.",
    ),
    _finetune(
        "--balance-classes",
        "balance_classes",
        is_flag=True,
        help="Give every class the same weight, however rare.",
    ),
    _finetune(
        "--coverage",
        "coverage",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        show_default=True,
        help="How often the intervals, or sets of classes, that the model gives for new runs "
        "shall hold the truth.",
    ),
    _finetune(
        "--seeds",
        "n_seeds",
        type=COUNT,
        show_default=True,
        help="Repeat splits, learning and baselines with so many seeds, from --random-seed on. The "
        "model that is kept is that of the first.",
    ),
    _finetune(
        "--permutations",
        "n_permutations",
        type=click.IntRange(min=0),
        show_default=True,
        help="For p-values.",
        levels=["finetune", "group"],
    ),
]


def run(*, dry_run: bool, **given: Any) -> int:  # noqa: ANN401 - click's parameters
    """Run the level with click's parameters and return the exit status."""
    from neurostorm_bids.train.finetune_options import FinetuneOptions

    models, targets = given.pop("models"), given.pop("targets")
    if len(models) != 1 or len(targets) != 1:
        raise UsageError(
            "A fine-tuning needs one --model to start from and one --target, such as --target "
            f"age; found {len(models)} model(s) and {len(targets)} target(s)."
        )
    is_linear = given["adapt"] == "linear"
    if is_linear:
        refuse_training_options()
    batch_size = parse_batch_size(given.pop("batch_size"))
    max_epochs = given.pop("max_epochs") or MAX_EPOCHS
    patience = given.pop("patience")
    train = take_train_options(
        given,
        batch_size=None if is_linear else batch_size,
        max_epochs=max_epochs,
        patience=PATIENCE if patience is None else patience,
        devices=1,
        num_nodes=1,
    )
    options = FinetuneOptions(
        selection=take_selection(given),
        cleaning=take_cleaning(given),
        derivatives=tuple(named_path(value) for value in given.pop("derivatives")),
        model=models[0],
        target=targets[0],
        store_bits=8 if given.pop("store_bits") == "8" else 16,
        batch_size=batch_size if is_linear else None,
        train=train,
        **given,
    )
    from neurostorm_bids.train.finetune import describe_target, discover, run_finetune_level

    if dry_run:
        discovery = discover(options)
        print_plan(discovery, options.bids_dir)
        click.echo("\n".join(describe_target(options, discovery)))
        return 0
    return run_finetune_level(options)

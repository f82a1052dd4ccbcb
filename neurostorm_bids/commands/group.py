"""The group level's own options; --target is finetune's too."""

from __future__ import annotations

from typing import Any

import click

from neurostorm_bids.commands.levels import LevelOption
from neurostorm_bids.commands.shared import MODELS_RUN, PATH, named_path, take_selection

OPTIONS: list[click.Parameter] = [
    LevelOption(
        ["--target", "targets"],
        multiple=True,
        metavar="NAME[=COLUMN] ...",
        help="For finetune what to learn: a column of participants.tsv, phenotype/ or "
        "sessions.tsv, the entity task, or trial_type of events.tsv. For group only these of the "
        "targets that were predicted; the truth is looked for in the column of the same name, or "
        "in COLUMN.",
        levels=["finetune", "group"],
    ),
    LevelOption(
        ["--stimuli"],
        type=PATH,
        metavar="TSV|NPY|NPZ",
        help="Look for the images that were seen. The file holds an embedding of each: a table "
        "with a column stim_file, as in events.tsv, and numbers; an array with such a table of the "
        "same name beside it; or a .npz with arrays stim_file and embedding.",
        levels=["group"],
    ),
    LevelOption(
        ["--color-by", "--colour-by", "colour_by"],
        multiple=True,
        metavar="COLUMN ...",
        help="Columns that the map of the embeddings is coloured by, besides the targets.",
        levels=["group"],
    ),
]


def run(*, dry_run: bool, **given: Any) -> int:  # noqa: ANN401 - click's parameters
    """Run the level with click's parameters and return the exit status."""
    from neurostorm_bids.group import GroupOptions, TargetChoice

    given["models"] = click.get_current_context().meta.get(MODELS_RUN, given["models"])
    options = GroupOptions(
        selection=take_selection(given),
        derivatives=tuple(named_path(value) for value in given.pop("derivatives")),
        targets=tuple(TargetChoice.parse(value) for value in given.pop("targets")),
        **given,
    )
    from neurostorm_bids.group.level import describe_plan, run_group_level

    if dry_run:
        click.echo(describe_plan(options))
        return 0
    return run_group_level(options)

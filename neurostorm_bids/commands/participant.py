"""The participant level's own options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neurostorm_bids.commands.levels import LevelOption
from neurostorm_bids.commands.shared import (
    COUNT,
    named_path,
    parse_batch_size,
    print_plan,
    take_cleaning,
    take_selection,
)

if TYPE_CHECKING:
    import click

OPTIONS: list[click.Parameter] = [
    LevelOption(
        ["--target-scale", "target_scales"],
        multiple=True,
        metavar="NAME=MEAN,SD[,UNIT]",
        help="Mean and standard deviation of a regression target that the model file does not "
        "hold, for example age=28.76,3.68,years. Without them values are reported as z-scores.",
        levels=["participant"],
    ),
    LevelOption(
        ["--connectivity"],
        metavar="auto|NAME[:VARIANT]|PATH",
        help="Write the functional connectivity of each run too, to be compared with at the group "
        "level. Regions: auto (Schaefer2018:200Parcels7Networks where it is on this machine, else "
        "Seitzman2018, spheres that come with the program), or an atlas as for --atlas of "
        "finetune; what is named and not on this machine is downloaded.",
        levels=["participant"],
    ),
    LevelOption(
        ["--omp-nthreads"],
        type=COUNT,
        help="CPUs per run; with --nprocs 8 --omp-nthreads 2, four runs are worked on at a time.  "
        "[default: --nprocs, at most 8]",
        levels=["participant"],
    ),
    LevelOption(
        ["--overwrite"],
        is_flag=True,
        help="Compute again what is already finished.",
        levels=["participant"],
    ),
    LevelOption(
        ["--stop-on-first-crash"],
        is_flag=True,
        help="End at the first run that fails.",
        levels=["participant"],
    ),
]


def run(*, dry_run: bool, **given: Any) -> int:  # noqa: ANN401 - click's parameters
    """Run the level with click's parameters and return the exit status."""
    from neurostorm_bids.options import ParticipantOptions, TargetScale

    options = ParticipantOptions(
        selection=take_selection(given),
        cleaning=take_cleaning(given),
        derivatives=tuple(named_path(value) for value in given.pop("derivatives")),
        target_scales=tuple(TargetScale.parse(value) for value in given.pop("target_scales")),
        batch_size=parse_batch_size(given.pop("batch_size")),
        **given,
    )
    from neurostorm_bids.participant import discover, run_participant_level

    if dry_run:
        print_plan(discover(options), options.bids_dir)
        return 0
    return run_participant_level(options)

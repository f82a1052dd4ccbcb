"""BIDS_DIR as an address of OpenNeuro, for the participant level."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from neurostorm_bids.commands.levels import LevelOption
from neurostorm_bids.errors import MissingFileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from neurostorm_bids.inputs import Discovery
    from neurostorm_bids.options import ParticipantOptions

OPTIONS: list[click.Parameter] = [
    LevelOption(
        ["--drop-after"],
        is_flag=True,
        help="With BIDS_DIR openneuro://dsNNNNNN: give up what was fetched for this call when it "
        "has ended.",
        levels=["participant"],
    ),
]

_ROUNDS = 3
"""Of fetching: what is there may change which file of a run is chosen."""


def check_address(ctx: click.Context, levels: Sequence[str]) -> None:
    """Check that an address is given only where it is fetched.

    Raises
    ------
    UsageError
        If another level comes first, or the work goes to a cluster.
    """
    # A word of text is enough to see that it is none, which spares the imports.
    is_address = str(ctx.params["bids_dir"]).startswith("openneuro:")
    if ctx.params["drop_after"] and not is_address:
        raise UsageError(
            "--drop-after has an effect only where BIDS_DIR is an address, as in "
            "openneuro://ds000228. Leave it out."
        )
    is_elsewhere = ctx.params["executor"] != "local" or ctx.params["run_fmriprep"]
    if is_address and (levels[0] != "participant" or is_elsewhere):
        raise UsageError(
            "BIDS_DIR as an address, openneuro://..., is for the participant level, without "
            "--executor slurm and --run-fmriprep, and for levels after it in the same call. Name "
            "the folder of the clone: OUTPUT_DIR/.work/openneuro/dsNNNNNN-fmriprep."
        )


@contextmanager
def open_dataset(options: ParticipantOptions, *, drop_after: bool) -> Iterator[ParticipantOptions]:
    """Fetch what the options choose where BIDS_DIR is an address; else change nothing.

    Yields
    ------
    The options, with the clone as BIDS_DIR, in this level and in those after it.
    """
    folder = _clone(options)
    if folder is None:
        yield options
        return
    from neurostorm_bids.openneuro import drop_files, fetch_files, list_needed
    from neurostorm_bids.participant import discover

    options = replace(options, bids_dir=folder)
    click.get_current_context().params["bids_dir"] = folder
    fetched: list[Path] = []
    try:
        for _ in range(_ROUNDS):
            needed = list_needed(folder, discover(options))
            if not needed:
                break
            fetched += needed
            fetch_files(folder, needed)
        yield options
    finally:
        if drop_after:
            drop_files(folder, fetched)


def print_fetching(options: ParticipantOptions) -> tuple[ParticipantOptions, Discovery]:
    """Print what would be fetched; return the options and the runs, without those to be fetched."""
    from neurostorm_bids.participant import discover

    folder = _clone(options)
    if folder is None:
        return options, discover(options)
    from neurostorm_bids.openneuro import count_bytes, list_needed

    options = replace(options, bids_dir=folder)
    click.get_current_context().params["bids_dir"] = folder
    discovery = discover(options)
    needed = list_needed(folder, discovery)
    click.echo(f"{len(needed)} file(s), {count_bytes(needed) / 1e6:.1f} MB, would be fetched:")
    for path in needed:
        click.echo(f"  {path.relative_to(folder)}")
    waiting = set(needed)
    unusable = [
        one
        for one in discovery.unusable
        if not (one.path in waiting and isinstance(one.error, MissingFileError))
    ]
    return options, discovery._replace(unusable=unusable)


def _clone(options: ParticipantOptions) -> Path | None:
    """Clone the dataset of an address; None if BIDS_DIR is a folder."""
    if not str(options.bids_dir).startswith("openneuro:"):
        return None
    from neurostorm_bids.openneuro import clone_dataset, read_address

    dataset = read_address(options.bids_dir)
    return None if dataset is None else clone_dataset(dataset, options.folder)

"""The command ``neurostorm-audit``: who is done, who failed, who is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from neurostorm_bids import __version__
from neurostorm_bids.arguments import spread_lists
from neurostorm_bids.commands.shared import PATH, named_path
from neurostorm_bids.invoke import invoke

if TYPE_CHECKING:
    from collections.abc import Sequence

TABLE = Path("logs") / "audit.tsv"


def run() -> None:
    """Run the command with the arguments of this process, and exit with its status."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status; expected mistakes are printed in a sentence."""
    return invoke(command, spread_lists(argv, command, n_positionals=1), name="neurostorm-audit")


@click.command(
    context_settings={"max_content_width": 100},
    epilog="Exit status: 0 all done; 1 somebody failed or is missing; 16 no such folder or "
    "dataset; 18 nobody to tell of; 73 the table cannot be written.",
)
@click.argument("output_dir", type=PATH)
@click.option(
    "--bids-dir",
    type=PATH,
    help="The BIDS_DIR of the calls: whoever is there is expected.  [default: whom a call was "
    "asked to read]",
)
@click.option(
    "-d",
    "--derivatives",
    multiple=True,
    metavar="NAME=PATH ...",
    help="As in the calls; whoever is there is expected.",
)
@click.option("--participant-label", multiple=True, metavar="LABEL ...", help="Tell only of these.")
@click.option(
    "--tsv", type=PATH, help="Where to write the table.  [default: OUTPUT_DIR/logs/audit.tsv]"
)
@click.version_option(__version__, prog_name="neurostorm-audit")
def command(
    *,
    output_dir: Path,
    bids_dir: Path | None,
    derivatives: tuple[str, ...],
    participant_label: tuple[str, ...],
    tsv: Path | None,
) -> int:
    """Tell which participants of OUTPUT_DIR are done, which failed and which are missing.

    What the latest call says of a run counts. The table is printed and written as TSV.
    """
    from neurostorm_bids.audit import audit, choose_entries, format_audit, write_audit

    entries = audit(
        output_dir,
        bids_dir=bids_dir or (output_dir if derivatives else None),
        derivatives=dict(named_path(value) for value in derivatives),
    )
    entries = choose_entries(entries, participant_label)
    click.echo(format_audit(entries))
    write_audit(tsv or output_dir / TABLE, entries)
    return int(any(entry.state != "done" for entry in entries))

"""Write docs/usage.md: the options of the command, as the parser has them."""

from __future__ import annotations

from pathlib import Path

import click

from neurostorm_bids.cli import LEVELS, command
from neurostorm_bids.commands.levels import name_section

PAGE = Path(__file__).with_suffix(".md")

HEAD = """\
# Usage

<!-- `make usage` writes this page from the parser: change the help texts there, not this file. -->

    neurostorm BIDS_DIR OUTPUT_DIR LEVEL [LEVEL ...] [OPTIONS]

`BIDS_DIR` is an fMRIPrep derivatives folder, or a raw BIDS folder that holds one; `OUTPUT_DIR`
becomes a BIDS derivatives dataset. Levels: {levels}. Several levels in one call run in the order
typed, and one that fails altogether ends the call; the exit status is the highest of theirs.

Options that take a list (`LABEL ...`) take it with spaces, before or after the folders:
`--participant-label 01 02 sub-03`. Underscores do for dashes (`--participant_label`). An option
that has no effect at any of the levels asked for is refused.

## Options from a file

`--config-file FILE.toml` reads options by their long names without dashes; what is typed wins.

    model = ["neurostorm-hcpya-sex"]
    participant-label = ["01", "02"]
    nprocs = 4
    overwrite = true

Every call that does something leaves its options in `OUTPUT_DIR/logs/<call>/config.toml`, which can
be fed back. Folders have names there (`<bids>`, `<output>`, `~`) that stand for those of the call
that reads the file; other folders are left out (`.../model.ckpt`) unless the call was made with
`--debug`, because logs are shared: type such an option again, or write its path into the file.
Options of other levels are passed over, so that calls can share a file; unknown keys and values
that do not fit are errors.

## A raw dataset

    neurostorm RAW_DIR OUTPUT_DIR participant --model MODEL --run-fmriprep --fs-license-file FILE

runs `fmriprep-docker` on participants who have no report in `OUTPUT_DIR/sourcedata/fmriprep` yet,
or lack BOLD of a raw run that the filters choose, with the output space and resolution of the
model's grid, and goes on with its result. Runs that fMRIPrep leaves out are told of. It needs
Docker with 8 GB of memory and FreeSurfer's licence, and hours per participant. `--dry-run` prints
the command. `--fmriprep-args "--fs-no-reconall"` adds arguments; `--user 0:0` among them is for a
Docker that runs without root.

## Several configurations

With `--output-layout multiverse` results lie in `OUTPUT_DIR/neurostorm-<version>-<hash>`, a BIDS
derivatives dataset for each configuration: the models' checksums and all options that change
results. A `group` in the same call works there; in a later call, name that folder as its
`OUTPUT_DIR`.

## Memory

`--mem 16GB` bounds what the participant level holds: each process is counted as large as the first
one is with its models, and each run by its header and the model's grid. Runs at a time and clips at
once are lowered to fit; a run that is too large alone fails with status 75. `--resource-monitor`
tells what was really used.

With two or more CPUs, or a GPU, the next run is read while one is worked on, so two runs are held
at once; where `--mem` does not allow for both, runs are read in their turn. `--omp-nthreads 1` or
`--nprocs 1` has the same effect on a CPU.

## Who is done

    neurostorm-audit OUTPUT_DIR --bids-dir BIDS_DIR

prints a table of participants who are done, failed or missing, writes it to
`OUTPUT_DIR/logs/audit.tsv`, and ends with status 1 when somebody failed or is missing.
"""


def format_page() -> str:
    """Return the text of the page."""
    context = click.Context(command, info_name="neurostorm", terminal_width=10_000)
    sections: dict[tuple[str, ...], list[click.Option]] = {}
    for param in command.get_params(context):
        if isinstance(param, click.Option) and not param.hidden:
            sections.setdefault(getattr(param, "levels", ()), []).append(param)
    lines = [HEAD.format(levels=", ".join(f"`{level}`" for level in LEVELS))]
    for levels, options in sections.items():
        lines += [f"## {name_section(levels)}", "", "| option | what it does |", "|---|---|"]
        for option in options:
            names, text = option.get_help_record(context) or ("", "")
            effect = _escape(" ".join(text.split())).replace("<", "&lt;")
            lines.append(f"| `{_escape(names)}` | {effect} |")
        lines.append("")
    lines += [
        "## Exit status",
        "",
        (command.epilog or "").removeprefix("Exit status: "),
        "",
        "## Examples",
        "",
    ]
    for call, meaning in command.examples:
        lines += [meaning, "", f"    {call}", ""]
    return "\n".join(lines).rstrip() + "\n"


def _escape(text: str) -> str:
    """Return the text for a cell of a table."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(format_page(), encoding="utf-8")

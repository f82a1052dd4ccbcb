"""The command ``neurostorm``; everything heavy is imported when it is needed."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neurostorm_bids import __version__
from neurostorm_bids.arguments import spread_lists
from neurostorm_bids.errors import AnalysisLevelError, UsageError, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neurostorm_bids.inputs import Discovery
    from neurostorm_bids.options import ParticipantOptions

logger = logging.getLogger(__name__)

LEVELS = ("participant", "group", "pretrain", "finetune")
INTERRUPTED = 130


def run() -> None:
    """Run the command with the arguments of this process, and exit with its status."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status; expected mistakes are printed in a sentence."""
    debug = "--debug" in argv
    # Threads that spin while they wait slow a shared machine down by a factor; OpenMP reads this
    # when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        status = command.main(
            args=spread_lists(argv, command), prog_name="neurostorm", standalone_mode=False
        )
    except click.ClickException as err:
        err.show()
        return err.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted. What was finished is kept; the same call goes on.", err=True)
        return INTERRUPTED
    except UserError as err:
        click.echo(f"neurostorm: {err}", err=True)
        return err.exit_status
    except Exception as err:
        if debug:
            raise
        click.echo(
            f"neurostorm: unexpected {type(err).__name__}: {err}\n"
            "This is a defect of neurostorm-bids. Run again with --debug and report what comes.",
            err=True,
        )
        return 1
    return status if isinstance(status, int) else 0


def _named_path(value: str) -> tuple[str, Path]:
    """Split ``NAME=PATH``; a path alone is named after its folder."""
    name, equals, path = value.partition("=")
    if not equals:
        name, path = Path(value).name, value
    if not (name and path):
        raise UsageError(f"-d {value!r} is not of the form NAME=PATH.")
    return name, Path(path)


def _batch_size(value: str) -> int | None:
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(f"--batch-size {value!r}: expected auto or a whole number above zero.")
    return int(value)


@click.command(
    context_settings={"max_content_width": 100},
    epilog="Exit status: 0 done; 1 some runs failed, the rest is done; 2 usage; 16 not a usable "
    "dataset; 17 bad analysis level; 18 filters select nothing; 65 unusable data; 66 a required "
    "file is missing; 73 cannot write; 74 input/output failure; 75 try again later.",
)
@click.argument("bids_dir", type=click.Path(path_type=Path))
@click.argument("output_dir", type=click.Path(path_type=Path))
@click.argument("analysis_level", metavar="{" + ",".join(LEVELS) + "}")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL ...",
    help="Model folder, published .ckpt file, catalogue name or hf://owner/repo/file@revision.",
)
@click.option(
    "--target-scale",
    "target_scales",
    multiple=True,
    metavar="NAME=MEAN,SD[,UNIT]",
    help="Mean and standard deviation of a regression target that the model file does not hold, "
    "for example age=28.76,3.68,years. Without them values are reported as z-scores.",
)
@click.option("--participant-label", multiple=True, metavar="LABEL ...", help="Only these.")
@click.option(
    "--exclude-participant-label", multiple=True, metavar="LABEL ...", help="All but these."
)
@click.option(
    "--session-id",
    "--session-label",
    "session_ids",
    multiple=True,
    metavar="LABEL ...",
    help="Only these sessions.",
)
@click.option("--task-id", "task_ids", multiple=True, metavar="LABEL ...", help="Only these tasks.")
@click.option("--run-id", "run_ids", multiple=True, metavar="INDEX ...", help="Only these runs.")
@click.option(
    "--space", help="Standard space to read, such as MNI152NLin6Asym.  [default: the model's own]"
)
@click.option(
    "--bids-filter-file",
    type=click.Path(path_type=Path),
    help='JSON as for fMRIPrep; key "bold"; null = absent, "*" = any.',
)
@click.option(
    "-d",
    "--derivatives",
    multiple=True,
    metavar="NAME=PATH ...",
    help="fMRIPrep derivatives to read instead of those found in BIDS_DIR.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto, cpu, cuda or cuda:N; a GPU asked for and absent is an error.",
)
@click.option(
    "--batch-size", default="auto", show_default=True, help="Clips at once: auto or a number."
)
@click.option(
    "--nprocs",
    "--n-cpus",
    type=click.IntRange(min=1),
    help="CPUs to use in all.  [default: all that are available]",
)
@click.option(
    "--omp-nthreads",
    type=click.IntRange(min=1),
    help="CPUs per run; with --nprocs 8 --omp-nthreads 2, four runs are worked on at a time.  "
    "[default: --nprocs, at most 8]",
)
@click.option("--overwrite", is_flag=True, help="Compute again what is already finished.")
@click.option("--stop-on-first-crash", is_flag=True, help="End at the first run that fails.")
@click.option(
    "--dry-run", is_flag=True, help="List every run chosen and every one left out, with why."
)
@click.option("--debug", is_flag=True, help="As -v, with tracebacks and absolute paths.")
@click.option("-v", "--verbose", count=True, help="More in the log: shapes, seconds, kernels.")
@click.version_option(__version__, prog_name="neurostorm")
def command(analysis_level: str, **given: Any) -> int:  # noqa: ANN401 - click's parameters
    """Run the NeuroSTORM foundation model on fMRI that fMRIPrep has cleaned.

    BIDS_DIR is an fMRIPrep derivatives folder, or a raw BIDS folder that holds one below
    derivatives/. OUTPUT_DIR becomes a BIDS derivatives dataset with embeddings and predictions.
    """
    _set_up_logging(verbosity=given.pop("verbose"), debug=given["debug"])
    if analysis_level not in LEVELS:
        raise AnalysisLevelError(
            f"The analysis level is one of {', '.join(LEVELS)}; found {analysis_level!r}."
        )
    if analysis_level != "participant":
        raise AnalysisLevelError(
            f"The level {analysis_level} is not part of neurostorm-bids {__version__} yet; "
            "participant is."
        )
    dry_run = given.pop("dry_run")
    options = _participant_options(**given)
    if dry_run:
        from neurostorm_bids.participant import discover

        _print_plan(discover(options), options)
        return 0
    from neurostorm_bids.participant import run_participant_level

    return run_participant_level(options)


def _participant_options(**given: Any) -> ParticipantOptions:  # noqa: ANN401 - click's parameters
    """Gather click's parameters into the options of the participant level."""
    from neurostorm_bids.inputs import Selection
    from neurostorm_bids.options import ParticipantOptions, TargetScale

    selection = Selection(
        participant_labels=given.pop("participant_label"),
        exclude_participant_labels=given.pop("exclude_participant_label"),
        session_ids=given.pop("session_ids"),
        task_ids=given.pop("task_ids"),
        run_ids=given.pop("run_ids"),
        space=given.pop("space"),
        filter_file=given.pop("bids_filter_file"),
    )
    return ParticipantOptions(
        selection=selection,
        derivatives=tuple(_named_path(value) for value in given.pop("derivatives")),
        target_scales=tuple(TargetScale.parse(value) for value in given.pop("target_scales")),
        batch_size=_batch_size(given.pop("batch_size")),
        **given,
    )


def _print_plan(discovery: Discovery, options: ParticipantOptions) -> None:
    """Print what a call would do: the runs chosen, those left out and those that cannot be run."""
    roots = {run.dataset.path for run in discovery.runs} | {options.bids_dir.resolve()}

    def shorten(path: Path) -> str:
        below = [path.relative_to(root) for root in roots if path.is_relative_to(root)]
        text = str(min(below, key=lambda p: len(p.parts), default=path))
        # Names come from strangers: nothing in them may steer the terminal.
        return text if text.isprintable() else ascii(text)

    click.echo(
        f"{len(discovery.participants)} participant(s), {len(discovery.runs)} run(s) chosen:"
    )
    for one in discovery.runs:
        notes = [f"{one.repetition_time_s:g} s"]
        notes += ["no brain mask"] if one.brain_mask is None else []
        notes += ["no confounds"] if one.confounds is None else []
        click.echo(f"  run       {shorten(one.path)}  ({', '.join(notes)})")
        for warning in one.warnings:
            click.echo(f"            warning: {warning}")
    for left_out in discovery.left_out:
        click.echo(f"  left out  {shorten(left_out.path)}  ({left_out.reason})")
    for unusable in discovery.unusable:
        click.echo(f"  unusable  {shorten(unusable.path)}  ({unusable.error})")


def _set_up_logging(*, verbosity: int, debug: bool) -> None:
    """Send the package's log to standard error: INFO as it comes, DEBUG with -v or --debug."""
    level = logging.DEBUG if debug or verbosity else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    package = logging.getLogger("neurostorm_bids")
    package.handlers[:] = [handler]
    package.setLevel(level)
    package.propagate = False

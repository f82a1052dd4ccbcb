"""The command ``neurostorm``; everything heavy is imported when it is needed."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neurostorm_bids import __version__
from neurostorm_bids.arguments import spread_lists
from neurostorm_bids.call import Call
from neurostorm_bids.commands import (
    cluster,
    finetune,
    group,
    participant,
    pretrain,
    remote,
    shared,
    training,
)
from neurostorm_bids.commands.configuration import list_configuration, restore_folders
from neurostorm_bids.commands.descriptor import print_descriptor
from neurostorm_bids.commands.levels import LevelCommand, check_levels, keep_those_of
from neurostorm_bids.ending import ToldToEnd, end_when_told
from neurostorm_bids.errors import (
    AnalysisLevelError,
    ReadError,
    SelectionError,
    UsageError,
    UserError,
)
from neurostorm_bids.invoke import invoke
from neurostorm_bids.printable import make_printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

logger = logging.getLogger(__name__)

LEVELS = ("participant", "group", "pretrain", "finetune")
KEPT = "Interrupted. What was finished is kept; the same call goes on."
BRIEFLY = """\
Usage: neurostorm BIDS_DIR OUTPUT_DIR LEVEL ... [OPTIONS]

  neurostorm /data/fmriprep /data/out participant --model MODEL   one level
  neurostorm /data/fmriprep /data/out participant --dry-run       only list what would be read
  neurostorm-model show                                           models that can be had by name
  neurostorm --help                                               all levels and options"""


def run() -> None:
    """Run the command with the arguments of this process, and exit with its status."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status; expected mistakes are printed in a sentence."""
    debug = "--debug" in argv
    # Threads that spin while they wait slow a shared machine down by a factor; OpenMP reads this
    # when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not argv:
        click.echo(BRIEFLY, err=True)
        return UsageError.exit_status
    try:
        with end_when_told():
            words = spread_lists(argv, command, levels=LEVELS)
            return invoke(command, words, name="neurostorm", interrupted=KEPT)
    except ToldToEnd as err:
        click.echo(KEPT, err=True)
        return err.exit_status
    except Exception as err:
        if debug:
            raise
        return _tell_unexpected(err)


def _tell_unexpected(err: Exception) -> int:
    """Say what nobody foresaw, and return the exit status: a defect, or the operating system."""
    if isinstance(err, OSError):
        what = err.strerror or type(err).__name__
        where = f": {err.filename!s:.200}" if err.filename else ""
        click.echo(
            f"neurostorm: the operating system refused ({what}{where}). Check the paths of the "
            "call, their permissions and disks; with --debug all of it is told.",
            err=True,
        )
        return ReadError.exit_status
    click.echo(
        f"neurostorm: unexpected {type(err).__name__}: {err}\n"
        "This is a defect of neurostorm-bids. Run again with --debug and report what comes.",
        err=True,
    )
    return UserError.exit_status


def run_levels(**_: Any) -> int:  # noqa: ANN401 - click's parameters
    """Run the levels one after the other, each with its options; return the exit status.

    A level that failed altogether ends the call: the next one reads what it writes.
    """
    ctx = click.get_current_context()
    _set_up_logging(verbosity=ctx.params["verbose"], debug=ctx.params["debug"])
    levels = _name_levels(ctx.params["analysis_level"])
    check_levels(levels, ctx)
    remote.check_address(ctx, levels)
    restore_folders(ctx)
    configuration = list_configuration(ctx, levels)
    if cluster.is_asked_for(ctx):
        call = Call(levels=levels, configuration=configuration)
        return cluster.submit(ctx, levels, main=main, call=call)
    statuses = [0]
    for level in levels:
        if statuses[-1] not in {0, UserError.exit_status}:
            logger.error("%s is left out, because of the status %d", level, statuses[-1])
            break
        given = keep_those_of(level, ctx)
        for name in ("analysis_level", "verbose", "config_file", *cluster.NAMES):
            given.pop(name, None)
        given["call"] = call = Call(levels=levels, configuration=configuration)
        if ctx.params["dry_run"] and len(levels) > 1:
            click.echo(f"{level}:")
        try:
            with _monitor(given, call):
                statuses.append(_RUN[level](**given))
        except SelectionError as err:
            # What an earlier level would have written is not there in a dry run.
            if not (ctx.params["dry_run"] and level != levels[0]):
                raise
            click.echo(str(err))
    return max(statuses)


@contextmanager
def _monitor(given: dict[str, Any], call: Call) -> Iterator[None]:
    """Tell of CPU and memory while a level runs, if it is asked for."""
    if not given.pop("resource_monitor", False) or given["dry_run"]:
        yield
        return
    from neurostorm_bids.resources import monitor_resources

    with monitor_resources(lambda: _find_logs(call)):
        yield
    participant.add_resources_to_reports(_find_logs(call))


def _find_logs(call: Call) -> Path:
    """Return the folder of a call's logs; a level may have moved to another output folder."""
    output_dir: Path = click.get_current_context().params["output_dir"]
    return output_dir / "logs" / call.run_uuid


def _name_levels(words: Sequence[str]) -> tuple[str, ...]:
    for word in words:
        if word not in LEVELS:
            close = get_close_matches(word, LEVELS, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise AnalysisLevelError(
                f"The analysis level is one of {', '.join(LEVELS)}, or several with spaces "
                f"between; found {word!r}.{hint}"
            )
    return tuple(dict.fromkeys(words))


_RUN = {
    "participant": participant.run,
    "group": group.run,
    "pretrain": pretrain.run,
    "finetune": finetune.run,
}


def _print_descriptor(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's call
    if value:
        print_descriptor(ctx, LEVELS)
        ctx.exit()


command = LevelCommand(
    "neurostorm",
    callback=run_levels,
    help="""Run the NeuroSTORM foundation model on fMRI that fMRIPrep has cleaned.

    BIDS_DIR is an fMRIPrep derivatives folder, a raw BIDS folder that holds one below derivatives/,
    or openneuro://dsNNNNNN. OUTPUT_DIR becomes a BIDS derivatives dataset: embeddings and
    predictions (participant), tables and scores over participants (group), a model trained on these
    data (pretrain), or one that was taught a target, with its scores beside baselines (finetune).
    """,
    context_settings={"max_content_width": 100},
    examples=[
        (
            "neurostorm /data/fmriprep /data/out participant --model neurostorm-hcpya-sex",
            "Embed every run and predict from it, with a model of the catalogue:",
        ),
        (
            "neurostorm /data/fmriprep /data/out participant --participant-label 01 02 --dry-run",
            "List the runs of two participants that would be read, and those left out:",
        ),
        (
            "neurostorm /data/fmriprep /data/out participant group --model ./model",
            "Two levels, one after the other:",
        ),
        (
            "neurostorm /data/fmriprep /data/out finetune --target age --model ./model",
            "Teach a model a column of participants.tsv:",
        ),
        (
            "neurostorm /data/fmriprep /data/out participant --config-file config.toml",
            "Options from a file, such as the one that an earlier call left in logs/:",
        ),
    ],
    epilog="Exit status: 0 done; 1 some runs failed, the rest is done; 2 usage; 16 not a usable "
    "dataset; 17 bad analysis level; 18 filters select nothing; 65 unusable data; 66 a required "
    "file is missing; 73 cannot write; 74 input/output failure; 75 try again later; 130 Ctrl-C; "
    "143 SIGTERM.",
    params=[
        click.Argument(["bids_dir"], type=click.Path(path_type=Path)),
        click.Argument(["output_dir"], type=click.Path(path_type=Path)),
        click.Argument(
            ["analysis_level"], nargs=-1, required=True, metavar="{" + ",".join(LEVELS) + "} ..."
        ),
        *shared.OPTIONS,
        *participant.OPTIONS,
        *remote.OPTIONS,
        *cluster.OPTIONS,
        *pretrain.OPTIONS,
        *training.OPTIONS,
        *finetune.OPTIONS,
        *group.OPTIONS,
    ],
)
click.version_option(__version__, prog_name="neurostorm")(command)
click.option(
    "--bids-exec-spec",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_descriptor,
    help="Print what platforms read to call this command (Boutiques), and exit.",
)(command)


def _set_up_logging(*, verbosity: int, debug: bool) -> None:
    """Send the package's log to standard error while the call lasts: INFO, with -v DEBUG too."""
    level = logging.DEBUG if debug or verbosity else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    package = logging.getLogger("neurostorm_bids")
    before = package.handlers[:], package.level, package.propagate

    def give_back() -> None:
        package.handlers[:], package.level, package.propagate = before

    click.get_current_context().call_on_close(give_back)
    package.handlers[:], package.propagate = [handler], False
    package.setLevel(level)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return make_printable(super().format(record), keep="\n\t")

"""The participant level's own options."""

from __future__ import annotations

import os
import shlex
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import click

from neurostorm_bids.commands.levels import LevelOption
from neurostorm_bids.commands.remote import open_dataset, print_fetching
from neurostorm_bids.commands.shared import (
    COUNT,
    MODELS_RUN,
    PATH,
    named_path,
    parse_batch_size,
    print_plan,
    take_cleaning,
    take_selection,
)
from neurostorm_bids.commands.training import default_of
from neurostorm_bids.errors import UsageError
from neurostorm_bids.options import Attribution, AttributionBaseline, ParticipantOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OPTIONS: list[click.Parameter] = [
    LevelOption(
        ["--attribution"],
        type=click.Choice(get_args(Attribution)),
        default=default_of(ParticipantOptions, "attribution"),
        show_default=True,
        help="Which regions drove each prediction: by taking one after the other away (occlusion), "
        "or by integrated gradients (ig). For a pretrained model with a decoder: how badly each "
        "region is reconstructed from the others. Regions are those of --atlas.",
        levels=["participant"],
    ),
    LevelOption(
        ["--attribution-baseline"],
        type=click.Choice(get_args(AttributionBaseline)),
        default=default_of(ParticipantOptions, "attribution_baseline"),
        show_default=True,
        help="What stands in place of what is taken away: the background, or each voxel's mean "
        "over time.",
        levels=["participant"],
    ),
    LevelOption(
        ["--attribution-clips"],
        default=str(default_of(ParticipantOptions, "attribution_clips")),
        show_default=True,
        metavar="N|all",
        help="Clips of each run that --attribution looks at, spread evenly over the run.",
        levels=["participant"],
    ),
    LevelOption(
        ["--write-resampled"],
        is_flag=True,
        help="Also write each run on the model's grid and clock, as an image.",
        levels=["participant"],
    ),
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
        "finetune; what is named and not on this machine is downloaded. It has a nuisance "
        "regression of its own: --denoise, --dummy-scans and --fd-threshold do not change it.",
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
    LevelOption(
        ["--mem"],
        metavar="AMOUNT",
        help="Memory that may be held at once, as in 16GB: fewer runs at a time, or fewer clips at "
        "once; a run that does not fit alone is refused.",
        levels=["participant"],
    ),
    LevelOption(["--mem-mb"], type=COUNT, help="The same in megabytes.", levels=["participant"]),
    LevelOption(
        ["--output-layout"],
        type=click.Choice(["bids", "multiverse"]),
        default="bids",
        show_default=True,
        help="multiverse: results in OUTPUT_DIR/neurostorm-<version>-<hash>, a folder for each "
        "configuration.",
        levels=["participant"],
    ),
    LevelOption(
        ["--run-fmriprep"],
        is_flag=True,
        help="Preprocess a raw dataset first, with fMRIPrep in Docker, into "
        "OUTPUT_DIR/sourcedata/fmriprep; --dry-run prints the command.",
        levels=["participant"],
    ),
    LevelOption(
        ["--fs-license-file"],
        type=PATH,
        help="FreeSurfer's licence, for --run-fmriprep.  [default: FS_LICENSE]",
        levels=["participant"],
    ),
    LevelOption(
        ["--fmriprep-args"],
        metavar="TEXT",
        help='Further arguments of fmriprep-docker or fMRIPrep, as in "--fs-no-reconall".',
        levels=["participant"],
    ),
    LevelOption(
        ["--reports-only"],
        is_flag=True,
        help="Run nothing; write sub-*.html anew from what is in OUTPUT_DIR.",
        levels=["participant"],
    ),
    LevelOption(
        ["--boilerplate-only"],
        is_flag=True,
        help="Run nothing; write the methods text, logs/CITATION.*, anew from what is in "
        "OUTPUT_DIR.",
        levels=["participant"],
    ),
]


def run(*, dry_run: bool, **given: Any) -> int:  # noqa: ANN401 - click's parameters
    """Run the level with click's parameters and return the exit status."""
    is_multiverse = given.pop("output_layout") == "multiverse"
    drop_after = given.pop("drop_after")
    options = read_options(given)
    from neurostorm_bids.participant import run_participant_level

    if options.run_fmriprep:
        if not _preprocess(options, dry_run=dry_run):
            return 0
        options = _use_fmriprep(options)
    if is_multiverse:
        options = enter_universe(options)
    if dry_run:
        options, discovery = print_fetching(options)
        print_plan(discovery, options.bids_dir)
        return 0
    with open_dataset(options, drop_after=drop_after) as opened:
        open_folder(opened)
        status = run_participant_level(opened)
        _keep_checksums(opened)
    return status


def read_options(given: dict[str, Any]) -> ParticipantOptions:
    """Turn click's parameters into the level's options; --output-layout has been taken out."""
    from neurostorm_bids.options import TargetScale

    options = ParticipantOptions(
        selection=take_selection(given),
        cleaning=take_cleaning(given),
        derivatives=tuple(named_path(value) for value in given.pop("derivatives")),
        target_scales=tuple(TargetScale.parse(value) for value in given.pop("target_scales")),
        batch_size=parse_batch_size(given.pop("batch_size")),
        memory_bytes=_read_memory(given.pop("mem"), given.pop("mem_mb")),
        fmriprep_args=_split_words(given.pop("fmriprep_args"), is_used=given["run_fmriprep"]),
        attribution_clips=_parse_clips(given.pop("attribution_clips")),
        **given,
    )
    if options.fs_license_file is not None and not options.run_fmriprep:
        raise UsageError("--fs-license-file has an effect only with --run-fmriprep. Leave it out.")
    # From here on a call, or a submission, keeps the models that these options name.
    click.get_current_context().find_root().call_on_close(_forget)
    return options


def _forget() -> None:
    from neurostorm_bids.participant.kept import forget

    forget()


def _keep_checksums(options: ParticipantOptions) -> None:
    """Tell a group level of the same call which models ran: it knows them by checksum only."""
    from neurostorm_bids.participant.models import load_models

    models = load_models(options) if options.models else ()
    checksums = tuple(model.provenance.sha256 for model in models)
    click.get_current_context().meta[MODELS_RUN] = checksums


def _read_memory(text: str | None, megabytes: int | None) -> int | None:
    from neurostorm_bids.options import parse_memory

    if text is not None and megabytes is not None:
        raise UsageError("--mem and --mem-mb say the same. Give one of them.")
    return parse_memory(f"{megabytes}MB" if text is None else text) if text or megabytes else None


def _split_words(text: str | None, *, is_used: bool) -> tuple[str, ...]:
    """Split words as a shell does, without running anything."""
    if text is None:
        return ()
    if not is_used:
        raise UsageError("--fmriprep-args has an effect only with --run-fmriprep. Leave it out.")
    try:
        return tuple(shlex.split(text))
    except ValueError as err:
        raise UsageError(f"--fmriprep-args {text!r} cannot be split into words: {err}.") from err


def _preprocess(options: ParticipantOptions, *, dry_run: bool) -> bool:
    """Run fMRIPrep on whom it has not run yet; return whether there are results to go on with."""
    from neurostorm_bids.participant import fmriprep

    if fmriprep.is_preprocessed(options):
        click.echo("The dataset is preprocessed: fMRIPrep is not run.", err=True)
        return True
    participants = fmriprep.list_unprocessed(options)
    if participants and dry_run:
        click.echo(shlex.join(fmriprep.compose(options, participants)))
        return False
    if participants:
        fmriprep.run_fmriprep(options, participants)
    return True


def _use_fmriprep(options: ParticipantOptions) -> ParticipantOptions:
    """Read fMRIPrep's results, in this level and in those after it."""
    from neurostorm_bids.participant import fmriprep

    if fmriprep.is_preprocessed(options):
        return options
    options = fmriprep.use_results(options)
    params = click.get_current_context().params
    params["derivatives"] = tuple(f"{name}={path}" for name, path in options.derivatives)
    return options


def enter_universe(options: ParticipantOptions) -> ParticipantOptions:
    """Write to the folder of this configuration, in this level and in those after it."""
    from neurostorm_bids.commands.configuration import list_configuration
    from neurostorm_bids.participant.universe import name_universe

    ctx = click.get_current_context()
    folder = options.output_dir / name_universe(options, list_configuration(ctx, ["participant"]))
    click.echo(f"Output folder of this configuration: {folder}", err=True)
    ctx.params["output_dir"] = folder
    return replace(options, output_dir=folder)


def open_folder(options: ParticipantOptions) -> None:
    """Empty the work folder if asked for, and put temporary files there if it was named."""
    from neurostorm_bids.derivatives import check_output_dir, open_work_dir
    from neurostorm_bids.derivatives.atomic import explain_write_errors

    if options.work_dir is None and not options.clean_workdir:
        return
    check_output_dir(options.output_dir, bids_dir=options.bids_dir)
    # Before fMRIPrep it was emptied already.
    is_cleaned = options.clean_workdir and not options.run_fmriprep and options.folder.exists()
    if is_cleaned or options.work_dir is not None:
        open_work_dir(options.folder, bids_dir=options.bids_dir, clean=is_cleaned)
    if options.work_dir is not None:
        folder: Path = options.work_dir / "tmp"
        with explain_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        click.get_current_context().find_root().call_on_close(_name_temporary_folder(folder))


def _name_temporary_folder(folder: Path) -> Callable[[], None]:
    """Let this process and its children put temporary files into a folder, until told otherwise."""
    before = os.environ.get("TMPDIR"), tempfile.tempdir

    def give_back() -> None:
        os.environ.pop("TMPDIR", None)
        if before[0] is not None:
            os.environ["TMPDIR"] = before[0]
        tempfile.tempdir = before[1]

    os.environ["TMPDIR"] = tempfile.tempdir = str(folder.absolute())
    return give_back


def _parse_clips(value: str) -> int | None:
    """Read ``all`` (None) or a number of clips."""
    if value == "all":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(
            f"--attribution-clips {value!r}: expected all or a whole number above zero."
        )
    return int(value)


def add_resources_to_reports(logs: Path) -> None:
    """Write the reports of a call's participants again, when its resources have been drawn.

    Parameters
    ----------
    logs : ``logs/<run_uuid>`` in the output folder.
    """
    from neurostorm_bids.participant.reports import report_again

    report_again(logs.parent.parent, logs.name)

"""Options of several levels, and what they become."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neurostorm_bids.commands.configuration import read_config_file
from neurostorm_bids.commands.levels import LevelOption
from neurostorm_bids.errors import UsageError
from neurostorm_bids.printable import make_printable

if TYPE_CHECKING:
    from neurostorm_bids.inputs import Cleaning, Discovery, Selection

COMPUTING = ("participant", "pretrain", "finetune")
PRECISIONS = {"float32": "32-true", "bf16": "bf16-mixed"}
"""What `--precision` takes, and what Lightning calls it."""
MODELS_RUN = "neurostorm.models"
"""Under this name a call keeps the checksums of the models that its participant level ran."""
COUNT = click.IntRange(min=1)
PATH = click.Path(path_type=Path)


class PrecisionChoice(click.Choice[str]):
    """The precisions; Lightning's names for them are understood too."""

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str:
        """Return the precision by its own name."""
        own = {theirs: ours for ours, theirs in PRECISIONS.items()}
        return super().convert(own.get(value, value), param, ctx)


def labels(*declarations: str, metavar: str = "LABEL ...", text: str) -> LevelOption:
    """Make an option that takes a list of words."""
    return LevelOption(list(declarations), multiple=True, metavar=metavar, help=text)


OPTIONS: list[click.Parameter] = [
    LevelOption(
        ["--model", "models"],
        multiple=True,
        metavar="MODEL ...",
        help="Model folder, published .ckpt file, catalogue name or "
        "hf://owner/repo/file@revision. For pretrain: where to start from. For group: whose "
        "results to read, by the model's name or the beginning of its checksum.",
    ),
    labels("--participant-label", text="Only these."),
    labels("--exclude-participant-label", text="All but these."),
    labels("--session-id", "--session-label", "session_ids", text="Only these sessions."),
    labels("--task-id", "task_ids", text="Only these tasks."),
    labels("--run-id", "run_ids", metavar="INDEX ...", text="Only these runs."),
    LevelOption(
        ["--space"],
        metavar="NAME[:res-LABEL]",
        help="Standard space to read, such as MNI152NLin6Asym or MNI152NLin6Asym:res-2.  "
        "[default: the model's own, with voxels nearest in size to the model's]",
    ),
    LevelOption(
        ["--denoise"],
        metavar="STRATEGY|JSON|PATH",
        help="Regress confounds out of each voxel's series before it is scaled, its mean kept: "
        "simple, scrubbing, compcor or ica_aroma of nilearn, or the arguments of its "
        "load_confounds as JSON, or a file of these.  [default: none]",
        levels=COMPUTING,
    ),
    LevelOption(
        ["--fd-threshold"],
        type=float,
        metavar="MM",
        help="Censor volumes that moved more than this (framewise displacement). Clips with more "
        "than 20 % of such volumes are not read.",
        levels=COMPUTING,
    ),
    LevelOption(
        ["--dummy-scans"],
        default="0",
        show_default=True,
        metavar="N|auto",
        help="Volumes to drop at the beginning of each run; auto: those that the confounds mark as "
        "not in steady state. Onsets still count from the run's own first volume.",
        levels=COMPUTING,
    ),
    LevelOption(
        ["--warp"],
        type=click.Choice(["auto", "download", "off"]),
        default="auto",
        show_default=True,
        help="Warp runs that are in another MNI space than the model's with TemplateFlow's "
        "transform: where it is on this machine (auto), downloading it if need be, or never.",
        levels=COMPUTING,
    ),
    LevelOption(
        ["--skip-bids-validation"],
        is_flag=True,
        help="Pass over a dataset_description.json that is damaged or not as BIDS has it.",
        levels=COMPUTING,
    ),
    LevelOption(
        ["--bids-filter-file"],
        type=PATH,
        help='JSON as for fMRIPrep; key "bold"; null = absent, "*" = any.',
    ),
    labels(
        "-d",
        "--derivatives",
        metavar="NAME=PATH ...",
        text="fMRIPrep derivatives to read instead of those found in BIDS_DIR.",
    ),
    LevelOption(
        ["--device"],
        default="auto",
        show_default=True,
        help="auto, cpu, cuda or cuda:N; a GPU asked for and absent is an error.",
        levels=COMPUTING,
    ),
    LevelOption(
        ["--batch-size"],
        default="auto",
        show_default=True,
        help="Clips at once; for pretrain clips per update of the weights, over all devices. auto "
        "or a number.",
        levels=COMPUTING,
    ),
    LevelOption(
        ["--precision"],
        type=PrecisionChoice(tuple(PRECISIONS)),
        default="float32",
        show_default=True,
        help="Of the network's products; bf16 rounds them to two or three digits, and what it "
        "saves depends on the device. Weights and outputs stay float32.",
        levels=COMPUTING,
    ),
    LevelOption(
        ["--resource-monitor"],
        is_flag=True,
        help="Write CPU, memory and GPU memory over time to OUTPUT_DIR/logs/<call>/resources.tsv, "
        "and a plot beside it.",
        levels=COMPUTING,
    ),
    LevelOption(
        ["--nprocs", "--n-cpus", "nprocs"],
        type=COUNT,
        help="CPUs to use in all.  [default: all that are available]",
        levels=COMPUTING,
    ),
    LevelOption(
        ["-w", "--work-dir"],
        type=PATH,
        help="What is kept between calls: prepared runs, checkpoints, fMRIPrep's own; and "
        "temporary files.  [default: OUTPUT_DIR/.work]",
        levels=COMPUTING,
    ),
    LevelOption(
        ["--clean-workdir"],
        is_flag=True,
        help="Remove first what earlier calls kept there, checkpoints too; not a clone of "
        "OpenNeuro.",
        levels=COMPUTING,
    ),
    LevelOption(
        ["--config-file"],
        type=PATH,
        is_eager=True,
        callback=read_config_file,
        help="TOML with options by their long names, as in nprocs = 4; what is typed wins. "
        "OUTPUT_DIR/logs/<call>/config.toml is such a file.",
    ),
    LevelOption(
        ["--dry-run"],
        is_flag=True,
        help="List every run chosen and every one left out, with why.",
    ),
    LevelOption(["--debug"], is_flag=True, help="As -v, with tracebacks and absolute paths."),
    LevelOption(["-v", "--verbose"], count=True, help="More in the log: shapes, seconds, kernels."),
    LevelOption(
        ["--notrack"],
        is_flag=True,
        expose_value=False,
        help="Accepted and without effect: nothing is ever tracked.",
    ),
]


def named_path(value: str) -> tuple[str, Path]:
    """Split ``NAME=PATH``; a path alone is named after its folder."""
    name, equals, path = value.partition("=")
    if not equals:
        name, path = Path(value).name, value
    if not (name and path):
        raise UsageError(f"-d {value!r} is not of the form NAME=PATH.")
    return name, Path(path)


def parse_batch_size(value: str) -> int | None:
    """Read ``auto`` (None) or a number of clips."""
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(f"--batch-size {value!r}: expected auto or a whole number above zero.")
    return int(value)


def take_selection(given: dict[str, Any]) -> Selection:
    """Take the filters out of click's parameters."""
    from neurostorm_bids.inputs import Selection

    return Selection(
        participant_labels=given.pop("participant_label"),
        exclude_participant_labels=given.pop("exclude_participant_label"),
        session_ids=given.pop("session_ids"),
        task_ids=given.pop("task_ids"),
        run_ids=given.pop("run_ids"),
        space=given.pop("space"),
        filter_file=given.pop("bids_filter_file"),
    )


def take_cleaning(given: dict[str, Any]) -> Cleaning:
    """Take what is to be done to the runs out of click's parameters."""
    from neurostorm_bids.inputs.cleaning import Cleaning, parse_denoise, parse_dummy_scans

    return Cleaning(
        denoise=parse_denoise(given.pop("denoise")),
        dummy_scans=parse_dummy_scans(given.pop("dummy_scans")),
        fd_threshold_mm=given.pop("fd_threshold"),
        warp=given.pop("warp"),
    )


def print_plan(discovery: Discovery, bids_dir: Path) -> None:
    """Print what a call would do: the runs chosen, those left out and those that cannot be run."""
    roots = {run.dataset.path for run in discovery.runs} | {bids_dir.resolve()}

    def shorten(path: Path) -> str:
        below = [path.relative_to(root) for root in roots if path.is_relative_to(root)]
        return str(min(below, key=lambda p: len(p.parts), default=path))

    def tell(line: str) -> None:
        # Names and warnings come from strangers: nothing in them may steer the terminal.
        click.echo(make_printable(line))

    tell(f"{len(discovery.participants)} participant(s), {len(discovery.runs)} run(s) chosen:")
    for one in discovery.runs:
        notes = [f"{one.repetition_time_s:g} s"]
        notes += ["no brain mask"] if one.brain_mask is None else []
        notes += ["no confounds"] if one.confounds is None else []
        tell(f"  run       {shorten(one.path)}  ({', '.join(notes)})")
        for warning in one.warnings:
            tell(f"            warning: {warning}")
    for left_out in discovery.left_out:
        tell(f"  left out  {shorten(left_out.path)}  ({left_out.reason})")
    for unusable in discovery.unusable:
        tell(f"  unusable  {shorten(unusable.path)}  ({unusable.error})")

"""The command ``neurostorm``; everything heavy is imported when it is needed."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from neurostorm_bids import __version__
from neurostorm_bids.arguments import spread_lists
from neurostorm_bids.cli_options import (
    FINETUNE,
    GROUP,
    PARTICIPANT,
    PRETRAIN,
    SHARED,
    LevelCommand,
    keep_those_of,
)
from neurostorm_bids.errors import AnalysisLevelError, UsageError, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neurostorm_bids.inputs import Discovery, Selection
    from neurostorm_bids.train.options import TrainOptions

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


def run_level(**_: Any) -> int:  # noqa: ANN401 - click's parameters
    """Check the level, gather its options and run it; return the exit status."""
    ctx = click.get_current_context()
    _set_up_logging(verbosity=ctx.params["verbose"], debug=ctx.params["debug"])
    level = ctx.params["analysis_level"]
    if level not in LEVELS:
        raise AnalysisLevelError(
            f"The analysis level is one of {', '.join(LEVELS)}; found {level!r}."
        )
    given = keep_those_of(level, ctx)
    del given["analysis_level"], given["verbose"]
    return _RUN[level](**given)


def _run_participant(*, dry_run: bool, **given: Any) -> int:  # noqa: ANN401 - click's parameters
    from neurostorm_bids.options import ParticipantOptions, TargetScale

    options = ParticipantOptions(
        selection=_selection(given),
        derivatives=tuple(_named_path(value) for value in given.pop("derivatives")),
        target_scales=tuple(TargetScale.parse(value) for value in given.pop("target_scales")),
        batch_size=_batch_size(given.pop("batch_size")),
        **given,
    )
    from neurostorm_bids.participant import discover, run_participant_level

    if dry_run:
        _print_plan(discover(options), options.bids_dir)
        return 0
    return run_participant_level(options)


def _run_pretrain(*, dry_run: bool, **given: Any) -> int:  # noqa: ANN401 - click's parameters
    from neurostorm_bids.train.pretrain_options import PretrainOptions

    models = given.pop("models")
    if len(models) > 1:
        raise UsageError(f"A pretraining starts from one model at most; found {len(models)}.")
    train = _train_options(given, batch_size=_batch_size(given.pop("batch_size")))
    options = PretrainOptions(
        selection=_selection(given),
        derivatives=tuple(_named_path(value) for value in given.pop("derivatives")),
        model=models[0] if models else None,
        sampling_weights=tuple(_named_weight(value) for value in given.pop("sampling_weights")),
        store_bits=8 if given.pop("store_bits") == "8" else 16,
        train=train,
        **given,
    )
    from neurostorm_bids.train.pretrain import discover, run_pretrain_level

    if dry_run:
        _print_plan(discover(options), options.bids_dir)
        return 0
    return run_pretrain_level(options)


def _run_group(*, dry_run: bool, **given: Any) -> int:  # noqa: ANN401 - click's parameters
    from neurostorm_bids.group import GroupOptions, TargetChoice

    options = GroupOptions(
        selection=_selection(given),
        derivatives=tuple(_named_path(value) for value in given.pop("derivatives")),
        targets=tuple(TargetChoice.parse(value) for value in given.pop("targets")),
        **given,
    )
    from neurostorm_bids.group.level import describe_plan, run_group_level

    if dry_run:
        click.echo(describe_plan(options))
        return 0
    return run_group_level(options)


def _run_finetune(*, dry_run: bool, **given: Any) -> int:  # noqa: ANN401 - click's parameters
    from neurostorm_bids.train.finetune_options import MAX_EPOCHS, FinetuneOptions

    models, targets = given.pop("models"), given.pop("targets")
    if len(models) != 1 or len(targets) != 1:
        raise UsageError(
            "A fine-tuning needs one --model to start from and one --target, such as --target "
            f"age; found {len(models)} model(s) and {len(targets)} target(s)."
        )
    is_linear = given["adapt"] == "linear"
    if is_linear:
        _refuse_training_options()
    batch_size = _batch_size(given.pop("batch_size"))
    max_epochs = given.pop("max_epochs") or MAX_EPOCHS
    train = _train_options(
        given,
        batch_size=None if is_linear else batch_size,
        max_epochs=max_epochs,
        devices=1,
        num_nodes=1,
    )
    options = FinetuneOptions(
        selection=_selection(given),
        derivatives=tuple(_named_path(value) for value in given.pop("derivatives")),
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
        _print_plan(discovery, options.bids_dir)
        click.echo("\n".join(describe_target(options, discovery)))
        return 0
    return run_finetune_level(options)


_RUN = {
    "participant": _run_participant,
    "group": _run_group,
    "pretrain": _run_pretrain,
    "finetune": _run_finetune,
}


command = LevelCommand(
    "neurostorm",
    callback=run_level,
    help="""Run the NeuroSTORM foundation model on fMRI that fMRIPrep has cleaned.

    BIDS_DIR is an fMRIPrep derivatives folder, or a raw BIDS folder that holds one below
    derivatives/. OUTPUT_DIR becomes a BIDS derivatives dataset: embeddings and predictions
    (participant), tables and scores over participants (group), a model trained on these data
    (pretrain), or one that was taught a target, with its scores beside baselines (finetune).
    """,
    context_settings={"max_content_width": 100},
    epilog="Exit status: 0 done; 1 some runs failed, the rest is done; 2 usage; 16 not a usable "
    "dataset; 17 bad analysis level; 18 filters select nothing; 65 unusable data; 66 a required "
    "file is missing; 73 cannot write; 74 input/output failure; 75 try again later.",
    params=[
        click.Argument(["bids_dir"], type=click.Path(path_type=Path)),
        click.Argument(["output_dir"], type=click.Path(path_type=Path)),
        click.Argument(["analysis_level"], metavar="{" + ",".join(LEVELS) + "}"),
        *SHARED,
        *PARTICIPANT,
        *PRETRAIN,
        *FINETUNE,
        *GROUP,
    ],
)
click.version_option(__version__, prog_name="neurostorm")(command)


def _selection(given: dict[str, Any]) -> Selection:
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


def _train_options(given: dict[str, Any], **changes: Any) -> TrainOptions:  # noqa: ANN401
    """Take the options of a training out of click's parameters; None stands for the default."""
    from neurostorm_bids.train.options import TrainOptions

    device = given.pop("device")
    if device not in {"auto", "cpu", "cuda"}:
        raise UsageError(
            f"--device {device!r}: for a training it is auto, cpu or cuda. Choose GPUs with "
            "CUDA_VISIBLE_DEVICES; for pretrain, their number with --devices."
        )
    found = {f.name: given.pop(f.name) for f in fields(TrainOptions) if f.name in given}
    chosen = {name: value for name, value in (found | changes).items() if value is not None}
    return TrainOptions(accelerator=device, **chosen)


def _refuse_training_options() -> None:
    """Refuse what was typed of a training where nothing is trained."""
    from neurostorm_bids.train.options import TrainOptions

    ctx = click.get_current_context()
    names = {f.name for f in fields(TrainOptions)} - {"seed", "batch_size"} | {"validation_share"}
    for param in ctx.command.params:
        is_typed = ctx.get_parameter_source(str(param.name)) == ParameterSource.COMMANDLINE
        if param.name in names and is_typed:
            raise UsageError(
                f"{param.opts[0]} has no effect with --adapt linear, which is fitted without a "
                "training. Leave it out, or choose prompt, lora or full."
            )


def _named_weight(value: str) -> tuple[str, float]:
    name, _, weight = value.partition("=")
    try:
        return name, float(weight)
    except ValueError as err:
        raise UsageError(f"--sampling-weight {value!r} is not of the form NAME=WEIGHT.") from err


def _print_plan(discovery: Discovery, bids_dir: Path) -> None:
    """Print what a call would do: the runs chosen, those left out and those that cannot be run."""
    roots = {run.dataset.path for run in discovery.runs} | {bids_dir.resolve()}

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

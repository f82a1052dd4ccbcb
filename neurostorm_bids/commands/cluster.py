"""Options of Slurm, and the levels as calls in its jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import click

from neurostorm_bids.commands import participant
from neurostorm_bids.commands.levels import LevelOption, belongs_to, is_given, keep_those_of
from neurostorm_bids.commands.shared import COUNT
from neurostorm_bids.commands.training import default_of
from neurostorm_bids.errors import UsageError
from neurostorm_bids.executor.options import Executor, SlurmOptions, parse_sbatch_option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from neurostorm_bids.call import Call

OPTIONS: list[click.Parameter] = [
    LevelOption(
        ["--executor"],
        type=click.Choice(get_args(Executor)),
        default="local",
        show_default=True,
        help="slurm: submit who is not finished as one array of jobs, then a group level of the "
        "same call as a job after it, and return. A task gets --nprocs CPUs (one by default), "
        "--mem of memory and, with --device cuda, a GPU.",
        levels=["participant"],
    ),
    LevelOption(
        ["--participants-per-task"],
        type=COUNT,
        help="Participants that share a task of --executor slurm.  [default: so many that a task "
        "reads 1 GB]",
        levels=["participant"],
    ),
    LevelOption(
        ["--slurm-time", "time_limit"],
        metavar="TIME",
        default=default_of(SlurmOptions, "time_limit"),
        show_default=True,
        help="Time limit of a task; one that runs out of it is started again and goes on, three "
        "times at most.",
        levels=["participant"],
    ),
    LevelOption(
        ["--slurm-option", "sbatch"],
        multiple=True,
        metavar="NAME=VALUE ...",
        help="Further options of sbatch, such as partition=gpu account=lab gres=gpu:a100:1.",
        levels=["participant"],
    ),
    LevelOption(
        ["--wait"],
        is_flag=True,
        help="With --executor slurm: wait for the jobs, list who failed, and exit with 1 if any "
        "did.",
        levels=["participant"],
    ),
]
NAMES = tuple(str(param.name) for param in OPTIONS)
LEVELS = ("participant", "group")
HERE_ONLY = {"clean_workdir", "output_layout", "config_file", "dry_run", "nprocs"}
"""Options that have done their work before a job is submitted, or are written out anew."""
WHOM = {"participant_label", "exclude_participant_label"}


def is_asked_for(ctx: click.Context) -> bool:
    """Return whether jobs are to be submitted.

    Raises
    ------
    UsageError
        If an option of Slurm is given without it: it would have no effect.
    """
    if ctx.params["executor"] == "slurm":
        return True
    for param in ctx.command.params:
        if param.name in NAMES and is_given(ctx, param):
            raise UsageError(
                f"{param.opts[0]} has an effect only with --executor slurm. Leave it out, or add "
                "that."
            )
    return False


def submit(
    ctx: click.Context, levels: Sequence[str], *, main: Callable[[Sequence[str]], int], call: Call
) -> int:
    """Submit the levels as jobs, and return an exit status.

    Parameters
    ----------
    main : the command, as the jobs call it.

    Raises
    ------
    UsageError
        If the levels or options are not for jobs.
    """
    _check(ctx, levels)
    given = keep_those_of("participant", ctx)
    unneeded = {"analysis_level", "verbose", "config_file", "resource_monitor", "dry_run"}
    for name in (*unneeded, "drop_after"):
        del given[name]
    slurm = SlurmOptions(
        time_limit=given.pop("time_limit"),
        participants_per_task=given.pop("participants_per_task"),
        sbatch=tuple(parse_sbatch_option(text) for text in given.pop("sbatch")),
        wait=given.pop("wait"),
    )
    del given["executor"]
    slurm.check()
    is_multiverse = given.pop("output_layout") == "multiverse"
    options = participant.read_options({**given, "call": call})
    # What is missing is found out here, where there may be no GPU.
    on_gpu = options.device.startswith("cuda")
    n_cpus = options.nprocs or 1
    options = replace(options, device="cpu", nprocs=1)
    if is_multiverse:
        options = participant.enter_universe(options)
    from neurostorm_bids.executor.slurm import Resources
    from neurostorm_bids.executor.submission import Calls, describe_packs, pack_missing
    from neurostorm_bids.executor.submission import submit_levels as submit_jobs
    from neurostorm_bids.participant.level import plan_level

    if ctx.params["dry_run"]:
        click.echo(describe_packs(pack_missing(plan_level(options), slurm)))
        return 0
    if options.clean_workdir:
        _check_idle(options.output_dir)
    participant.open_folder(options)
    return submit_jobs(
        options,
        slurm,
        calls=Calls(
            main=main,
            participant=lambda labels: compose_participant(ctx, labels, n_cpus=n_cpus),
            group=compose_group(ctx, options) if "group" in levels else None,
        ),
        resources=Resources(n_cpus, on_gpu=on_gpu, memory_bytes=options.memory_bytes),
    )


def compose_participant(
    ctx: click.Context, labels: Sequence[str], *, n_cpus: int
) -> tuple[str, ...]:
    """Return the words of the participant level for some participants."""
    words = _compose(ctx, "participant", without=HERE_ONLY | WHOM | set(NAMES))
    whom = (f"--participant-label={label}" for label in labels)
    return (*words, f"--nprocs={n_cpus}", *whom)


def compose_group(ctx: click.Context, options: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Return the words of the group level, which knows models by their checksums."""
    from neurostorm_bids.participant.models import load_models

    models = (f"--model={model.provenance.sha256}" for model in load_models(options))
    return (*_compose(ctx, "group", without=HERE_ONLY | {"models"}), *models)


def _check_idle(output_dir: Path) -> None:
    """Refuse to empty the work folder under tasks that use it."""
    from neurostorm_bids.executor.queued import find_queued
    from neurostorm_bids.executor.submission import FOLDER

    queued = find_queued(output_dir / FOLDER)
    if queued:
        raise UsageError(
            f"--clean-workdir would remove what {len(queued)} participant(s) in the queue use (job "
            f"{', '.join(sorted(set(queued.values())))}). Wait for them, or leave it out."
        )


def _check(ctx: click.Context, levels: Sequence[str]) -> None:
    if "participant" not in levels or not set(levels) <= set(LEVELS):
        raise UsageError(
            f"--executor slurm is for the levels {' and '.join(LEVELS)}; found "
            f"{', '.join(levels)}. Trainings run on several nodes with srun: see docs/hpc.md."
        )
    for name in ("run_fmriprep", "reports_only", "boilerplate_only"):
        if ctx.params[name]:
            raise UsageError(
                f"--{name.replace('_', '-')} does its work on this machine, not in jobs. Give it "
                "in a call without --executor slurm."
            )


def _compose(ctx: click.Context, level: str, *, without: set[str]) -> tuple[str, ...]:
    """Return the words of a call of a level, with the options that this call was given for it."""
    words = [str(ctx.params["bids_dir"]), str(ctx.params["output_dir"]), level]
    for param in ctx.command.params:
        name = str(param.name)
        is_option = isinstance(param, click.Option) and param.expose_value
        if not is_option or name in without or not belongs_to(param, [level]):
            continue
        if is_given(ctx, param):
            words += _write_out(param, ctx.params[name])
    return tuple(words)


def _write_out(param: click.Parameter, value: Any) -> list[str]:  # noqa: ANN401 - click's
    """Return the words that give an option its value."""
    option = next(name for name in param.opts if name.startswith("--"))
    if isinstance(value, bool):
        return [option] if value else []
    if getattr(param, "count", False):
        return [option] * int(value)
    values = value if isinstance(value, tuple) else (value,)
    return [f"{option}={one}" for one in values]

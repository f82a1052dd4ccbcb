"""The options of the command, by the level that they belong to; defaults are the options' own."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from neurostorm_bids.errors import UsageError
from neurostorm_bids.train.finetune_options import (
    BY_SITE,
    HELD_OUT,
    K_FOLD,
    MAX_EPOCHS,
    Adapt,
    FinetuneOptions,
    Head,
    TargetKind,
)
from neurostorm_bids.train.options import Precision, Strategy, TrainOptions
from neurostorm_bids.train.pretrain_options import Objective, PretrainOptions, StrdKind

if TYPE_CHECKING:
    from collections.abc import Sequence


class LevelOption(click.Option):
    """An option that belongs to some analysis levels, or to all.

    Parameters
    ----------
    levels : names of the levels; empty for all.
    """

    def __init__(self, *args: Any, levels: Sequence[str] = (), **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self.levels = tuple(levels)


class LevelCommand(click.Command):
    """A command whose help lists the options by level."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section per level, those of all levels first."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None or isinstance(param, click.Argument):
                continue
            levels = getattr(param, "levels", ())
            title = f"Options of {' and '.join(levels)}" if levels else "Options"
            sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def keep_those_of(level: str, ctx: click.Context) -> dict[str, Any]:
    """Return the options that belong to a level.

    Raises
    ------
    UsageError
        If one of another level was typed: it would have no effect.
    """
    kept = {}
    for param in ctx.command.params:
        levels = getattr(param, "levels", ())
        name = str(param.name)
        if not levels or level in levels:
            if param.expose_value and name in ctx.params:
                kept[name] = ctx.params[name]
        elif ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise UsageError(
                f"{param.opts[0]} belongs to the level {' and '.join(levels)}, not to {level}. "
                "Leave it out, or choose that level."
            )
    return kept


def _default(kind: type, name: str) -> Any:  # noqa: ANN401 - as many types as fields
    return next(field.default for field in fields(kind) if field.name == name)


def _train(
    name: str,
    help_text: str,
    *,
    levels: Sequence[str] = ("pretrain", "finetune"),
    **kwargs: Any,  # noqa: ANN401 - click's own
) -> LevelOption:
    """Make the option of a field of `TrainOptions`."""
    default = _default(TrainOptions, name)
    kwargs.setdefault("type", float if isinstance(default, float) else None)
    kwargs.setdefault("default", default)
    return LevelOption(
        [f"--{name.replace('_', '-')}", name],
        show_default=kwargs["default"] is not None,
        help=help_text,
        levels=levels,
        **kwargs,
    )


def _pretrain(
    *declarations: str,
    levels: Sequence[str] = ("pretrain",),
    **kwargs: Any,  # noqa: ANN401 - click's own
) -> LevelOption:
    """Make an option of `PretrainOptions`; the last declaration is the field's name."""
    kwargs.setdefault("default", _default(PretrainOptions, declarations[-1]))
    return LevelOption(list(declarations), levels=levels, **kwargs)


def _finetune(
    *declarations: str,
    levels: Sequence[str] = ("finetune",),
    **kwargs: Any,  # noqa: ANN401 - click's own
) -> LevelOption:
    """Make an option of `FinetuneOptions`; the last declaration is the field's name."""
    kwargs.setdefault("default", _default(FinetuneOptions, declarations[-1]))
    return LevelOption(list(declarations), levels=levels, **kwargs)


def _labels(*declarations: str, metavar: str = "LABEL ...", text: str) -> LevelOption:
    return LevelOption(list(declarations), multiple=True, metavar=metavar, help=text)


_COMPUTING = ("participant", "pretrain", "finetune")
_COUNT = click.IntRange(min=1)
_PATH = click.Path(path_type=Path)

SHARED: list[click.Parameter] = [
    LevelOption(
        ["--model", "models"],
        multiple=True,
        metavar="MODEL ...",
        help="Model folder, published .ckpt file, catalogue name or "
        "hf://owner/repo/file@revision. For pretrain: where to start from. For group: whose "
        "results to read, by the model's name or the beginning of its checksum.",
    ),
    _labels("--participant-label", text="Only these."),
    _labels("--exclude-participant-label", text="All but these."),
    _labels("--session-id", "--session-label", "session_ids", text="Only these sessions."),
    _labels("--task-id", "task_ids", text="Only these tasks."),
    _labels("--run-id", "run_ids", metavar="INDEX ...", text="Only these runs."),
    LevelOption(
        ["--space"],
        help="Standard space to read, such as MNI152NLin6Asym.  [default: the model's own]",
    ),
    LevelOption(
        ["--bids-filter-file"],
        type=_PATH,
        help='JSON as for fMRIPrep; key "bold"; null = absent, "*" = any.',
    ),
    _labels(
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
        levels=_COMPUTING,
    ),
    LevelOption(
        ["--batch-size"],
        default="auto",
        show_default=True,
        help="Clips at once; for pretrain clips per update of the weights, over all devices. auto "
        "or a number.",
        levels=_COMPUTING,
    ),
    LevelOption(
        ["--nprocs", "--n-cpus", "nprocs"],
        type=_COUNT,
        help="CPUs to use in all.  [default: all that are available]",
        levels=_COMPUTING,
    ),
    LevelOption(
        ["--dry-run"],
        is_flag=True,
        help="List every run chosen and every one left out, with why.",
    ),
    LevelOption(["--debug"], is_flag=True, help="As -v, with tracebacks and absolute paths."),
    LevelOption(["-v", "--verbose"], count=True, help="More in the log: shapes, seconds, kernels."),
]

PARTICIPANT: list[click.Parameter] = [
    LevelOption(
        ["--target-scale", "target_scales"],
        multiple=True,
        metavar="NAME=MEAN,SD[,UNIT]",
        help="Mean and standard deviation of a regression target that the model file does not "
        "hold, for example age=28.76,3.68,years. Without them values are reported as z-scores.",
        levels=["participant"],
    ),
    LevelOption(
        ["--omp-nthreads"],
        type=_COUNT,
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

PRETRAIN: list[click.Parameter] = [
    _pretrain(
        "--objective",
        "objective",
        type=click.Choice(get_args(Objective)),
        show_default=True,
        help="Reconstruct masked tokens (mae), tell clips apart (contrastive), or both.",
    ),
    _pretrain(
        "--preset",
        "preset",
        show_default=True,
        help="Network and grid: tiny (tests), base (as published), large, low-res (4 mm), long "
        "(40 volumes).",
    ),
    _pretrain(
        "--embed-dim",
        "embed_dim",
        type=_COUNT,
        help="Channels of the first stage, in place of the preset's.",
    ),
    _pretrain(
        "--mask",
        "mask",
        metavar="SPACE/TIME",
        help="What is masked as a whole: random, window or atlas in space; random or tube in time. "
        " [default: window/random, with --atlas atlas/random]",
    ),
    _pretrain(
        "--mask-ratio",
        "mask_ratio",
        type=float,
        show_default=True,
        help="Share of the units that are masked.",
    ),
    _pretrain(
        "--atlas",
        "atlas",
        metavar="NAME[:VARIANT]|PATH",
        help="Regions to mask and to report errors for: an atlas of TemplateFlow "
        "(Schaefer2018:200), AAL3, or a NIfTI file with its labels beside it. For finetune: "
        "regions of the functional-connectivity baseline.  [there: Schaefer2018:200, or spheres]",
        levels=["pretrain", "finetune"],
    ),
    _pretrain("--strd", "strd", is_flag=True, help="Drop redundant tokens in training."),
    _pretrain(
        "--strd-kind",
        "strd_kind",
        type=click.Choice(get_args(StrdKind)),
        show_default=True,
        help="redundant: the more redundant, the likelier; published: as in the research code.",
    ),
    _pretrain(
        "--strd-rate",
        "strd_rate",
        type=float,
        show_default=True,
        help="Mean share of tokens that redundant drops.",
    ),
    _pretrain(
        "--contrastive-weight",
        "contrastive_weight",
        type=float,
        show_default=True,
        help="Weight of the contrastive loss beside that of mae.",
    ),
    _pretrain(
        "--augment/--no-augment",
        "augment",
        show_default=True,
        help="Turn, scale, smooth and add noise to clips, all volumes of a clip alike.",
    ),
    _pretrain(
        "--validation-share",
        "validation_share",
        type=float,
        show_default=True,
        help="Share of the participants that are never trained on. For finetune: share of a "
        "fold's training participants, who decide when to stop.",
        levels=["pretrain", "finetune"],
    ),
    _pretrain(
        "--sampling-weight",
        "sampling_weights",
        multiple=True,
        metavar="NAME=WEIGHT ...",
        help="Share of each dataset in the samples, in any unit.  [default: as it has clips]",
    ),
    _pretrain(
        "--store-bits",
        "store_bits",
        type=click.Choice(["8", "16"]),
        default=str(_default(PretrainOptions, "store_bits")),
        show_default=True,
        help="Bits per voxel and volume of the prepared runs.",
        levels=["pretrain", "finetune"],
    ),
    _pretrain(
        "-w",
        "--work-dir",
        "work_dir",
        type=_PATH,
        help="Prepared runs and checkpoints.  [default: OUTPUT_DIR/.work]",
        levels=["pretrain", "finetune"],
    ),
    _train(
        "max_epochs",
        "How often the clips of all runs are gone through.  "
        f"[default: {_default(TrainOptions, 'max_epochs')}, for finetune {MAX_EPOCHS}]",
        type=_COUNT,
        default=None,
    ),
    _train("max_steps", "Updates of the weights, in place of --max-epochs.", type=_COUNT),
    _train(
        "micro_batch_size",
        "Clips that a device works on at once; halved when memory runs out.  [default: its share]",
        type=_COUNT,
    ),
    _train("learning_rate", "The highest, reached after the warm-up."),
    _train("warmup_steps", "Updates before that.  [default: a twentieth]", type=int),
    _train("weight_decay", "Of AdamW, on matrices."),
    _train("clip_norm", "Longest gradient."),
    _train("precision", "Of the computation.", type=click.Choice(get_args(Precision))),
    _train("ema_decay", "Of a moving average of the weights.", type=float),
    _train("activation_checkpointing", "Compute twice in place of keeping.", is_flag=True),
    LevelOption(
        ["--random-seed", "seed"],
        default=_default(TrainOptions, "seed"),
        show_default=True,
        help="Of everything random.",
        levels=["pretrain", "finetune", "group"],
    ),
    _train("evaluate_every", "Updates between evaluations.  [default: 20 in all]", type=_COUNT),
    _train("checkpoint_every", "Updates between checkpoints.", type=_COUNT),
    _train(
        "devices",
        "GPUs (or processes) per node.  [default: all, or srun's]",
        type=_COUNT,
        levels=["pretrain"],
    ),
    _train(
        "num_nodes", "Nodes.  [default: torchrun's or srun's]", type=_COUNT, levels=["pretrain"]
    ),
    _train(
        "strategy",
        "How devices share the model.",
        type=click.Choice(get_args(Strategy)),
        levels=["pretrain"],
    ),
    _train("workers", "Threads per device that read ahead.", type=_COUNT),
]

GROUP: list[click.Parameter] = [
    LevelOption(
        ["--target", "targets"],
        multiple=True,
        metavar="NAME[=COLUMN] ...",
        help="For finetune what to learn: a column of participants.tsv, phenotype/ or "
        "sessions.tsv, the entity task, or trial_type of events.tsv. For group only these of the "
        "targets that were predicted; the truth is looked for in the column of the same name, or "
        "in COLUMN.",
        levels=["finetune", "group"],
    ),
    LevelOption(
        ["--color-by", "--colour-by", "colour_by"],
        multiple=True,
        metavar="COLUMN ...",
        help="Columns that the map of the embeddings is coloured by, besides the targets.",
        levels=["group"],
    ),
]

FINETUNE: list[click.Parameter] = [
    _finetune(
        "--target-kind",
        "target_kind",
        type=click.Choice(get_args(TargetKind)),
        help="What the target is.  [default: inferred, and shown]",
    ),
    _finetune(
        "--event-delay",
        "event_delay_s",
        type=float,
        metavar="SECONDS",
        help="For --target trial_type: how much later than an event its response is.  [default: 5]",
    ),
    _finetune(
        "--adapt",
        "adapt",
        type=click.Choice(get_args(Adapt)),
        show_default=True,
        help="What trains beside the head: nothing (linear), prompts, low-rank updates, all.",
    ),
    _finetune(
        "--head",
        "head",
        type=click.Choice(get_args(Head)),
        help="For classes: linear, two linear maps, transformer.  [default: v1]",
    ),
    _finetune("--prompt-len", "prompt_len", type=_COUNT, help="Prompts per window.  [default: 50]"),
    _finetune(
        "--lora-rank", "lora_rank", type=_COUNT, help="Of the low-rank updates.  [default: 8]"
    ),
    _finetune(
        "--splits",
        "splits",
        metavar=f"{K_FOLD}|{HELD_OUT}|{BY_SITE}|PATH",
        show_default=True,
        help="Who is tested: everybody once, a part, each site in turn; or a TSV file with a "
        "column participant_id and one per fold. Always whole participants.",
    ),
    _finetune("--n-folds", "n_folds", type=click.IntRange(min=2), help="[default: 5]"),
    _finetune(
        "--held-out-share",
        "held_out_share",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="[default: 0.2]",
    ),
    _finetune(
        "--group-column",
        "group_column",
        help="Column, such as the family: participants that share a value stay on one side.",
    ),
    _finetune("--site-column", "site_column", help="Column that names the site."),
    _finetune(
        "--confound-columns",
        "confound_columns",
        multiple=True,
        metavar="COLUMN ...",
        help="Columns whose linear effect is removed from the embeddings, as the training "
        "participants show it.",
    ),
    _finetune(
        "--harmonise",
        "harmonise",
        is_flag=True,
        help="Remove differences between sites from the embeddings (ComBat), as the training "
        "participants show them.",
    ),
    _finetune(
        "--balance-classes",
        "balance_classes",
        is_flag=True,
        help="Give every class the same weight, however rare.",
    ),
    _finetune(
        "--coverage",
        "coverage",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        show_default=True,
        help="How often the intervals, or sets of classes, that the model gives for new runs "
        "shall hold the truth.",
    ),
    _finetune(
        "--permutations",
        "n_permutations",
        type=click.IntRange(min=0),
        show_default=True,
        help="For p-values.",
        levels=["finetune", "group"],
    ),
]

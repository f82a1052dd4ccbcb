"""Options of a training, pretraining and fine-tuning alike."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_args

import click

from neurostorm_bids.commands.levels import LevelOption, is_given
from neurostorm_bids.commands.shared import COUNT, PRECISIONS
from neurostorm_bids.errors import UsageError
from neurostorm_bids.train.finetune_options import MAX_EPOCHS, PATIENCE
from neurostorm_bids.train.options import Strategy, TrainOptions

if TYPE_CHECKING:
    from collections.abc import Sequence


def default_of(kind: type, name: str) -> Any:  # noqa: ANN401 - as many types as fields
    """Return the default of a field of a dataclass of options."""
    return next(field.default for field in fields(kind) if field.name == name)


def _train(
    name: str,
    help_text: str,
    *,
    levels: Sequence[str] = ("pretrain", "finetune"),
    **kwargs: Any,  # noqa: ANN401 - click's own
) -> LevelOption:
    """Make the option of a field of `TrainOptions`."""
    default = default_of(TrainOptions, name)
    kwargs.setdefault("type", float if isinstance(default, float) else None)
    kwargs.setdefault("default", default)
    return LevelOption(
        [f"--{name.replace('_', '-')}", name],
        show_default=kwargs["default"] is not None,
        help=help_text,
        levels=levels,
        **kwargs,
    )


OPTIONS: list[click.Parameter] = [
    _train(
        "max_epochs",
        "How often the clips of all runs are gone through.  "
        f"[default: {default_of(TrainOptions, 'max_epochs')}, for finetune {MAX_EPOCHS}]",
        type=COUNT,
        default=None,
    ),
    _train("max_steps", "Updates of the weights, in place of --max-epochs.", type=COUNT),
    _train(
        "micro_batch_size",
        "Clips that a device works on at once; halved when memory runs out.  [default: its share]",
        type=COUNT,
    ),
    _train("learning_rate", "The highest, reached after the warm-up."),
    _train("warmup_steps", "Updates before that.  [default: a twentieth]", type=int),
    _train("weight_decay", "Of AdamW, on matrices."),
    _train("clip_norm", "Longest gradient."),
    _train("ema_decay", "Of a moving average of the weights.", type=float),
    _train("activation_checkpointing", "Compute twice in place of keeping.", is_flag=True),
    LevelOption(
        ["--random-seed", "seed"],
        default=default_of(TrainOptions, "seed"),
        show_default=True,
        help="Of everything random.",
        levels=["pretrain", "finetune", "group"],
    ),
    _train("evaluate_every", "Updates between evaluations.  [default: 20 in all]", type=COUNT),
    _train(
        "patience",
        "End when so many evaluations in a row were no better than the best; 0 never does.  "
        f"[default: {default_of(TrainOptions, 'patience')}, for finetune {PATIENCE}]",
        type=click.IntRange(min=0),
        default=None,
    ),
    _train("checkpoint_every", "Updates between checkpoints.", type=COUNT),
    _train(
        "devices",
        "GPUs (or processes) per node.  [default: all, or srun's]",
        type=COUNT,
        levels=["pretrain"],
    ),
    _train("num_nodes", "Nodes.  [default: torchrun's or srun's]", type=COUNT, levels=["pretrain"]),
    _train(
        "strategy",
        "How devices share the model.",
        type=click.Choice(get_args(Strategy)),
        levels=["pretrain"],
    ),
    _train("workers", "Threads per device that read ahead.", type=COUNT),
]


def take_train_options(given: dict[str, Any], **changes: Any) -> TrainOptions:  # noqa: ANN401
    """Take the options of a training out of click's parameters; None stands for the default."""
    from neurostorm_bids.train.options import TrainOptions

    device = given.pop("device")
    if device not in {"auto", "cpu", "cuda"}:
        raise UsageError(
            f"--device {device!r}: for a training it is auto, cpu or cuda. Choose GPUs with "
            "CUDA_VISIBLE_DEVICES; for pretrain, their number with --devices."
        )
    found = {f.name: given.pop(f.name) for f in fields(TrainOptions) if f.name in given}
    found["precision"] = PRECISIONS[found["precision"]]
    chosen = {name: value for name, value in (found | changes).items() if value is not None}
    return TrainOptions(accelerator=device, **chosen)


def refuse_training_options() -> None:
    """Refuse what was typed of a training where nothing is trained."""
    from neurostorm_bids.train.options import TrainOptions

    ctx = click.get_current_context()
    names = {f.name for f in fields(TrainOptions)} - {"seed", "batch_size"} | {"validation_share"}
    for param in ctx.command.params:
        if param.name in names and is_given(ctx, param):
            raise UsageError(
                f"{param.opts[0]} has no effect with --adapt linear, which is fitted without a "
                "training. Leave it out, or choose prompt, lora or full."
            )

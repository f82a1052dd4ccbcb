"""How a training runs; importable without torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from neurostorm_bids.errors import UsageError

Precision = Literal["32-true", "bf16-mixed"]
Strategy = Literal["auto", "ddp", "fsdp"]

MAX_SEED = 2**32 - 1

_COUNTS = (
    "max_epochs",
    "max_steps",
    "batch_size",
    "micro_batch_size",
    "evaluate_every",
    "evaluation_clips",
    "checkpoint_every",
    "devices",
    "num_nodes",
    "workers",
)
_WITHOUT_EFFECT_ON_WEIGHTS = (
    "max_epochs",  # both are counted in steps, which the checkpoint holds
    "max_steps",
    "micro_batch_size",
    "evaluate_every",
    "patience",
    "checkpoint_every",
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "workers",
)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options of a training, with their defaults.

    Attributes
    ----------
    max_epochs : how often the clips of all runs are gone through.
    max_steps : updates of the weights, in place of `max_epochs`.
    batch_size : samples per update, over all devices and micro-batches.
    micro_batch_size : samples that a device works on at once; None for its whole share of a batch.
        Halved when memory runs out.
    learning_rate : the highest, reached after the warm-up.
    warmup_steps : updates during which the learning rate rises; None for a twentieth of all.
    weight_decay : of AdamW, on the weights of linear maps and convolutions only.
    betas : of AdamW.
    clip_norm : gradients that are longer are shortened to this length.
    precision : ``32-true``, or ``bf16-mixed``: forward and backward pass in bfloat16 where that is
        safe, weights in float32.
    ema_decay : of a moving average of the weights, which is then what is evaluated and exported;
        None for none.
    activation_checkpointing : compute each block twice in place of keeping what it computed.
    seed : of everything random.
    evaluate_every : updates between evaluations; None for twenty evaluations in all.
    patience : evaluations in a row without a lower loss after which the training ends; 0: it never
        ends early.
    evaluation_clips : samples of an evaluation at most, rounded up to whole batches.
    checkpoint_every : updates between checkpoints.
    accelerator : ``auto``, ``cpu`` or ``cuda``.
    devices : per node; None for what torchrun or srun says, else for all there are.
    num_nodes : None for what torchrun or srun says, else for one.
    strategy : ``ddp``: every device holds the model; ``fsdp``: devices share it out; ``auto``:
        ``ddp`` when there are several devices.
    workers : threads per device that read clips ahead.
    """

    max_epochs: int = 100
    max_steps: int | None = None
    batch_size: int = 8
    micro_batch_size: int | None = None
    learning_rate: float = 5e-4
    warmup_steps: int | None = None
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = 1.0
    precision: Precision = "32-true"
    ema_decay: float | None = None
    activation_checkpointing: bool = False
    seed: int = 0
    evaluate_every: int | None = None
    patience: int = 0
    evaluation_clips: int = 256
    checkpoint_every: int = 100
    accelerator: str = "auto"
    devices: int | None = None
    num_nodes: int | None = None
    strategy: Strategy = "auto"
    workers: int = 2

    def __post_init__(self) -> None:
        for name in _COUNTS:
            self._check(name, low=1, high=math.inf)
        self._check("warmup_steps", low=0, high=math.inf)
        self._check("patience", low=0, high=math.inf)
        self._check("seed", low=0, high=MAX_SEED)
        for name in ("learning_rate", "clip_norm"):
            self._check(name, low=0, high=math.inf, is_open=True)
        self._check("weight_decay", low=0, high=math.inf)
        self._check("ema_decay", low=0, high=1, is_open=True)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"The betas of AdamW lie between 0 and 1; found {self.betas}.")
        for name, choices in (("precision", Precision), ("strategy", Strategy)):
            if getattr(self, name) not in get_args(choices):
                raise UsageError(
                    f"{name} is one of {', '.join(get_args(choices))}; "
                    f"found {getattr(self, name)!r}."
                )
        if self.strategy == "fsdp" and self.ema_decay is not None:
            raise UsageError(
                "A moving average of the weights (ema_decay) is not kept when devices share out "
                "the model. Take the strategy ddp, or leave the average out."
            )

    def count_steps(self, samples_per_epoch: int) -> int:
        """Return the updates of a training on data with so many samples per epoch."""
        if self.max_steps is not None:
            return self.max_steps
        return math.ceil(self.max_epochs * samples_per_epoch / self.batch_size)

    def count_evaluation_batches(self, samples_per_epoch: int) -> int:
        """Return the batches of an evaluation on data with so many samples per epoch."""
        return math.ceil(min(self.evaluation_clips, samples_per_epoch) / self.batch_size)

    def find_share(self, n_processes: int) -> int:
        """Return the samples of each batch that one of so many processes works on."""
        if self.batch_size % n_processes:
            raise UsageError(
                f"{self.batch_size} samples per batch cannot be divided evenly among {n_processes} "
                f"devices. Give a batch size that is a multiple of {n_processes}."
            )
        return self.batch_size // n_processes

    def describe_numbers(self) -> dict[str, Any]:
        """Return the options that decide what the weights become; the others may change midway."""
        fields = asdict(self)
        for name in _WITHOUT_EFFECT_ON_WEIGHTS:
            del fields[name]
        return {**fields, "betas": list(self.betas)}

    def _check(self, name: str, *, low: float, high: float, is_open: bool = False) -> None:
        value = getattr(self, name)
        if value is None:
            return
        if not (low < value < high if is_open else low <= value <= high):
            bounds = f"{'above' if is_open else 'at least'} {low:g}"
            bounds += (
                f" and {'below' if is_open else 'at most'} {high:g}" if high < math.inf else ""
            )
            raise UsageError(f"{name} is a number {bounds}; found {value!r}.")

"""How weights are updated: which of them decay, how fast they learn, and their moving average."""

from __future__ import annotations

import math
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from neurostorm_bids.model.block import Block

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from neurostorm_bids.train.options import TrainOptions

_DECAYING = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_EMA_WARMUP = 10


def make_optimizer(model: nn.Module, options: TrainOptions) -> torch.optim.AdamW:
    """Make AdamW for the parameters that train."""
    return torch.optim.AdamW(
        group_parameters(model, weight_decay=options.weight_decay),
        lr=options.learning_rate,
        betas=options.betas,
    )


def group_parameters(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Part the parameters that train into those that decay and those that do not.

    Weights of linear maps and convolutions decay. Norms, biases, embeddings, learned tokens and the
    `A_log` and `D` of Mamba layers do not.
    """
    matrices = {id(m.weight) for m in model.modules() if isinstance(m, _DECAYING)}
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if id(p) in matrices], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in matrices], "weight_decay": 0.0},
    ]


def find_learning_rate(step: int, *, n_steps: int, warmup_steps: int | None, peak: float) -> float:
    """Return the learning rate of an update: a straight rise, then half a cosine towards 0.

    Parameters
    ----------
    step : the update, from 0 to ``n_steps - 1``.
    n_steps : of the whole training.
    warmup_steps : updates of the rise; the next one is the first at the peak. None: a twentieth.
    peak : the highest learning rate.
    """
    rise = n_steps // 20 if warmup_steps is None else min(warmup_steps, n_steps)
    if step < rise:
        return peak * (step + 1) / (rise + 1)
    return peak * (1 + math.cos(math.pi * (step - rise) / (n_steps - rise))) / 2


def checkpoint_activations(model: nn.Module) -> None:
    """Let each block forget what it computed and compute it again for its gradients.

    Random numbers of PyTorch's global generators come out the same the second time.
    """
    for module in model.modules():
        if isinstance(module, Block):
            module.forward = partial(  # type: ignore[method-assign]
                checkpoint, module.forward, use_reentrant=False
            )


class WeightAverage:
    """A moving average of the weights that train.

    Early on it forgets faster: after `n` updates a weight keeps at most (1 + n) / (10 + n) of the
    average.

    Parameters
    ----------
    model : its weights now are the first average.
    decay : share of the average that an update keeps.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._decay, self._weights = decay, trained
        self._averages = {name: p.detach().clone() for name, p in trained.items()}

    @torch.no_grad()
    def update(self, n_updates: int) -> None:
        """Take in the weights after so many updates."""
        decay = min(self._decay, (1 + n_updates) / (_EMA_WARMUP + n_updates))
        for name, weight in self._weights.items():
            self._averages[name].lerp_(weight, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in the place of the weights for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average by the weights' names."""
        return dict(self._averages)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take an average that `state_dict` gave."""
        for name, average in self._averages.items():
            average.copy_(state[name])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._weights.items():
            kept = weight.clone()
            weight.copy_(self._averages[name])
            self._averages[name].copy_(kept)

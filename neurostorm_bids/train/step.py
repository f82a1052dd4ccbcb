"""One update of the weights: forward and backward in micro-batches, over all devices."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from neurostorm_bids.errors import TemporaryError
from neurostorm_bids.train.clips import Batch
from neurostorm_bids.train.devices import end_helper, is_on_any, is_sharded
from neurostorm_bids.train.sampling import Purpose

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lightning_fabric import Fabric
    from torch import Tensor, nn

    from neurostorm_bids.train.clips import LoadedSample

logger = logging.getLogger(__name__)


class Loss(NamedTuple):
    """What an objective returns for a batch.

    Attributes
    ----------
    value : scalar with gradients; a mean over the samples of the batch, so that means over
        micro-batches and devices are means over all samples.
    parts : further scalars to log, by name; the same names for every batch.
    """

    value: Tensor
    parts: Mapping[str, Tensor]


class Objective(Protocol):
    """What a model is trained for.

    Attributes
    ----------
    min_samples : the fewest that a batch may hold, over all devices.
    """

    @property
    def min_samples(self) -> int:  # noqa: D102 - see above
        ...

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Compute the loss of a batch.

        `model` is to be called, and nothing else of it. Whatever is random is drawn from the
        samples' own generators, or within the model from PyTorch's global ones.
        """


class Learner:
    """A model, its optimizer, and how many samples fit on a device at once.

    Parameters
    ----------
    fabric, model, optimizer : model and optimizer as Fabric set them up.
    objective : what for.
    clip_norm : gradients that are longer are shortened to this length.
    micro_batch_size : samples at once; halved when memory runs out.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        *,
        optimizer: torch.optim.Optimizer,
        objective: Objective,
        clip_norm: float,
        micro_batch_size: int,
    ) -> None:
        self.micro_batch_size = micro_batch_size
        self._fabric, self._model, self._optimizer = fabric, model, optimizer
        self._objective, self._clip_norm = objective, clip_norm

    def learn(self, loaded: Sequence[LoadedSample]) -> dict[str, float]:
        """Compute the gradients of a batch, ready for `update`.

        Parameters
        ----------
        loaded : this process's share of the batch.

        Returns
        -------
        dict
            ``loss``, its parts and ``gradient_norm`` (before clipping), of the whole batch: the
            same in all processes. Where one is not finite, the weights must not be updated.
        """
        self._model.train()
        measured = self._measure(loaded, is_learning=True)
        if not math.isfinite(measured["loss"]):
            return {**measured, "gradient_norm": math.nan}
        if not is_sharded(self._fabric):
            self._average_gradients()
        norm = self._fabric.clip_gradients(
            self._model, self._optimizer, max_norm=self._clip_norm, error_if_nonfinite=False
        )
        return {**measured, "gradient_norm": float(norm)}  # type: ignore[arg-type]

    def update(self, learning_rate: float) -> None:
        """Update the weights along the gradients."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad()

    @torch.no_grad()
    def evaluate(self, loaded: Sequence[LoadedSample]) -> dict[str, float]:
        """Measure ``loss`` and its parts on a batch; as `learn`, without gradients."""
        self._model.eval()
        return self._measure(loaded, is_learning=False)

    def _measure(self, loaded: Sequence[LoadedSample], *, is_learning: bool) -> dict[str, float]:
        """Work on micro-batches, smaller ones where memory runs out; average over processes."""
        while True:
            totals = self._try(loaded, is_learning=is_learning)
            ran_out = is_on_any(self._fabric, value=totals is None)
            if totals is not None and not ran_out:
                break
            self._back_off(len(loaded))
        values = torch.stack(list(totals.values()))
        means = torch.as_tensor(self._fabric.all_reduce(values, reduce_op="mean"))
        return dict(zip(totals, means.tolist(), strict=True))

    def _try(
        self, loaded: Sequence[LoadedSample], *, is_learning: bool
    ) -> dict[str, Tensor] | None:
        """Accumulate losses and gradients; None if memory runs out."""
        self._optimizer.zero_grad()
        totals: dict[str, Tensor] = {}
        try:
            for batch in self._cut(loaded):
                for name, value in self._pass(batch, len(loaded), is_learning=is_learning).items():
                    totals[name] = totals[name] + value if name in totals else value
        except torch.cuda.OutOfMemoryError as err:
            if is_sharded(self._fabric):  # the other devices wait for this one's part of the model
                raise self._memory_error() from err
            return None
        return totals

    def _cut(self, loaded: Sequence[LoadedSample]) -> Iterator[Batch]:
        """Cut a share into micro-batches whose sizes differ by one at most."""
        n_parts = math.ceil(len(loaded) / self.micro_batch_size)
        for part in range(n_parts):
            first, stop = (len(loaded) * i // n_parts for i in (part, part + 1))
            yield Batch.join(loaded[first:stop], self._fabric.device)

    def _pass(self, batch: Batch, n_in_all: int, *, is_learning: bool) -> dict[str, Tensor]:
        """Add the gradients of a micro-batch; its part in the means over `n_in_all` samples."""
        share = len(batch.samples) / n_in_all
        torch.manual_seed(batch.samples[0].draw_seed(Purpose.MODEL))
        # Gradients are averaged over processes once, after all micro-batches went well everywhere.
        with self._fabric.no_backward_sync(self._model, enabled=not is_sharded(self._fabric)):  # type: ignore[arg-type]
            value, parts = self._objective(self._model, batch)
            if is_learning:
                self._fabric.backward(value * share)
        named = {"loss": value, **parts}
        return {name: one.detach().float() * share for name, one in named.items()}

    def _average_gradients(self) -> None:
        if self._fabric.world_size == 1:
            return
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        means = torch.as_tensor(self._fabric.all_reduce(flat, reduce_op="mean"))
        parts = torch.split(means, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def _back_off(self, share: int) -> None:
        """Halve the micro-batches of a share of a batch."""
        smaller = self.micro_batch_size // 2
        smallest = share // math.ceil(share / smaller) if smaller else 0
        if smallest * self._fabric.world_size < max(1, self._objective.min_samples):
            end_helper(self._fabric)
            raise self._memory_error()
        if self._fabric.is_global_zero:
            logger.warning(
                "Out of memory with %d sample(s) at once on a device: going on with %d. "
                "The batch stays as it is.",
                self.micro_batch_size,
                smaller,
            )
        self.micro_batch_size = smaller
        if self._fabric.device.type == "cuda":
            torch.cuda.empty_cache()

    def _memory_error(self) -> TemporaryError:
        return TemporaryError(
            f"A device ran out of memory with {self.micro_batch_size} sample(s) at once. What was "
            "saved is kept; the same command goes on with a smaller micro-batch, with activation "
            "checkpointing, or on devices with more memory."
        )

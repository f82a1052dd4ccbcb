"""Integrated gradients (Sundararajan et al., 2017, arXiv 1703.01365), by Captum."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch

from neurostorm_bids.model.batching import choose_batch_size, shrink_batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from captum.attr import IntegratedGradients
    from numpy.typing import NDArray
    from torch import Tensor

    from neurostorm_bids.attribute.quantity import Quantity
    from neurostorm_bids.pretrained import Model

N_STEPS = 32
"""Points on the way from the baseline to the clip, of a Gauss-Legendre rule."""


class Gradients(NamedTuple):
    """What integrated gradients find of one clip.

    Attributes
    ----------
    voxels : float64, shape (X, Y, Z); summed over volumes and channels.
    output, baseline_output : of the clip and of the baseline; the voxels should add up to their
        difference.
    """

    voxels: NDArray[np.float64]
    output: float
    baseline_output: float


def integrate_gradients(
    model: Model,
    clip: Tensor,
    baseline: Tensor,
    *,
    quantity: Quantity,
    n_steps: int = N_STEPS,
    batch_size: int | None = None,
) -> Gradients:
    """Attribute the output for a clip to its voxels, along the straight way from the baseline.

    Parameters
    ----------
    clip, baseline : Tensor, shape (1, C, X, Y, Z, T), on the model's device.
    n_steps : forwards and backwards through the network.
    batch_size : of these, how many at once; None chooses (one on a CPU).
    """
    from captum.attr import IntegratedGradients  # noqa: PLC0415 - seconds, and rarely needed

    def score(clips: Tensor) -> Tensor:
        return quantity.measure(model, clips)

    with _frozen(model):
        found = _attribute(IntegratedGradients(score), clip, baseline, n_steps, batch_size)
        with torch.no_grad():
            outputs = [score(one).double().item() for one in (clip, baseline)]
    voxels = found.detach().double().sum(dim=-1)[0].sum(dim=0)  # (X, Y, Z)
    return Gradients(voxels.cpu().numpy(), *outputs)


def _attribute(
    method: IntegratedGradients,
    clip: Tensor,
    baseline: Tensor,
    n_steps: int,
    batch_size: int | None,
) -> Tensor:
    """Call Captum; halve the number of points at once as often as memory asks."""
    size = min(choose_batch_size(batch_size, clip.device), n_steps)
    while True:
        try:
            found: Tensor = method.attribute(
                clip,
                baselines=baseline,
                n_steps=n_steps,
                method="gausslegendre",
                internal_batch_size=size,
            )
        except torch.OutOfMemoryError as err:
            size = shrink_batch(size, clip.device, err)
        else:
            return found


@contextmanager
def _frozen(model: Model) -> Iterator[None]:
    """Ask for no gradients of weights, which would hold what the layers read in memory."""
    parts = [part for part in (model.backbone, model.head) if part is not None]
    parameters = [p for part in parts for p in part.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)  # noqa: FBT003 - PyTorch's own
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)  # noqa: FBT003

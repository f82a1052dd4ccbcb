"""Contrastive objectives: two views of one thing attract, those of different things repel.

Each takes two views, `a` and `b`, of N clips as vectors (N, D). On several processes, gather the
views and their numbers first, by an all-gather whose gradients are summed over processes, and let
every process compute the loss of all of them: averaged over processes, as data-parallel training
does, the gradient is then that of one process with the whole batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from neurostorm_bids.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

TEMPERATURE = 0.1


def instance_contrastive(
    a: Tensor, b: Tensor, *, participants: Tensor, temperature: float = TEMPERATURE
) -> Tensor:
    """Tell a participant from the others, by two clips of each.

    Other clips of the same participant neither attract nor repel.

    Parameters
    ----------
    a, b : Tensor, shape (N, D); row i of both shows the same participant.
    participants : Tensor of integers, shape (N,), one number per person.
    temperature : see `nt_xent`.
    """
    repels = participants.unsqueeze(0) != participants.unsqueeze(1)
    return nt_xent(a, b, repels=repels, temperature=temperature)


def local_local_contrastive(
    a: Tensor, b: Tensor, *, runs: Tensor, temperature: float = TEMPERATURE
) -> Tensor:
    """Tell a clip from the other clips of its run, by two augmentations of each.

    Parameters
    ----------
    a, b : Tensor, shape (N, D); row i of both shows the same clip.
    runs : Tensor of integers, shape (N,), one number per run.
    temperature : see `nt_xent`.
    """
    repels = runs.unsqueeze(0) == runs.unsqueeze(1)
    repels = repels & ~torch.eye(len(runs), dtype=torch.bool, device=runs.device)
    return nt_xent(a, b, repels=repels, temperature=temperature)


def nt_xent(
    a: Tensor, b: Tensor, *, repels: Tensor | None = None, temperature: float = TEMPERATURE
) -> Tensor:
    """Cross-entropy of finding each vector's other view among those that it must not resemble.

    The normalised temperature-scaled cross-entropy of Chen et al. (arXiv 2002.05709), computed in
    float32 at least: mean over both views of every row of
    -log(exp(s_pos) / (exp(s_pos) + sum exp(s_neg))), with s = cosine / temperature.

    Parameters
    ----------
    a, b : Tensor, shape (N, D); row i of both makes a positive pair.
    repels : Tensor of bool, shape (N, N): whether row j, in both views, is a negative of row i.
        None: every other row. Rows without any negative are left out of the mean.
    temperature : above 0; the smaller, the more the nearest negatives weigh.

    Returns
    -------
    Tensor, scalar

    Raises
    ------
    UsageError
        If no row has a negative.
    """
    n_rows = len(a)
    if repels is None:
        repels = ~torch.eye(n_rows, dtype=torch.bool, device=a.device)
    has_negative = repels.any(dim=1).repeat(2)
    if not bool(has_negative.any()):
        raise UsageError(
            f"The contrastive loss needs clips to tell apart, found none among {n_rows} pairs. "
            "Take a larger batch, with several participants and several clips of each run."
        )
    dtype = torch.promote_types(a.dtype, torch.float32)
    with torch.autocast(a.device.type, enabled=False):
        views = functional.normalize(torch.cat([a, b]).to(dtype), dim=1)
        logits = views @ views.t() / temperature  # (2 N, 2 N)
        positive = torch.arange(2 * n_rows, device=a.device).roll(n_rows)
        counts = repels.repeat(2, 2)
        counts[torch.arange(2 * n_rows, device=a.device), positive] = True
        logits = logits.masked_fill(~counts, -torch.inf)
        return functional.cross_entropy(logits[has_negative], positive[has_negative])

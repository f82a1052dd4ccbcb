"""STRD, spatiotemporal redundancy dropout: in training, zero tokens of a Mamba layer's output.

Two ways to the probability with which a token is dropped. ``published`` is the research code's
formula, kept to repeat its training: it drops next to nothing, and redundant tokens less than
others. ``redundant`` does what was meant: the more a token resembles a neighbour in space and one
in time, the likelier it is dropped, at a mean rate that is set.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from neurostorm_bids.model.block import Block
from neurostorm_bids.model.fields import check_choice, check_int, check_real
from neurostorm_bids.model.windows import fit_window

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from neurostorm_bids.model.backbone import Backbone
    from neurostorm_bids.model.config import Size4

CHUNK_VALUES = 2**25
"""Similarities between tokens that are held at once, at most: 128 MiB in float32."""
_PUBLISHED_EPS = 1e-8


@dataclass(frozen=True, kw_only=True)
class StrdConfig:
    """How tokens are dropped.

    Attributes
    ----------
    kind : how the probability follows from the tokens; see the module.
    rate : mean share of a batch's tokens that every layer drops; ``redundant`` only.
    space_span, time_span : sides of a token's neighbourhood, in tokens along each spatial axis and
        in volumes: neighbours lie within half of it on either side.
    """

    kind: Literal["published", "redundant"] = "redundant"
    rate: float = 0.1
    space_span: int = 5
    time_span: int = 5

    def __post_init__(self) -> None:
        check_choice(self, "kind", ("published", "redundant"))
        check_real(self, "rate", low=0.0, high=1.0)
        check_int(self, "space_span", low=1, high=4096)
        check_int(self, "time_span", low=1, high=4096)


class Neighbours(NamedTuple):
    """Which tokens of a window are neighbours; neither set holds the token itself.

    Attributes
    ----------
    space : Tensor of bool, shape (N, N): of the same volume, near on every spatial axis.
    time : Tensor of bool, shape (N, N): at the same position, in a near volume.
    """

    space: Tensor
    time: Tensor


def attach_strd(backbone: Backbone, config: StrdConfig) -> None:
    """Let every Mamba layer of an encoder drop tokens of its output, in training alone.

    A forward hook per layer: no parameters, and nothing in the state dict. Randomness is PyTorch's
    global generator, as for other dropout, so that activation checkpointing repeats it. A rate of 0
    hooks nothing, so that blocks go on as a whole.
    """
    if config.kind == "redundant" and config.rate == 0:
        return
    for index, stage in enumerate(backbone.layers):
        for block in stage.modules():
            if isinstance(block, Block):
                grid = backbone.config.stage_grid(index)
                window, _ = fit_window(grid, block.window, shifted=False)
                hook = functools.partial(_drop_output, config=config, window=window)
                block.mamba.register_forward_hook(hook)


def drop_tokens(
    h: Tensor, window: Size4, *, config: StrdConfig, generator: Generator | None = None
) -> Tensor:
    """Zero tokens at random, without scaling up those that stay.

    Parameters
    ----------
    h : Tensor, shape (b, N, C), the tokens of b windows, T fastest.
    window : sides along X, Y, Z, T, in tokens; their product is N.
    config : how.
    generator : source of randomness; None for PyTorch's global one.
    """
    probability = find_drop_probability(h, window, config=config)
    dropped = torch.bernoulli(probability, generator=generator).bool()
    return h.masked_fill(dropped.unsqueeze(-1), 0)


@torch.no_grad()
def find_drop_probability(h: Tensor, window: Size4, *, config: StrdConfig) -> Tensor:
    """Return the probability (b, N) with which each token of h (b, N, C) is dropped."""
    neighbours = _find_neighbours(window, config.space_span, config.time_span, h.device)
    measure = score_published if config.kind == "published" else measure_redundancy
    n_chunks = -(-len(h) * h.shape[1] ** 2 // CHUNK_VALUES)
    with torch.autocast(h.device.type, enabled=False):
        tokens = h.to(torch.promote_types(h.dtype, torch.float32))
        measured = torch.cat([measure(part, neighbours) for part in tokens.tensor_split(n_chunks)])
    if config.kind == "published":
        return measured
    probability = torch.zeros_like(measured)
    is_token = tokens.any(-1)  # a Mamba layer makes zeros of padding, which has nothing to drop
    probability[is_token] = _rank_to_rate(measured[is_token], config.rate)
    return probability


def score_published(h: Tensor, neighbours: Neighbours) -> Tensor:
    """Return the published drop score (b, N) of tokens h (b, N, C).

    With A = softmax(h h' / sqrt(C)) and f_s, f_t the largest A of token i within its neighbours in
    space and time, it is the sum over all j of
    W_ij = (f_t A_ij / (sum_space A_ij + 1e-8) + f_s A_ij / (sum_time A_ij + 1e-8)) / 2, clamped to
    [0, 1], divided by the number of neighbours and clamped again; 0 in windows that are a single
    volume or a single position, where tokens lack one kind of neighbour.
    """
    if not (neighbours.space.any() and neighbours.time.any()):
        return h.new_zeros(h.shape[:2])
    attention = torch.softmax(h @ h.mT / h.shape[-1] ** 0.5, dim=-1)
    in_space, in_time = attention * neighbours.space, attention * neighbours.time
    per_space = in_time.amax(-1) / (in_space.sum(-1) + _PUBLISHED_EPS)
    per_time = in_space.amax(-1) / (in_time.sum(-1) + _PUBLISHED_EPS)
    weights = attention.mul_(((per_space + per_time) / 2).unsqueeze(-1)).clamp_(0, 1)
    n_neighbours = neighbours.space.sum(-1) + neighbours.time.sum(-1)
    return (weights.sum(-1) / n_neighbours).clamp(0, 1)


def measure_redundancy(h: Tensor, neighbours: Neighbours) -> Tensor:
    """Return how redundant tokens h (b, N, C) are: (b, N), from 0 to 1 for identical neighbours.

    The likeness of two tokens is 1 - |h_i - h_j|^2 / (|h_i|^2 + |h_j|^2), not below 0; redundancy
    is the mean of the likeness to the most similar neighbour in space and to that in time.
    """
    energy = h.square().sum(-1)
    both = energy.unsqueeze(-1) + energy.unsqueeze(-2)
    likeness = (2 * (h @ h.mT)).div_(both.clamp(min=torch.finfo(h.dtype).tiny)).clamp_(0, 1)
    most = (likeness * neighbours.space).amax(-1) + (likeness * neighbours.time).amax(-1)
    n_sets = int(neighbours.space.any()) + int(neighbours.time.any())
    return most / max(1, n_sets)


def _rank_to_rate(redundancy: Tensor, rate: float) -> Tensor:
    """Turn redundancy (n,) into a probability that rises with its rank and is `rate` on average.

    It is linear in the rank, from 0 to twice the rate (above a half, from where it ends at 1);
    tokens as redundant as each other share the middle of their ranks.
    """
    ordered = redundancy.sort().values
    below = torch.searchsorted(ordered, redundancy)
    not_above = torch.searchsorted(ordered, redundancy, right=True)
    rank = (below + not_above).to(redundancy.dtype) / max(1, 2 * len(redundancy))
    return 2 * rate * rank if rate <= 0.5 else 1 - 2 * (1 - rate) * (1 - rank)  # noqa: PLR2004


def _drop_output(
    mixer: nn.Module,
    inputs: tuple[Any, ...],  # noqa: ARG001 - a hook is called with it
    output: Tensor,
    *,
    config: StrdConfig,
    window: Size4,
) -> Tensor | None:
    """Drop tokens of a Mamba layer's output; a clip shorter than the model's may cut windows."""
    if not mixer.training:
        return None
    x, y, z, _ = window
    return drop_tokens(output, (x, y, z, output.shape[1] // (x * y * z)), config=config)


@functools.lru_cache(maxsize=16)
def _find_neighbours(
    window: Size4, space_span: int, time_span: int, device: torch.device
) -> Neighbours:
    sides = [torch.arange(side, device=device) for side in window]
    place = torch.cartesian_prod(*sides)  # (N, 4)
    apart = (place.unsqueeze(0) - place.unsqueeze(1)).abs()  # (N, N, 4)
    far_in_space, far_in_time = apart[..., :3].amax(-1), apart[..., 3]
    space = (far_in_time == 0) & (far_in_space <= space_span // 2) & (far_in_space > 0)
    time = (far_in_space == 0) & (far_in_time <= time_span // 2) & (far_in_time > 0)
    return Neighbours(space=space, time=time)

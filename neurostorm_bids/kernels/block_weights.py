"""What a block has learned, as the kernels of blocks take it, and what shapes it must have."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from neurostorm_bids.kernels.scan import MAX_STATES

if TYPE_CHECKING:
    from torch import Tensor


class BlockWeights(NamedTuple):
    """What a block has learned, in float32; linear maps as PyTorch keeps them, (n_out, n_in).

    Attributes
    ----------
    norm1, norm1_bias, norm2, norm2_bias : Tensor, shape (dim,)
    in_proj : Tensor, shape (2 inner, dim)
    conv : Tensor, shape (inner, 1, taps)
    conv_bias : Tensor, shape (inner,)
    x_proj : Tensor, shape (rank + 2 n_states, inner)
    step_proj : Tensor, shape (inner, rank)
    step_bias : Tensor, shape (inner,)
    rates : Tensor, shape (inner, n_states), the scan's A.
    skip : Tensor, shape (inner,)
    out_proj : Tensor, shape (dim, inner)
    linear1 : Tensor, shape (wide, dim)
    linear1_bias : Tensor, shape (wide,)
    linear2 : Tensor, shape (dim, wide)
    linear2_bias : Tensor, shape (dim,)
    prompts : Tensor, shape (n_prompts, dim), or None.
    """

    norm1: Tensor
    norm1_bias: Tensor
    norm2: Tensor
    norm2_bias: Tensor
    in_proj: Tensor
    conv: Tensor
    conv_bias: Tensor
    x_proj: Tensor
    step_proj: Tensor
    step_bias: Tensor
    rates: Tensor
    skip: Tensor
    out_proj: Tensor
    linear1: Tensor
    linear1_bias: Tensor
    linear2: Tensor
    linear2_bias: Tensor
    prompts: Tensor | None


def measure_block(
    tokens: Tensor, index: Tensor, weights: BlockWeights, shares: Tensor | None = None
) -> dict[str, int]:
    """Return the sizes; let nothing reach C that would be read past its end.

    Parameters
    ----------
    tokens : Tensor, shape (n, dim)
    index : Tensor, shape (n_windows, N)
    weights : what the block has learned.
    shares : Tensor, shape (n_windows, 2), or None.

    Raises
    ------
    ValueError
        When shapes, precisions or devices do not fit together.
    """
    inner, n_states = weights.rates.shape
    found = {
        "n_windows": index.shape[0],
        "n_tokens": index.shape[1],
        "n_prompts": 0 if weights.prompts is None else len(weights.prompts),
        "dim": tokens.shape[1],
        "inner": inner,
        "wide": weights.linear1.shape[0],
        "rank": weights.step_proj.shape[1],
        "n_states": n_states,
        "taps": weights.conv.shape[-1],
    }
    shapes = _expect_shapes(found, len(tokens))
    for name, part in {"tokens": tokens, "shares": shares, **weights._asdict()}.items():
        if part is None:
            continue
        expected = shapes.get(name, (inner,))
        if tuple(part.shape) != expected or part.dtype != torch.float32 or not part.is_cpu:
            what = f"{tuple(part.shape)} of {part.dtype} on {part.device}"
            raise ValueError(
                f"Expected {name} to be {expected} of float32 on the CPU, found {what}"
            )
    if index.dtype != torch.int64 or not index.is_cpu or not _is_within(index, len(tokens)):
        raise ValueError(f"Expected the index to hold numbers from -1 to {len(tokens) - 1}")
    if not 1 <= n_states <= MAX_STATES:
        raise ValueError(f"Expected 1 to {MAX_STATES} state values per channel, found {n_states}")
    return found


def _expect_shapes(sizes: dict[str, int], n_tokens: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of those tensors that have not one value per inner channel."""
    dim, inner, wide, rank = (sizes[name] for name in ("dim", "inner", "wide", "rank"))
    return {
        "tokens": (n_tokens, dim),
        "shares": (sizes["n_windows"], 2),
        **dict.fromkeys(("norm1", "norm1_bias", "norm2", "norm2_bias", "linear2_bias"), (dim,)),
        "in_proj": (2 * inner, dim),
        "conv": (inner, 1, sizes["taps"]),
        "x_proj": (rank + 2 * sizes["n_states"], inner),
        "step_proj": (inner, rank),
        "rates": (inner, sizes["n_states"]),
        "out_proj": (dim, inner),
        "linear1": (wide, dim),
        "linear1_bias": (wide,),
        "linear2": (dim, wide),
        "prompts": (sizes["n_prompts"], dim),
    }


def _is_within(index: Tensor, n_tokens: int) -> bool:
    return index.numel() == 0 or (index.min().item() >= -1 and index.max().item() < n_tokens)

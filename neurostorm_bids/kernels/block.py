"""A whole block in C: the Mamba layer over each window and the perceptron over each token."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neurostorm_bids.kernels.block_weights import BlockWeights, measure_block
from neurostorm_bids.kernels.packing import run_packed

if TYPE_CHECKING:
    from torch import Tensor

BACKWARD_PARTS = 16
"""Parts of the backward, at most, whatever the number of threads: sums over them are the same."""
PART_TOKENS = 64
"""Tokens of such a part, at least: each has gradients of all weights to itself."""

_BUFFERS = ("shares", "between", "grad_to", "grad_from", "grads", "places", "packed")
_SIZES = (
    *("n_windows", "n_tokens", "n_prompts"),
    *("dim", "inner", "wide", "rank", "n_states", "taps", "group", "grads_size", "next"),
)
_SCANNED = ("rates", "skip", "step_bias")
_GRADIENTS = (*_SCANNED, *(name for name in BlockWeights._fields if name not in _SCANNED))
"""Weights in the order of the enumeration in ``kernels.h``."""
_MATRICES = frozenset({"in_proj", "x_proj", "step_proj", "out_proj", "linear1", "linear2"})
"""Weights whose gradients cost time, and are left out where nobody asks for them."""


class _Job(ctypes.Structure):
    """``ns_block`` of ``kernels.h``, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("from", "to", "index")),
        *((name, ctypes.c_void_p) for name in (*BlockWeights._fields, *_BUFFERS)),
        *((name, ctypes.c_int64) for name in _SIZES),
        ("epsilon", ctypes.c_float),
    )


class _Inputs(NamedTuple):
    """What the block reads; see `update_block_c`."""

    tokens: Tensor
    windows: Tensor
    shares: Tensor | None
    weights: BlockWeights


def update_block_c(
    tokens: Tensor,
    index: Tensor,
    weights: BlockWeights,
    *,
    epsilon: float,
    shares: Tensor | None = None,
    may_overwrite: bool = False,
) -> Tensor:
    """Return x + mixer(norm1(x)), plus the perceptron of the norm2 of that.

    Each thread takes a window at a time and keeps all between its tokens and their update in its
    cache. The products are the kernel's own. For gradients, which are float32 too, the tokens and
    their first sum are kept; the backward computes the rest of a window again.

    Parameters
    ----------
    tokens : Tensor of float32, shape (n, dim)
    index : Tensor of int64, shape (n_windows, N) : which token stands where in a window, -1 for
        padding; each token stands somewhere, once.
    weights : what the block has learned.
    epsilon : what both norms add to a variance.
    shares : Tensor of float32, shape (n_windows, 2) : what each of the two updates is multiplied
        by; None for ones.
    may_overwrite : whether the result may take the tokens' memory, where no gradient is asked for.

    Returns
    -------
    Tensor, shape (n, dim)

    Raises
    ------
    MissingFileError
        When the library was not built.
    ValueError
        When shapes do not fit together.
    """
    inputs = _Inputs(tokens, index, shares, weights)
    followed = (tokens, *weights)
    if torch.is_grad_enabled() and any(p is not None and p.requires_grad for p in followed):
        updated: Tensor = _Update.apply(epsilon, index, shares, *followed)  # type: ignore[no-untyped-call]
        return updated
    to = tokens if may_overwrite and tokens.is_contiguous() else _make_room(tokens)
    return _run_forward(inputs, epsilon, to, between=None)


class _Update(Function):
    """The block with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        epsilon: float,
        index: Tensor,
        shares: Tensor | None,
        tokens: Tensor,
        *weights: Tensor | None,
    ) -> Tensor:
        """Return the updated tokens (n, dim)."""
        between = _make_room(tokens)
        inputs = _Inputs(tokens, index, shares, BlockWeights(*weights))  # type: ignore[arg-type]
        ctx.epsilon = epsilon
        ctx.save_for_backward(between, index, shares, tokens, *weights)
        return _run_forward(inputs, epsilon, _make_room(tokens), between=between)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_to: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return the gradients of the tokens and of the fields of `BlockWeights`."""
        between, index, shares, tokens, *weights = ctx.saved_tensors
        inputs = _Inputs(tokens, index, shares, BlockWeights(*weights))
        asked = dict(zip(BlockWeights._fields, ctx.needs_input_grad[4:], strict=True))
        grads = {"between": between, "grad_to": grad_to}
        return None, None, None, *_run_backward(inputs, ctx.epsilon, grads, asked)


def _make_room(tokens: Tensor) -> Tensor:
    return torch.empty_like(tokens, memory_format=torch.contiguous_format)


def _run_forward(inputs: _Inputs, epsilon: float, to: Tensor, *, between: Tensor | None) -> Tensor:
    """Write the updated tokens to `to`; these may be the tokens, as a window reads its own only."""
    job, tensors = _describe(inputs, epsilon)
    run_packed(
        "block_forward", job, {**tensors, "to": to, "between": between}, n_parts=job.n_windows
    )
    return to


def _run_backward(
    inputs: _Inputs, epsilon: float, given: dict[str, Tensor], asked: dict[str, bool]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the tokens and of those weights that are asked for."""
    grad_from = _make_room(inputs.tokens)
    job, tensors = _describe(inputs, epsilon)
    weights = inputs.weights._asdict()
    sizes = [0 if (part := weights[name]) is None else part.numel() for name in _GRADIENTS]
    places = torch.tensor([0, *sizes]).cumsum(0)
    n_parts = max(1, min(BACKWARD_PARTS, inputs.windows.numel() // PART_TOKENS))
    job.grads_size, job.group = int(places[-1]), max(1, -(-job.n_windows // n_parts))
    places = places[:-1]
    starts = dict(zip(_GRADIENTS, places.tolist(), strict=True))
    for number, name in enumerate(_GRADIENTS):
        if name in _MATRICES and not asked[name]:
            places[number] = -1
    n_parts = -(-job.n_windows // job.group)
    grads = torch.zeros(max(1, n_parts), job.grads_size)
    tensors |= {"grad_from": grad_from, "grads": grads, "places": places}
    tensors |= {name: part.contiguous() for name, part in given.items()}
    run_packed("block_backward", job, tensors, n_parts=n_parts)
    total = grads[0]
    for part in grads[1:]:
        total += part
    found = (
        _read_gradient(total, starts[name], name, weights[name]) if asked[name] else None
        for name in weights
    )
    return grad_from, *found


def _read_gradient(grads: Tensor, start: int, name: str, weight: Tensor) -> Tensor:
    """Return a weight's gradient, of the weight's shape, in memory of its own."""
    grad = grads[start : start + weight.numel()].clone()
    if name == "rates":
        return grad.view(weight.shape[::-1]).t()
    if name == "conv":
        return grad.view(weight.shape[-1], -1).t().unsqueeze(1)
    return grad.view(weight.shape)


def _describe(inputs: _Inputs, epsilon: float) -> tuple[_Job, dict[str, Tensor | None]]:
    """Return the struct with its sizes, and what its pointers point to."""
    weights = inputs.weights
    sizes = measure_block(inputs.tokens, inputs.windows, weights, inputs.shares)
    tensors: dict[str, Tensor | None] = {
        **weights._asdict(),
        "conv": weights.conv[:, 0].t(),
        "rates": weights.rates.t(),
        "from": inputs.tokens,
        "index": inputs.windows,
        "shares": inputs.shares,
    }
    tensors = {k: None if part is None else part.contiguous() for k, part in tensors.items()}
    return _Job(**sizes, epsilon=epsilon), tensors

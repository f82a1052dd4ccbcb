"""A whole block in Triton: four kernels forward; backward, the block is made again and followed."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from triton.runtime.errors import OutOfResources

from neurostorm_bids.kernels.block_weights import BlockWeights
from neurostorm_bids.kernels.triton.block_kernels import (
    finish_tokens,
    prepare_scan,
    project_windows,
)
from neurostorm_bids.kernels.triton.filters import filter_causally
from neurostorm_bids.kernels.triton.scan import selective_scan_triton

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

MAX_DIM = 512
"""Channels of a token, at most, for which all of its row is kept on chip."""
LEAST = 16
"""The smallest side of a product."""


class _Plan(NamedTuple):
    """What a block is computed with, and needs no gradient; see `update_block_triton`.

    Attributes
    ----------
    windows : the index.
    shares, epsilon : as given.
    dtype : precision of the products.
    """

    windows: Tensor
    shares: Tensor | None
    epsilon: float
    dtype: torch.dtype


def update_block_triton(
    tokens: Tensor,
    index: Tensor,
    weights: BlockWeights,
    *,
    epsilon: float,
    shares: Tensor | None = None,
    may_overwrite: bool = False,
) -> Tensor:
    """Return x + mixer(norm1(x)), plus the perceptron of the norm2 of that, in tokens' precision.

    Products are in autocast's precision where that is on, else in the tokens'; sums, norms and
    states in float32. The gradient keeps the tokens alone.

    Parameters
    ----------
    tokens : Tensor, shape (n, dim), of float32 or half precision.
    index : Tensor of int64, shape (n_windows, N) : which token stands where in a window, -1 for
        padding; each token stands somewhere, once. What it holds is not checked.
    weights : what the block has learned.
    epsilon : what both norms add to a variance.
    shares : Tensor, shape (n_windows, 2) : what each of the two updates is multiplied by; None for
        ones.
    may_overwrite : as of `kernels.block.update_block_c`; makes no difference here.

    Returns
    -------
    Tensor, shape (n, dim)
    """
    del may_overwrite
    device = tokens.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else tokens.dtype
    plan = _Plan(index, shares, epsilon, dtype)
    updated: Tensor = _Block.apply(plan, tokens, *weights)  # type: ignore[no-untyped-call]
    return updated


class _Block(Function):
    """The block with its gradient, which keeps what it was given and makes the rest again."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - autograd's own context
        plan: _Plan,
        tokens: Tensor,
        *weights: Tensor | None,
    ) -> Tensor:
        """Return the updated tokens (n, dim)."""
        ctx.epsilon, ctx.dtype = plan.epsilon, plan.dtype
        ctx.save_for_backward(plan.windows, plan.shares, tokens, *weights)
        autocast = torch.autocast(tokens.device.type, enabled=False)
        with autocast, torch.cuda.device_of(tokens):  # type: ignore[no-untyped-call]
            return _run_forward(tokens, BlockWeights(*weights), plan)  # type: ignore[arg-type]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return the gradients of the tokens and of the weights."""
        index, shares, *given = ctx.saved_tensors
        plan = _Plan(index, shares, ctx.epsilon, ctx.dtype)
        with torch.enable_grad(), torch.autocast(grad.device.type, enabled=False):
            leaves = [None if part is None else part.detach() for part in given]
            wanted = [
                leaf.requires_grad_()
                for leaf, is_wanted in zip(leaves, ctx.needs_input_grad[1:], strict=True)
                if leaf is not None and is_wanted
            ]
            tokens, *weights = leaves
            updated = compose_block(tokens, BlockWeights(*weights), plan)  # type: ignore[arg-type]
            found = iter(torch.autograd.grad(updated, wanted, grad))
        grads = (next(found) if needed else None for needed in ctx.needs_input_grad[1:])
        return None, *grads


def compose_block(tokens: Tensor, weights: BlockWeights, plan: _Plan) -> Tensor:
    """Update tokens as `update_block_triton` does, by PyTorch's operations around filter and scan.

    It records gradients, and sums them in the same order every time.
    """
    w, index, dtype = weights, plan.windows, plan.dtype
    places, spots = index.flatten(), _find_places(index, len(tokens))
    normed = _normalise(tokens, w.norm1, w.norm1_bias, plan)
    windows = _pick(normed, places, spots).view(*index.shape, -1)
    if w.prompts is not None:
        prompts = w.prompts.to(dtype).expand(len(windows), -1, -1)
        windows = torch.cat([prompts, windows], dim=1)
    hidden, gate = functional.linear(windows, w.in_proj.to(dtype)).chunk(2, dim=-1)
    hidden = filter_causally(hidden, w.conv, w.conv_bias)  # from here to y in float32
    rank, n_states = w.step_proj.shape[1], w.rates.shape[1]
    projected = functional.linear(hidden, w.x_proj.float())
    step, B, C = torch.split(projected, [rank, n_states, n_states], dim=-1)
    y = selective_scan_triton(
        hidden.transpose(1, 2),
        functional.linear(step, w.step_proj.float()).transpose(1, 2),
        w.rates,
        B.transpose(1, 2),
        C.transpose(1, 2),
        D=w.skip,
        z=gate.transpose(1, 2),
        delta_bias=w.step_bias,
        delta_softplus=True,
    )
    y = y.transpose(1, 2)[:, -index.shape[1] :]
    mixed = functional.linear(y.to(dtype), w.out_proj.to(dtype))
    if plan.shares is not None:
        mixed = mixed * plan.shares[:, :1, None].to(dtype)
    x = tokens + _pick(mixed.flatten(0, 1), spots, places).to(tokens.dtype)
    normed = _normalise(x, w.norm2, w.norm2_bias, plan)
    wide = functional.gelu(functional.linear(normed, w.linear1.to(dtype), w.linear1_bias.to(dtype)))
    found = functional.linear(wide, w.linear2.to(dtype), w.linear2_bias.to(dtype))
    if plan.shares is not None:
        windows_of = spots.div(index.shape[1], rounding_mode="floor")
        found = found * plan.shares[:, 1].index_select(0, windows_of)[:, None].to(dtype)
    return x + found.to(tokens.dtype)


def _run_forward(tokens: Tensor, weights: BlockWeights, plan: _Plan) -> Tensor:
    """Return the updated tokens by the kernels, or without them where they find no room."""
    if tokens.shape[1] > MAX_DIM or not plan.windows.numel():
        return compose_block(tokens, weights, plan)
    flat = BlockWeights(*(None if part is None else part.contiguous() for part in weights))  # type: ignore[arg-type]
    try:
        return _run_kernels(tokens.contiguous(), flat, plan)
    except OutOfResources as err:
        _say_once(f"Blocks of {tokens.shape[1]} channels by PyTorch around the scan: {err}")
        return compose_block(tokens, weights, plan)


def _run_kernels(tokens: Tensor, weights: BlockWeights, plan: _Plan) -> Tensor:
    w, index = weights, plan.windows.contiguous()
    shares = None if plan.shares is None else plan.shares.contiguous()
    (n_windows, n_tokens), dim, (inner, n_states) = index.shape, tokens.shape[1], w.rates.shape
    n_prompts = 0 if w.prompts is None else len(w.prompts)
    length, rank = n_tokens + n_prompts, w.step_proj.shape[1]
    n_rows = n_windows * length
    sizes = choose_sizes(dim, rank=rank, n_states=n_states, dtype=plan.dtype)

    mixed = tokens.new_empty(n_rows, 2 * inner, dtype=plan.dtype)
    tiles = triton.cdiv(n_rows, sizes["project"]["rows"])
    project_windows[tiles, triton.cdiv(2 * inner, sizes["project"]["columns"])](
        *(tokens, index, w.prompts, w.norm1, w.norm1_bias, w.in_proj, mixed),
        *(n_rows, n_tokens, n_prompts, plan.epsilon),
        dim=dim,
        n_out=2 * inner,
        **sizes["project"],
    )
    hidden = tokens.new_empty(n_windows, length, inner, dtype=plan.dtype)
    step = torch.empty_like(hidden)
    projected = tokens.new_empty(n_windows, length, 2 * n_states, dtype=torch.float32)
    prepare_scan[triton.cdiv(n_rows, sizes["prepare"]["rows"]),](
        *(mixed, w.conv, w.conv_bias, w.x_proj, w.step_proj, hidden, step, projected),
        *(n_rows, length),
        inner=inner,
        rank=rank,
        n_narrow=2 * n_states,
        taps=w.conv.shape[-1],
        **sizes["prepare"],
    )
    scanned = selective_scan_triton(
        hidden.transpose(1, 2),
        step.transpose(1, 2),
        w.rates,
        projected[..., :n_states].transpose(1, 2),
        projected[..., n_states:].transpose(1, 2),
        D=w.skip,
        z=mixed.view(n_windows, length, -1)[..., inner:].transpose(1, 2),
        delta_bias=w.step_bias,
        delta_softplus=True,
    ).transpose(1, 2)
    updated = torch.empty_like(tokens)
    finish_tokens[triton.cdiv(index.numel(), sizes["finish"]["rows"]),](
        *(tokens, index, scanned, shares, w.out_proj, w.norm2, w.norm2_bias),
        *(w.linear1, w.linear1_bias, w.linear2, w.linear2_bias, updated),
        *(index.numel(), n_tokens, n_prompts, plan.epsilon),
        dim=dim,
        inner=inner,
        wide=w.linear1.shape[0],
        **sizes["finish"],
    )
    return updated


def choose_sizes(
    dim: int, *, rank: int, n_states: int, dtype: torch.dtype
) -> dict[str, dict[str, int]]:
    """Return how much each kernel takes at a time, by its parameters' names.

    From what the compiler says of registers and shared memory; nothing here was timed on a GPU.
    """
    columns = max(LEAST, triton.next_power_of_2(dim))
    is_single, is_long = dtype == torch.float32, columns > 64  # noqa: PLR2004
    depth = 16 if is_single or columns > 128 else 32  # noqa: PLR2004
    rows = max(16, min(64, (4096 if is_single else 8192) // columns))
    return {
        "project": {"rows": 64, "columns": 64, "depth": depth, "num_warps": 4},
        "prepare": {
            "rows": 32,
            "depth": 32,
            "narrow": max(LEAST, triton.next_power_of_2(2 * n_states)),
            "low": max(LEAST, triton.next_power_of_2(rank)),
            "num_warps": 4,
        },
        "finish": {
            "rows": rows,
            "columns": columns,
            "depth": depth,
            "num_warps": 8 if is_long else 4,
            "num_stages": 2 if is_single or columns <= 128 else 1,  # noqa: PLR2004
        },
    }


def _normalise(x: Tensor, weight: Tensor, bias: Tensor, plan: _Plan) -> Tensor:
    normed = functional.layer_norm(
        x.float(), weight.shape, weight.float(), bias.float(), plan.epsilon
    )
    return normed.to(plan.dtype)


def _find_places(index: Tensor, n_tokens: int) -> Tensor:
    """Return where each token stands in the flattened index."""
    slots = torch.where(index < 0, n_tokens, index).flatten()  # all padding in one slot too many
    places = torch.empty(n_tokens + 1, dtype=torch.int64, device=index.device)
    return places.scatter_(0, slots, torch.arange(len(slots), device=index.device))[:n_tokens]


def _pick(x: Tensor, places: Tensor, back: Tensor) -> Tensor:
    picked: Tensor = _Pick.apply(x, places, back)  # type: ignore[no-untyped-call]
    return picked


class _Pick(Function):
    """Rows of x (n, c) at `places`, zeros for -1; `back` says where each row of x went, or -1.

    No row is picked twice: the gradient is a gather too, and needs no sum whose order may change.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, back: Tensor) -> Tensor:  # noqa: ANN401
        """Return the rows (len(places), c)."""
        ctx.save_for_backward(back)
        return _take(x, places)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        """Return the gradient of x."""
        (back,) = ctx.saved_tensors
        return _take(grad, back), None, None


def _take(x: Tensor, places: Tensor) -> Tensor:
    return x.index_select(0, places.clamp(min=0)).masked_fill_((places < 0)[:, None], 0)


@functools.cache
def _say_once(message: str) -> None:
    logger.warning(message)

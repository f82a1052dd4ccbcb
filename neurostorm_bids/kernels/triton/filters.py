"""The causal filter of each channel with SiLU in Triton, forward and backward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neurostorm_bids.kernels.triton.filter_kernels import run_filter, run_filter_back, spread_back

if TYPE_CHECKING:
    from torch import Tensor

SIZES = {"rows": 64, "columns": 32, "num_warps": 4}
"""What a program takes at a time."""


def filter_causally(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return SiLU of x filtered over tokens, each with those before it.

    Parameters
    ----------
    x : Tensor, shape (b, L, d), float32 or half precision; one half of a wider tensor costs no
        copy.
    weight : Tensor, shape (d, 1, taps); the last tap reads the token itself.
    bias : Tensor, shape (d,)

    Returns
    -------
    Tensor of float32, shape (b, L, d)
    """
    filtered: Tensor = _Filter.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return filtered


class _Filter(Function):
    """The filter with its gradient, which keeps the inputs only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN401
        """Return the filtered x."""
        x, weight, bias = _lay_out(x), weight.contiguous(), bias.contiguous()
        ctx.save_for_backward(x, weight, bias)
        out = torch.empty(x.shape, device=x.device)
        if out.numel():
            with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
                run_filter[_count_programs(x)](
                    *(x, weight, bias, out, *_measure(x)), **_choose(x, weight)
                )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        """Return the gradients of x, weight and bias."""
        x, weight, bias = ctx.saved_tensors
        n_rows, length, x_row = _measure(x)
        taps, (n_tiles, n_blocks) = weight.shape[-1], _count_programs(x)
        slope = torch.empty(x.shape, device=x.device)
        parts = torch.empty(n_tiles, taps + 1, x.shape[-1], device=x.device)
        grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        if x.numel():
            with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
                run_filter_back[n_tiles, n_blocks](
                    *(x, weight, bias, grad.contiguous(), slope, parts, n_rows, length, x_row),
                    **_choose(x, weight),
                )
                spread_back[n_tiles, n_blocks](
                    *(slope, weight, grad_x, n_rows, length), **_choose(x, weight)
                )
        total = parts.sum(0)
        of_weight = total[:taps].t().reshape(weight.shape).to(weight.dtype)
        return grad_x, of_weight, total[taps].to(bias.dtype)


def _lay_out(x: Tensor) -> Tensor:
    """Return x (b, L, d), copied unless a token follows the other by the same step everywhere."""
    b, length, _ = x.shape
    is_even = x.stride(2) == 1 and (b == 1 or x.stride(0) == length * x.stride(1))
    return x if is_even else x.contiguous()


def _measure(x: Tensor) -> tuple[int, int, int]:
    """Return the number of rows, how many make a sequence, and the step between two."""
    return x.shape[0] * x.shape[1], x.shape[1], x.stride(1)


def _count_programs(x: Tensor) -> tuple[int, int]:
    n_rows = x.shape[0] * x.shape[1]
    return triton.cdiv(n_rows, SIZES["rows"]), triton.cdiv(x.shape[2], SIZES["columns"])


def _choose(x: Tensor, weight: Tensor) -> dict[str, int]:
    return {"inner": x.shape[2], "taps": weight.shape[-1], **SIZES}

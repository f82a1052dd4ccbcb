"""The causal filter of each channel with SiLU, and its gradient, as Triton compiles them."""

from __future__ import annotations

import triton
import triton.language as tl

from neurostorm_bids.kernels.triton.scan_kernels import sigmoid


@triton.jit
def run_filter(
    x,
    weight,
    bias,
    out,
    n_rows,
    length,
    x_row,
    inner: tl.constexpr,
    taps: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """Write SiLU of the filtered x; rows are tokens, `length` to a sequence."""
    row = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)
    k = tl.program_id(1) * columns + tl.arange(0, columns)
    is_k = k < inner
    inside = (row < n_rows)[:, None] & is_k[None, :]
    place = row % length
    value = tl.zeros((rows, columns), dtype=tl.float32)
    value += tl.load(bias + k, mask=is_k, other=0.0).to(tl.float32)[None, :]
    for tap in tl.static_range(taps):
        lag = taps - 1 - tap
        seen = inside & (place >= lag)[:, None]
        before = tl.load(x + (row - lag)[:, None] * x_row + k[None, :], mask=seen, other=0.0)
        w = tl.load(weight + k * taps + tap, mask=is_k, other=0.0).to(tl.float32)
        value += before.to(tl.float32) * w[None, :]
    value *= sigmoid(value)
    tl.store(out + row[:, None] * inner + k[None, :], value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def run_filter_back(
    x,
    weight,
    bias,
    grad,
    slope,
    parts,
    n_rows,
    length,
    x_row,
    inner: tl.constexpr,
    taps: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """Write the gradient before SiLU (row, channel), and what each tile of rows adds to weights.

    `parts` is (tile, taps + 1, channel): of the taps, and of the bias.
    """
    tile = tl.program_id(0).to(tl.int64)
    row = tile * rows + tl.arange(0, rows)
    k = tl.program_id(1) * columns + tl.arange(0, columns)
    is_k = k < inner
    inside = (row < n_rows)[:, None] & is_k[None, :]
    place = row % length
    spot = row[:, None] * inner + k[None, :]
    value = tl.zeros((rows, columns), dtype=tl.float32)
    value += tl.load(bias + k, mask=is_k, other=0.0).to(tl.float32)[None, :]
    for tap in tl.static_range(taps):
        lag = taps - 1 - tap
        seen = inside & (place >= lag)[:, None]
        before = tl.load(x + (row - lag)[:, None] * x_row + k[None, :], mask=seen, other=0.0)
        w = tl.load(weight + k * taps + tap, mask=is_k, other=0.0).to(tl.float32)
        value += before.to(tl.float32) * w[None, :]
    opened = sigmoid(value)
    given = tl.load(grad + spot, mask=inside, other=0.0).to(tl.float32)
    given *= opened * (1.0 + value * (1.0 - opened))
    tl.store(slope + spot, given, mask=inside)
    parts += tile * (taps + 1) * inner + k
    for tap in tl.static_range(taps):
        lag = taps - 1 - tap
        seen = inside & (place >= lag)[:, None]
        before = tl.load(x + (row - lag)[:, None] * x_row + k[None, :], mask=seen, other=0.0)
        tl.store(parts + tap * inner, tl.sum(given * before.to(tl.float32), axis=0), mask=is_k)
    tl.store(parts + taps * inner, tl.sum(given, axis=0), mask=is_k)


@triton.jit
def spread_back(
    slope,
    weight,
    grad_x,
    n_rows,
    length,
    inner: tl.constexpr,
    taps: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """Write the gradient of x (row, channel) from that of the tokens that it was filtered into."""
    row = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)
    k = tl.program_id(1) * columns + tl.arange(0, columns)
    is_k = k < inner
    inside = (row < n_rows)[:, None] & is_k[None, :]
    place = row % length
    value = tl.zeros((rows, columns), dtype=tl.float32)
    for tap in tl.static_range(taps):
        lag = taps - 1 - tap
        seen = inside & (place + lag < length)[:, None]
        after = tl.load(slope + (row + lag)[:, None] * inner + k[None, :], mask=seen, other=0.0)
        w = tl.load(weight + k * taps + tap, mask=is_k, other=0.0).to(tl.float32)
        value += after * w[None, :]
    spot = row[:, None] * inner + k[None, :]
    tl.store(grad_x + spot, value.to(grad_x.dtype.element_ty), mask=inside)

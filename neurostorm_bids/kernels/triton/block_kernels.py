"""The parts of a block around its scan, as Triton compiles them.

Rows are the tokens of the windows one after the other, prompts in front of each window's own; the
index says which token stands where. Between the first kernel and the last, rows are (row, channel)
in the precision of the products; sums are in float32.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

from neurostorm_bids.kernels.triton.scan_kernels import sigmoid

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
"""Triton's interpreter multiplies the bits of bfloat16 as if they were integers."""


@triton.jit
def multiply(a, b, total):
    """Return a b + total, without tf32's rounding."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")


@triton.jit
def project_windows(
    tokens,
    index,
    prompts,
    norm,
    norm_bias,
    weight,
    out,
    n_rows,
    n_tokens,
    n_prompts,
    epsilon,
    dim: tl.constexpr,
    n_out: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
):
    """Gather and normalise the windows' tokens, and map them linearly; padding is zeros."""
    row = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    length = n_tokens + n_prompts
    place = row % length
    is_prompt = (row < n_rows) & (place < n_prompts)
    is_own = (row < n_rows) & (place >= n_prompts)
    spot = row // length * n_tokens + place - n_prompts
    token = tl.load(index + spot, mask=is_own, other=-1)
    is_token = token >= 0
    source = tokens + token[:, None] * dim

    total = tl.zeros((rows,), dtype=tl.float32)
    for start in range(0, dim, depth):
        k = start + tl.arange(0, depth)
        inside = is_token[:, None] & (k < dim)[None, :]
        total += tl.sum(tl.load(source + k[None, :], mask=inside, other=0.0).to(tl.float32), axis=1)
    mean = total / dim
    total = tl.zeros((rows,), dtype=tl.float32)
    for start in range(0, dim, depth):
        k = start + tl.arange(0, depth)
        inside = is_token[:, None] & (k < dim)[None, :]
        x = tl.load(source + k[None, :], mask=inside, other=0.0).to(tl.float32)
        x = tl.where(inside, x - mean[:, None], 0.0)
        total += tl.sum(x * x, axis=1)
    scale = 1.0 / tl.sqrt(total / dim + epsilon)

    found = tl.zeros((rows, columns), dtype=tl.float32)
    for start in range(0, dim, depth):
        k = start + tl.arange(0, depth)
        is_k = k < dim
        inside = is_token[:, None] & is_k[None, :]
        x = tl.load(source + k[None, :], mask=inside, other=0.0).to(tl.float32)
        gain = tl.load(norm + k, mask=is_k, other=0.0).to(tl.float32)
        offset = tl.load(norm_bias + k, mask=is_k, other=0.0).to(tl.float32)
        x = (x - mean[:, None]) * scale[:, None] * gain[None, :] + offset[None, :]
        x = tl.where(inside, x, 0.0)
        if prompts is not None:
            given = is_prompt[:, None] & is_k[None, :]
            prompt = tl.load(prompts + place[:, None] * dim + k[None, :], mask=given, other=0.0)
            x = tl.where(given, prompt.to(tl.float32), x)
        known = is_k[:, None] & (column < n_out)[None, :]
        w = tl.load(weight + column[None, :] * dim + k[:, None], mask=known, other=0.0)
        kind = out.dtype.element_ty
        found = multiply(x.to(kind), w.to(kind), found)
    inside = (row < n_rows)[:, None] & (column < n_out)[None, :]
    tl.store(out + row[:, None] * n_out + column[None, :], found.to(out.dtype.element_ty), inside)


@triton.jit
def prepare_scan(
    mixed,
    conv,
    conv_bias,
    x_proj,
    step_proj,
    hidden,
    step,
    projected,
    n_rows,
    length,
    inner: tl.constexpr,
    rank: tl.constexpr,
    n_narrow: tl.constexpr,
    taps: tl.constexpr,
    rows: tl.constexpr,
    depth: tl.constexpr,
    narrow: tl.constexpr,
    low: tl.constexpr,
):
    """Filter the first half of `mixed` causally, with SiLU, and find what the scan needs of it.

    Writes `hidden` and `step` (row, inner), and `projected` (row, 2 states): B, then C.
    """
    kind = hidden.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)
    is_row = row < n_rows
    place = row % length
    column = tl.arange(0, narrow)
    rank_column = tl.arange(0, low)
    found = tl.zeros((rows, narrow), dtype=tl.float32)
    found_low = tl.zeros((rows, low), dtype=tl.float32)
    for start in range(0, inner, depth):
        k = start + tl.arange(0, depth)
        is_k = k < inner
        inside = is_row[:, None] & is_k[None, :]
        value = tl.zeros((rows, depth), dtype=tl.float32)
        value += tl.load(conv_bias + k, mask=is_k, other=0.0).to(tl.float32)[None, :]
        for tap in tl.static_range(taps):
            lag = taps - 1 - tap
            seen = inside & (place >= lag)[:, None]
            x = tl.load(mixed + (row - lag)[:, None] * (2 * inner) + k[None, :], seen, other=0.0)
            w = tl.load(conv + k * taps + tap, mask=is_k, other=0.0)
            value += x.to(tl.float32) * w.to(tl.float32)[None, :]
        value = (value * sigmoid(value)).to(kind)
        tl.store(hidden + row[:, None] * inner + k[None, :], value, mask=inside)
        known = is_k[:, None] & (column < n_narrow)[None, :]
        w = tl.load(x_proj + (rank + column)[None, :] * inner + k[:, None], mask=known, other=0.0)
        found = multiply(value, w.to(kind), found)
        known = is_k[:, None] & (rank_column < rank)[None, :]
        w = tl.load(x_proj + rank_column[None, :] * inner + k[:, None], mask=known, other=0.0)
        found_low = multiply(value, w.to(kind), found_low)
    inside = is_row[:, None] & (column < n_narrow)[None, :]
    tl.store(projected + row[:, None] * n_narrow + column[None, :], found, mask=inside)
    factors = found_low.to(kind)
    for start in range(0, inner, depth):
        k = start + tl.arange(0, depth)
        is_k = k < inner
        known = (rank_column < rank)[:, None] & is_k[None, :]
        w = tl.load(step_proj + k[None, :] * rank + rank_column[:, None], mask=known, other=0.0)
        value = multiply(factors, w.to(kind), tl.zeros((rows, depth), dtype=tl.float32)).to(kind)
        inside = is_row[:, None] & is_k[None, :]
        tl.store(step + row[:, None] * inner + k[None, :], value, mask=inside)


@triton.jit
def finish_tokens(
    tokens,
    index,
    scanned,
    shares,
    out_proj,
    norm,
    norm_bias,
    linear1,
    linear1_bias,
    linear2,
    linear2_bias,
    out,
    n_places,
    n_tokens,
    n_prompts,
    epsilon,
    dim: tl.constexpr,
    inner: tl.constexpr,
    wide: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
):
    """Map what was scanned back, add it to its tokens, and add the perceptron of their norm.

    With `shares` (window, 2), the two updates are multiplied by a window's before they are added.
    """
    kind = scanned.dtype.element_ty
    spot = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)
    token = tl.load(index + spot, mask=spot < n_places, other=-1)
    is_token = token >= 0
    row = spot // n_tokens * (n_tokens + n_prompts) + n_prompts + spot % n_tokens
    column = tl.arange(0, columns)
    is_column = column < dim
    inside = is_token[:, None] & is_column[None, :]
    position = token[:, None] * dim + column[None, :]

    x = tl.load(tokens + position, mask=inside, other=0.0).to(tl.float32)
    update = tl.zeros((rows, columns), dtype=tl.float32)
    for start in range(0, inner, depth):
        k = start + tl.arange(0, depth)
        is_k = k < inner
        seen = is_token[:, None] & is_k[None, :]
        y = tl.load(scanned + row[:, None] * inner + k[None, :], mask=seen, other=0.0)
        known = is_k[:, None] & is_column[None, :]
        w = tl.load(out_proj + column[None, :] * inner + k[:, None], mask=known, other=0.0)
        update = multiply(y, w.to(kind), update)
    if shares is not None:
        share = shares + spot // n_tokens * 2
        update *= tl.load(share, mask=is_token, other=0.0).to(tl.float32)[:, None]
    x += update

    mean = tl.sum(x, axis=1) / dim
    centred = tl.where(is_column[None, :], x - mean[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / dim + epsilon)
    gain = tl.load(norm + column, mask=is_column, other=0.0).to(tl.float32)
    offset = tl.load(norm_bias + column, mask=is_column, other=0.0).to(tl.float32)
    normed = (centred * scale[:, None] * gain[None, :] + offset[None, :]).to(kind)

    update = tl.zeros((rows, columns), dtype=tl.float32)
    update += tl.load(linear2_bias + column, mask=is_column, other=0.0).to(tl.float32)[None, :]
    for start in range(0, wide, depth):
        k = start + tl.arange(0, depth)
        is_k = k < wide
        known = is_column[:, None] & is_k[None, :]
        w = tl.load(linear1 + k[None, :] * dim + column[:, None], mask=known, other=0.0)
        value = multiply(normed, w.to(kind), tl.zeros((rows, depth), dtype=tl.float32))
        value += tl.load(linear1_bias + k, mask=is_k, other=0.0).to(tl.float32)[None, :]
        value *= 0.5 * (1.0 + tl.erf(value * 0.7071067811865476))
        known = is_k[:, None] & is_column[None, :]
        w = tl.load(linear2 + column[None, :] * wide + k[:, None], mask=known, other=0.0)
        update = multiply(value.to(kind), w.to(kind), update)
    if shares is not None:
        update *= tl.load(share + 1, mask=is_token, other=0.0).to(tl.float32)[:, None]
    tl.store(out + position, (x + update).to(out.dtype.element_ty), mask=inside)

"""The selective scan and its gradient, as Triton compiles them.

A program runs one sequence of a block of channels, token by token, in float32. States are
(state values, channels), and so lie `rates`: a thread holds all states of its channels and sums
over them without asking others. Parameters that stay None are compiled away.
"""

from __future__ import annotations

import triton
import triton.language as tl

SIZES = (
    *("u_sequence", "u_token", "delta_sequence", "delta_token", "b_sequence", "b_token"),
    *("c_sequence", "c_token", "z_sequence", "z_token", "n_tokens", "n_channels"),
)
"""What the compiler shall know nothing of: were it sure of rows that begin on 16 bytes, it would
give threads several channels and spread the states over others."""
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def sigmoid(x):
    """Return 1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def soften(x):
    """Return softplus(x), exact for small results too."""
    small = tl.exp(-tl.abs(x))
    whole = 1.0 + small
    # What the sum rounds away comes back as a factor (Kahan's log1p).
    lost = tl.where(whole == 1.0, 1.0, whole - 1.0)
    log1p = tl.where(whole == 1.0, small, tl.log(whole) * (small / lost))
    return tl.maximum(x, 0.0) + log1p


@triton.jit(do_not_specialize=SIZES)
def run_scan(
    u,
    delta,
    b,
    c,
    z,
    rates,
    skip,
    bias,
    y,
    kept,
    u_sequence,
    u_token,
    delta_sequence,
    delta_token,
    b_sequence,
    b_token,
    c_sequence,
    c_token,
    z_sequence,
    z_token,
    y_sequence,
    y_token,
    n_tokens,
    n_channels,
    softplus: tl.constexpr,
    n_states: tl.constexpr,
    states: tl.constexpr,
    channels: tl.constexpr,
    tile: tl.constexpr,
):
    """Write y; with `kept` (sequence, tile, state, channel), the state before each tile too."""
    sequence = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * channels + tl.arange(0, channels)
    state = tl.arange(0, states)
    is_channel = channel < n_channels
    is_state = state < n_states
    inside = is_state[:, None] & is_channel[None, :]
    plane = state[:, None] * n_channels + channel[None, :]

    rate = tl.load(rates + plane, mask=inside, other=0.0).to(tl.float32)
    rate = rate * LOG2_E
    u += sequence * u_sequence + channel
    delta += sequence * delta_sequence + channel
    b += sequence * b_sequence + state
    c += sequence * c_sequence + state
    y += sequence * y_sequence + channel
    if z is not None:
        z += sequence * z_sequence + channel
    if skip is not None:
        weight = tl.load(skip + channel, mask=is_channel, other=0.0).to(tl.float32)
    if bias is not None:
        offset = tl.load(bias + channel, mask=is_channel, other=0.0).to(tl.float32)
    if kept is not None:
        n_tiles = tl.cdiv(n_tokens, tile)
        kept += sequence * n_tiles * n_states * n_channels

    # The next token's values are asked for before this one's are used, and arrive meanwhile.
    next_x = tl.load(u, mask=is_channel, other=0.0).to(tl.float32)
    next_step = tl.load(delta, mask=is_channel, other=0.0).to(tl.float32)
    next_into = tl.load(b, mask=is_state, other=0.0).to(tl.float32)
    next_out = tl.load(c, mask=is_state, other=0.0).to(tl.float32)
    if z is not None:
        next_gate = tl.load(z, mask=is_channel, other=0.0).to(tl.float32)
    h = tl.zeros((states, channels), dtype=tl.float32)
    for token in range(n_tokens):
        x, step, into, out = next_x, next_step, next_into, next_out
        u += u_token
        delta += delta_token
        b += b_token
        c += c_token
        more = token + 1 < n_tokens
        next_x = tl.load(u, mask=is_channel & more, other=0.0).to(tl.float32)
        next_step = tl.load(delta, mask=is_channel & more, other=0.0).to(tl.float32)
        next_into = tl.load(b, mask=is_state & more, other=0.0).to(tl.float32)
        next_out = tl.load(c, mask=is_state & more, other=0.0).to(tl.float32)
        if kept is not None:
            if token % tile == 0:
                tl.store(kept + plane, h, mask=inside)
                kept += n_states * n_channels
        if bias is not None:
            step += offset
        if softplus:
            step = soften(step)
        h = tl.exp2(step[None, :] * rate) * h + (step * x)[None, :] * into[:, None]
        value = tl.sum(h * out[:, None], axis=0)
        if skip is not None:
            value += weight * x
        if z is not None:
            gate = next_gate
            z += z_token
            next_gate = tl.load(z, mask=is_channel & more, other=0.0).to(tl.float32)
            value *= gate * sigmoid(gate)
        tl.store(y, value.to(y.dtype.element_ty), mask=is_channel)
        y += y_token


@triton.jit(do_not_specialize=SIZES)
def run_scan_back(
    u,
    delta,
    b,
    c,
    z,
    rates,
    skip,
    bias,
    grad_y,
    kept,
    states_before,
    grad_u,
    grad_delta,
    grad_b,
    grad_c,
    grad_z,
    grad_shared,
    u_sequence,
    u_token,
    delta_sequence,
    delta_token,
    b_sequence,
    b_token,
    c_sequence,
    c_token,
    z_sequence,
    z_token,
    grad_y_sequence,
    grad_y_token,
    n_tokens,
    n_channels,
    softplus: tl.constexpr,
    n_states: tl.constexpr,
    states: tl.constexpr,
    channels: tl.constexpr,
    tile: tl.constexpr,
):
    """Write gradients, tile by tile from the last, each from the state that was kept before it.

    `grad_u`, `grad_delta`, `grad_z` are (sequence, token, channel); `grad_b`, `grad_c` (channel
    block, sequence, token, state); `grad_shared` (sequence, state + 2, channel): of the rates, the
    skip and the bias. `states_before` is room for the states of a tile, (sequence, tile, state,
    channel). Nobody writes where another does, so sums are always the same.
    """
    sequence = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * channels + tl.arange(0, channels)
    state = tl.arange(0, states)
    is_channel = channel < n_channels
    is_state = state < n_states
    inside = is_state[:, None] & is_channel[None, :]
    plane = state[:, None] * n_channels + channel[None, :]
    size = n_states * n_channels

    rate = tl.load(rates + plane, mask=inside, other=0.0).to(tl.float32)
    u += sequence * u_sequence + channel
    delta += sequence * delta_sequence + channel
    b += sequence * b_sequence + state
    c += sequence * c_sequence + state
    grad_y += sequence * grad_y_sequence + channel
    wide = sequence * n_tokens * n_channels + channel
    part = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + sequence
    narrow = part * n_tokens * n_states + state
    if z is not None:
        z += sequence * z_sequence + channel
    weight = tl.zeros((channels,), dtype=tl.float32)
    if skip is not None:
        weight += tl.load(skip + channel, mask=is_channel, other=0.0).to(tl.float32)
    offset = tl.zeros((channels,), dtype=tl.float32)
    if bias is not None:
        offset += tl.load(bias + channel, mask=is_channel, other=0.0).to(tl.float32)
    n_tiles = tl.cdiv(n_tokens, tile)
    kept += sequence * n_tiles * size + plane
    states_before += sequence * tile * size + plane

    carry = tl.zeros((states, channels), dtype=tl.float32)
    sum_rates = tl.zeros((states, channels), dtype=tl.float32)
    sum_skip = tl.zeros((channels,), dtype=tl.float32)
    sum_bias = tl.zeros((channels,), dtype=tl.float32)
    for index in range(n_tiles):
        start = (n_tiles - 1 - index) * tile
        length = tl.minimum(tile, n_tokens - start)
        h = tl.load(kept + (n_tiles - 1 - index) * size, mask=inside, other=0.0)
        tl.debug_barrier()
        for place in range(length):
            token = (start + place).to(tl.int64)
            tl.store(states_before + place * size, h, mask=inside)
            x = tl.load(u + token * u_token, mask=is_channel, other=0.0).to(tl.float32)
            step = tl.load(delta + token * delta_token, mask=is_channel, other=0.0).to(tl.float32)
            into = tl.load(b + token * b_token, mask=is_state, other=0.0).to(tl.float32)
            step += offset
            if softplus:
                step = soften(step)
            h = tl.exp2((step * LOG2_E)[None, :] * rate) * h + (step * x)[None, :] * into[:, None]
        tl.debug_barrier()
        for place_back in range(length):
            place = length - 1 - place_back
            token = (start + place).to(tl.int64)
            before = tl.load(states_before + place * size, mask=inside, other=0.0)
            x = tl.load(u + token * u_token, mask=is_channel, other=0.0).to(tl.float32)
            raw = tl.load(delta + token * delta_token, mask=is_channel, other=0.0).to(tl.float32)
            into = tl.load(b + token * b_token, mask=is_state, other=0.0).to(tl.float32)
            out = tl.load(c + token * c_token, mask=is_state, other=0.0).to(tl.float32)
            grad = tl.load(grad_y + token * grad_y_token, mask=is_channel, other=0.0).to(tl.float32)
            raw += offset
            step = raw
            if softplus:
                step = soften(raw)
            decay = tl.exp2((step * LOG2_E)[None, :] * rate)
            after = decay * before + (step * x)[None, :] * into[:, None]
            if z is not None:
                gate = tl.load(z + token * z_token, mask=is_channel, other=0.0).to(tl.float32)
                opened = sigmoid(gate)
                value = tl.sum(after * out[:, None], axis=0) + weight * x
                slope = opened * (1.0 + gate * (1.0 - opened))
                tl.store(grad_z + wide + token * n_channels, grad * value * slope, mask=is_channel)
                grad *= gate * opened
            grad_h = carry + grad[None, :] * out[:, None]
            grad_drive = tl.sum(grad_h * into[:, None], axis=0)
            grad_power = grad_h * decay * before
            grad_step = tl.sum(grad_power * rate, axis=0) + grad_drive * x
            if softplus:
                grad_step *= sigmoid(raw)
            sum_c = tl.sum(after * grad[None, :], axis=1)
            sum_b = tl.sum(grad_h * (step * x)[None, :], axis=1)
            tl.store(grad_c + narrow + token * n_states, sum_c, mask=is_state)
            tl.store(grad_b + narrow + token * n_states, sum_b, mask=is_state)
            grad_x = grad_drive * step + weight * grad
            tl.store(grad_u + wide + token * n_channels, grad_x, mask=is_channel)
            tl.store(grad_delta + wide + token * n_channels, grad_step, mask=is_channel)
            sum_rates += grad_power * step[None, :]
            sum_skip += grad * x
            sum_bias += grad_step
            carry = grad_h * decay
    grad_shared += sequence * (n_states + 2) * n_channels
    tl.store(grad_shared + plane, sum_rates, mask=inside)
    tl.store(grad_shared + size + channel, sum_skip, mask=is_channel)
    tl.store(grad_shared + size + n_channels + channel, sum_bias, mask=is_channel)

/* The selective scan and its gradient; included once per instruction set, after vector.h.
 *
 * One vector holds LANES channels of one sequence. Its states stay in registers (or in the nearest
 * cache) over all tokens, so that memory is read once and written once.
 */

/* Run one vector of channels over all tokens. `n` is a constant in the common case. */
INLINE void NS(scan_lanes)(const ns_scan *s, int64_t b, int64_t d, int count, int n)
{
    VEC h[MAX_STATES], rates[MAX_STATES];
    EACH_STATE(n,
        h[k] = (VEC){0};
        rates[k] = NS(load_part)(s->rates + k * s->n_channels + d, count) * LOG2_E;
    )
    VEC skip = s->skip ? NS(load_part)(s->skip + d, count) : (VEC){0};
    VEC bias = s->bias ? NS(load_part)(s->bias + d, count) : (VEC){0};
    const float *u = s->u + b * s->u_b + d, *delta = s->delta + b * s->delta_b + d;
    const float *B = s->B + b * s->B_b, *C = s->C + b * s->C_b;
    const float *z = s->z ? s->z + b * s->z_b + d : NULL;
    float *y = s->y + b * s->y_b + d;
    for (int64_t t = 0; t < s->n_tokens; t++) {
        VEC x = NS(load_part)(u, count);
        VEC step = NS(load_part)(delta, count) + bias;
        if (s->softplus)
            step = NS(softplus)(step);
        VEC drive = step * x, sums[4] = {{0}}; /* several sums, each of fewer roundings */
        EACH_STATE(n,
            h[k] = NS(exp2)(step * rates[k]) * h[k] + drive * B[k];
            sums[k % 4] += h[k] * C[k];
        )
        VEC out = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + skip * x;
        if (z) {
            VEC gate = NS(load_part)(z, count);
            out *= gate * NS(sigmoid)(gate);
            z += s->z_t;
        }
        NS(store_part)(y, out, count);
        u += s->u_t, delta += s->delta_t, B += s->B_t, C += s->C_t, y += s->y_t;
    }
}

TARGET static void NS(scan_sequence)(const ns_scan *s, int64_t b)
{
    for (int64_t d = 0; d < s->n_channels; d += LANES) {
        int count = s->n_channels - d < LANES ? (int)(s->n_channels - d) : LANES;
        if (s->n_states == 16 && count == LANES)
            NS(scan_lanes)(s, b, d, LANES, 16);
        else if (s->n_states == 16)
            NS(scan_lanes)(s, b, d, count, 16);
        else
            NS(scan_lanes)(s, b, d, count, (int)s->n_states);
    }
}

/* Room for the backward of one sequence. */
typedef struct {
    VEC *starts;        /* (n_tiles, n): the state before each tile */
    VEC *states;        /* (TILE + 1, n), the first from before the tile */
    VEC *decays;        /* (TILE, n) */
    VEC *grad_B, *grad_C; /* (L, n): not yet summed over channels */
} NS(room);

/* Run the states of tokens `from` to `to`; keep them and their decays where room is given. */
INLINE void NS(run_states)(const ns_scan *s, int64_t b, int64_t d, int count, int n,
                           int64_t from, int64_t to, const VEC *rates, VEC *h, VEC *states,
                           VEC *decays)
{
    VEC bias = s->bias ? NS(load_part)(s->bias + d, count) : (VEC){0};
    for (int64_t t = from; t < to; t++) {
        VEC x = NS(load_part)(s->u + b * s->u_b + t * s->u_t + d, count);
        VEC step = NS(load_part)(s->delta + b * s->delta_b + t * s->delta_t + d, count) + bias;
        const float *B = s->B + b * s->B_b + t * s->B_t;
        if (s->softplus)
            step = NS(softplus)(step);
        VEC drive = step * x;
        EACH_STATE(n,
            VEC decay = NS(exp2)(step * (rates[k] * LOG2_E));
            h[k] = decay * h[k] + drive * B[k];
            if (states) {
                decays[(t - from) * n + k] = decay;
                states[(t - from + 1) * n + k] = h[k];
            }
        )
    }
}

INLINE void NS(back_lanes)(const ns_scan *s, NS(room) * room, int64_t b, int64_t d, int count,
                           int n, float *grad_shared)
{
    const int64_t n_tokens = s->n_tokens, n_tiles = (n_tokens + TILE - 1) / TILE;
    VEC rates[MAX_STATES], h[MAX_STATES], carry[MAX_STATES], grad_rates[MAX_STATES];
    EACH_STATE(n,
        rates[k] = NS(load_part)(s->rates + k * s->n_channels + d, count);
        h[k] = carry[k] = grad_rates[k] = (VEC){0};
    )
    for (int64_t tile = 0; tile < n_tiles; tile++) { /* the last tile is run below */
        EACH_STATE(n, room->starts[tile * n + k] = h[k];)
        if (tile + 1 < n_tiles)
            NS(run_states)(s, b, d, count, n, tile * TILE, (tile + 1) * TILE, rates, h, NULL, NULL);
    }
    VEC skip = s->skip ? NS(load_part)(s->skip + d, count) : (VEC){0};
    VEC bias = s->bias ? NS(load_part)(s->bias + d, count) : (VEC){0};
    VEC grad_skip = {0}, grad_bias = {0};
    for (int64_t tile = n_tiles - 1; tile >= 0; tile--) {
        const int64_t from = tile * TILE, to = from + TILE < n_tokens ? from + TILE : n_tokens;
        EACH_STATE(n, room->states[k] = h[k] = room->starts[tile * n + k];)
        NS(run_states)(s, b, d, count, n, from, to, rates, h, room->states, room->decays);
        for (int64_t t = to - 1; t >= from; t--) {
            const float *B = s->B + b * s->B_b + t * s->B_t, *C = s->C + b * s->C_b + t * s->C_t;
            const VEC *decay = room->decays + (t - from) * n;
            const VEC *before = room->states + (t - from) * n, *now = before + n;
            VEC *restrict grad_B = room->grad_B + t * n, *restrict grad_C = room->grad_C + t * n;
            VEC x = NS(load_part)(s->u + b * s->u_b + t * s->u_t + d, count);
            VEC raw = NS(load_part)(s->delta + b * s->delta_b + t * s->delta_t + d, count) + bias;
            VEC step = s->softplus ? NS(softplus)(raw) : raw;
            VEC grad = NS(load_part)(s->grad_y + b * s->grad_y_b + t * s->grad_y_t + d, count);
            const int64_t place = t * s->grad_t + b * s->n_channels + d;
            if (s->z) {
                VEC gate = NS(load_part)(s->z + b * s->z_b + t * s->z_t + d, count);
                VEC share = NS(sigmoid)(gate), sums[4] = {{0}};
                EACH_STATE(n,
                    sums[k % 4] += now[k] * C[k];
                )
                VEC y = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + skip * x;
                VEC slope = share * (1.0f + gate * (1.0f - share));
                float *grad_z = s->grad_z + t * s->grad_z_t + b * s->n_channels + d;
                NS(store_part)(grad_z, grad * y * slope, count);
                if (s->y)
                    NS(store_part)(s->y + b * s->y_b + t * s->y_t + d, y * gate * share, count);
                grad *= gate * share;
            }
            VEC drive = step * x, drives[2] = {{0}}, steps[2] = {{0}};
            EACH_STATE(n,
                VEC grad_state = grad * C[k] + carry[k];
                grad_C[k] += grad * now[k];
                grad_B[k] += grad_state * drive;
                drives[k % 2] += grad_state * B[k];
                carry[k] = grad_state * decay[k];
                VEC grad_exponent = carry[k] * before[k];
                steps[k % 2] += grad_exponent * rates[k];
                grad_rates[k] += grad_exponent * step;
            )
            VEC grad_drive = drives[0] + drives[1];
            VEC grad_step = (steps[0] + steps[1]) + grad_drive * x;
            if (s->softplus)
                grad_step *= NS(sigmoid)(raw);
            grad_skip += grad * x;
            grad_bias += grad_step;
            NS(store_part)(s->grad_u + place, grad_drive * step + grad * skip, count);
            NS(store_part)(s->grad_delta + place, grad_step, count);
        }
    }
    float *to = grad_shared + d;
    EACH_STATE(n,
        NS(add_part)(to, grad_rates[k], count);
        to += s->n_channels;
    )
    NS(add_part)(to, grad_skip, count);
    NS(add_part)(to + s->n_channels, grad_bias, count);
}

TARGET static void NS(back_sequence)(const ns_scan *s, NS(room) * room, int64_t b,
                                     float *grad_shared)
{
    const int64_t n = s->n_states;
    memset(room->grad_B, 0, sizeof(VEC) * (size_t)(2 * s->n_tokens * n)); /* and grad_C */
    for (int64_t d = 0; d < s->n_channels; d += LANES) {
        int count = s->n_channels - d < LANES ? (int)(s->n_channels - d) : LANES;
        if (n == 16 && count == LANES)
            NS(back_lanes)(s, room, b, d, LANES, 16, grad_shared);
        else if (n == 16)
            NS(back_lanes)(s, room, b, d, count, 16, grad_shared);
        else
            NS(back_lanes)(s, room, b, d, count, (int)n, grad_shared);
    }
    for (int64_t t = 0; t < s->n_tokens; t++)
        for (int64_t k = 0; k < n; k++) {
            const int64_t place = t * s->grad_B_t + b * n + k;
            s->grad_B[place] = NS(sum)(room->grad_B[t * n + k]);
            s->grad_C[place] = NS(sum)(room->grad_C[t * n + k]);
        }
}

TARGET static int NS(scan_forward)(ns_scan *s)
{
    for (;;) {
        int64_t first = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED) * s->group;
        if (first >= s->n_sequences)
            return 0;
        for (int64_t b = first; b < first + s->group && b < s->n_sequences; b++)
            NS(scan_sequence)(s, b);
    }
}

/* Returns 0, or -1 without memory; `starts` is what to free. */
TARGET static int NS(make_room)(const ns_scan *s, NS(room) * room)
{
    const size_t n = (size_t)s->n_states, n_tokens = (size_t)s->n_tokens;
    const size_t n_tiles = (n_tokens + TILE - 1) / TILE;
    const size_t count = n * (n_tiles + 2 * TILE + 1 + 2 * n_tokens);
    VEC *memory = aligned_alloc(64, (sizeof(VEC) * count + 63) / 64 * 64);
    if (!memory)
        return -1;
    *room = (NS(room)){.starts = memory, .states = memory + n * n_tiles};
    room->decays = room->states + n * (TILE + 1);
    room->grad_B = room->decays + n * TILE;
    room->grad_C = room->grad_B + n * n_tokens;
    return 0;
}

TARGET static int NS(scan_backward)(ns_scan *s)
{
    NS(room) room;
    if (NS(make_room)(s, &room))
        return -1;
    for (;;) {
        int64_t group = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED);
        int64_t first = group * s->group;
        if (first >= s->n_sequences)
            break;
        float *grad_shared = s->grad_shared + group * (s->n_states + 2) * s->n_channels;
        for (int64_t b = first; b < first + s->group && b < s->n_sequences; b++)
            NS(back_sequence)(s, &room, b, grad_shared);
    }
    free(room.starts);
    return 0;
}

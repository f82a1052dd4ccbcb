/* The gradient of a block over one window after the other; included once per instruction set, after
 * block.h. Of the forward it needs the tokens before and between the two sums; the rest of a window is
 * computed anew and stays in the buffers of a thread.
 */

typedef struct {
    NS(buffers) m;
    float *between;  /* tokens between the sums */
    float *grad;     /* of the tokens: after, between, and before the sums */
    float *shared;   /* of an update: a share of `grad` */
    float *hidden;   /* of the convolution's output, then of its sum */
    float *gated;    /* of in_proj's output */
    float *projected;
    float *step;
    float *y;        /* of the scan's output; the output itself */
    float *out;
    float *normed;   /* of what the norms give */
    float *wide;
} NS(back_buffers);

/* to += the gradient of NS(normalise)'s input; the weights' is added to theirs. */
static TARGET void NS(normalise_back)(const float *from, int64_t row, int64_t n_rows, int64_t n,
                                      const float *weight, float epsilon, const float *grad,
                                      float *to, float *grad_weight, float *grad_bias)
{
    for (int64_t r = 0; r < n_rows; r++, from += row, grad += row, to += row) {
        VEC total = {0}, squares = {0}, slopes = {0}, products = {0};
        for (int64_t c = 0; c < n; c += LANES)
            total += NS(load_part)(from + c, n - c < LANES ? (int)(n - c) : LANES);
        const float mean = NS(sum)(total) / (float)n;
        for (int64_t c = 0; c < n; c += LANES) {
            const int count = n - c < LANES ? (int)(n - c) : LANES;
            VEC off = NS(load_part)(from + c, count) - NS(load_part)(NS(ones), count) * mean;
            VEC slope = NS(load_part)(grad + c, count) * NS(load_part)(weight + c, count);
            squares += off * off;
            slopes += slope;
            products += slope * off;
        }
        const float scale = 1.0f / sqrtf(NS(sum)(squares) / (float)n + epsilon);
        const float shift = NS(sum)(slopes) / (float)n;
        const float tilt = NS(sum)(products) / (float)n * scale * scale;
        for (int64_t c = 0; c < n; c += LANES) {
            const int count = n - c < LANES ? (int)(n - c) : LANES;
            VEC off = NS(load_part)(from + c, count) - mean;
            VEC back = NS(load_part)(grad + c, count);
            VEC slope = back * NS(load_part)(weight + c, count);
            NS(add_part)(to + c, (slope - shift - off * tilt) * scale, count);
            NS(add_part)(grad_weight + c, back * off * scale, count);
            NS(add_part)(grad_bias + c, back, count);
        }
    }
}

/* x becomes GELU(x), and `grad` is multiplied by its slope. */
static TARGET void NS(gelu_back)(float *x, float *grad, int64_t count)
{
    for (int64_t i = 0; i < count; i += LANES) {
        VEC v = NS(load)(x + i);
        VEC share = 0.5f + 0.5f * NS(erf)(v * 0.707106781f);
        VEC slope = share + v * NS(exp)(v * v * -0.5f) * 0.398942280f;
        NS(store)(x + i, v * share);
        NS(store)(grad + i, NS(load)(grad + i) * slope);
    }
}

/* From the gradient of NS(convolve)'s output, which becomes that of its sum, to that of its input. */
static TARGET void NS(convolve_back)(const ns_block *p, const float *from, int64_t row,
                                     int64_t n_tokens, float *grad, int64_t grad_row, float *to,
                                     float *grad_taps, float *grad_bias)
{
    for (int64_t c = 0; c < p->inner; c += LANES) {
        const int count = p->inner - c < LANES ? (int)(p->inner - c) : LANES;
        VEC bias = NS(load_part)(p->conv_bias + c, count), total = {0};
        for (int64_t t = 0; t < n_tokens; t++) {
            VEC sum = bias;
            for (int64_t lag = 0; lag < p->taps && lag <= t; lag++)
                sum += NS(load_part)(from + (t - lag) * row + c, count)
                       * NS(load_part)(p->conv + (p->taps - 1 - lag) * p->inner + c, count);
            VEC share = NS(sigmoid)(sum), back = NS(load_part)(grad + t * grad_row + c, count);
            back *= share * (1.0f + sum * (1.0f - share));
            NS(store_part)(grad + t * grad_row + c, back, count);
            total += back;
        }
        NS(add_part)(grad_bias + c, total, count);
        for (int64_t lag = 0; lag < p->taps; lag++) {
            const float *values = from + c, *back = grad + lag * grad_row + c;
            VEC tap = {0};
            for (int64_t t = 0; t + lag < n_tokens; t++, values += row, back += grad_row)
                tap += NS(load_part)(values, count) * NS(load_part)(back, count);
            NS(add_part)(grad_taps + (p->taps - 1 - lag) * p->inner + c, tap, count);
        }
        for (int64_t t = 0; t < n_tokens; t++) {
            VEC sum = {0};
            for (int64_t lag = 0; lag < p->taps && t + lag < n_tokens; lag++)
                sum += NS(load_part)(grad + (t + lag) * grad_row + c, count)
                       * NS(load_part)(p->conv + (p->taps - 1 - lag) * p->inner + c, count);
            NS(store_part)(to + t * row + c, sum, count);
        }
    }
}

INLINE void NS(share_rows)(const float *from, float share, int64_t count, float *to)
{
    for (int64_t i = 0; i < count; i += LANES)
        NS(store)(to + i, NS(load)(from + i) * share);
}

/* Where a part's gradient of a weight lies, or NULL. */
INLINE float *NS(find_place)(const ns_block *p, float *grads, int weight)
{
    return p->places[weight] < 0 ? NULL : grads + p->places[weight];
}

/* From the gradient of the block's output to that of the tokens between the sums, in `grad`. */
TARGET static void NS(perceive_back)(const ns_block *p, const NS(back_buffers) * b,
                                     const float *const *w, float share, float *grads)
{
    const int64_t n_dim = NS(pad)(p->dim), n_wide = NS(pad)(p->wide);
    for (int64_t t = 0; t < p->n_tokens; t += MLP_TOKENS) {
        const int64_t n = p->n_tokens - t < MLP_TOKENS ? p->n_tokens - t : MLP_TOKENS;
        const float *tokens = b->between + t * n_dim;
        float *grad = b->grad + t * n_dim, *normed = b->m.normed, *wide = b->m.wide;
        NS(normalise)(tokens, n_dim, n, p->dim, p->norm2, p->norm2_bias, p->epsilon, normed);
        NS(multiply)(normed, n_dim, n, w[3], p->dim, p->wide, w[4], 0, wide, n_wide);
        NS(share_rows)(grad, share, n * n_dim, b->shared);
        NS(multiply)(b->shared, n_dim, n, w[9], p->dim, p->wide, NULL, 0, b->wide, n_wide);
        NS(gelu_back)(wide, b->wide, n * n_wide);
        NS(correlate)(b->shared, n_dim, p->dim, wide, n_wide, p->wide, n,
                      NS(find_place)(p, grads, LINEAR2));
        NS(correlate)(b->wide, n_wide, p->wide, normed, n_dim, p->dim, n,
                      NS(find_place)(p, grads, LINEAR1));
        NS(add_rows)(b->shared, n_dim, n, p->dim, grads + p->places[LINEAR2_BIAS]);
        NS(add_rows)(b->wide, n_wide, n, p->wide, grads + p->places[LINEAR1_BIAS]);
        NS(multiply)(b->wide, n_wide, n, w[10], p->wide, p->dim, NULL, 0, b->normed, n_dim);
        NS(normalise_back)(tokens, n_dim, n, p->dim, p->norm2, p->epsilon, b->normed, grad,
                           grads + p->places[NORM2], grads + p->places[NORM2_BIAS]);
    }
}

/* From the gradient of the scan's output to those of all that it reads. */
TARGET static void NS(scan_back)(const ns_block *p, const NS(back_buffers) * b, NS(room) * room,
                                 float *grads)
{
    const int64_t n_inner = NS(pad)(p->inner), row = NS(pad)(p->rank + 2 * p->n_states);
    ns_scan scan = NS(describe_scan)(p, &b->m);
    scan.grad_y = b->y, scan.grad_y_t = n_inner;
    scan.y = b->out, scan.y_t = n_inner;
    scan.grad_u = b->hidden, scan.grad_delta = b->step, scan.grad_t = n_inner;
    scan.grad_z = b->gated + p->inner, scan.grad_z_t = NS(pad)(2 * p->inner);
    scan.grad_B = b->projected + p->rank, scan.grad_B_t = row;
    scan.grad_C = scan.grad_B + p->n_states;
    NS(back_sequence)(&scan, room, 0, grads + p->places[RATES]);
}

/* From the gradient of the tokens between the sums to that of `normed`, the norm's output. */
TARGET static void NS(mix_back)(const ns_block *p, const NS(back_buffers) * b,
                                const float *const *w, NS(room) * room, float share, float *grads)
{
    const int64_t n = p->n_prompts + p->n_tokens, d = p->inner, n_dim = NS(pad)(p->dim);
    const int64_t n_gated = NS(pad)(2 * d), n_inner = NS(pad)(d);
    const int64_t n_projected = p->rank + 2 * p->n_states, row = NS(pad)(n_projected);
    const int64_t skipped = p->n_prompts * n_inner;
    NS(project_window)(p, &b->m, w);
    NS(share_rows)(b->grad, share, p->n_tokens * n_dim, b->shared);
    memset(b->y, 0, sizeof(float) * (size_t)skipped); /* what prompts give is cut off */
    NS(multiply)(b->shared, n_dim, p->n_tokens, w[8], p->dim, d, NULL, 0, b->y + skipped, n_inner);
    NS(scan_back)(p, b, room, grads);
    NS(correlate)(b->shared, n_dim, p->dim, b->out + skipped, n_inner, d, p->n_tokens,
                  NS(find_place)(p, grads, OUT_PROJ));
    NS(multiply)(b->step, n_inner, n, w[7], d, p->rank, NULL, 0, b->normed, row);
    for (int64_t t = 0; t < n; t++) /* through `normed`, as whole vectors would reach B's */
        memcpy(b->projected + t * row, b->normed + t * row, sizeof(float) * (size_t)p->rank);
    NS(correlate)(b->step, n_inner, d, b->m.projected, row, p->rank, n,
                  NS(find_place)(p, grads, STEP_PROJ));
    NS(multiply)(b->projected, row, n, w[6], n_projected, d, NULL, 1, b->hidden, n_inner);
    NS(correlate)(b->projected, row, n_projected, b->m.hidden, n_inner, d, n,
                  NS(find_place)(p, grads, X_PROJ));
    NS(convolve_back)(p, b->m.gated, n_gated, n, b->hidden, n_inner, b->gated,
                      grads + p->places[CONV], grads + p->places[CONV_BIAS]);
    NS(multiply)(b->gated, n_gated, n, w[5], 2 * d, p->dim, NULL, 0, b->normed, n_dim);
    NS(correlate)(b->gated, n_gated, 2 * d, b->m.normed, n_dim, p->dim, n,
                  NS(find_place)(p, grads, IN_PROJ));
}

TARGET static void NS(back_window)(const ns_block *p, const NS(back_buffers) * b,
                                   const float *const *w, NS(room) * room, int64_t window,
                                   float *grads)
{
    const int64_t n_dim = NS(pad)(p->dim), *index = p->index + window * p->n_tokens;
    const size_t size = sizeof(float) * (size_t)p->dim;
    const float *shares = p->shares ? p->shares + 2 * window : NS(ones);
    for (int64_t t = 0; t < p->n_tokens; t++)
        if (index[t] < 0) {
            memset(b->between + t * n_dim, 0, size);
            memset(b->grad + t * n_dim, 0, size);
        } else {
            memcpy(b->between + t * n_dim, p->between + index[t] * p->dim, size);
            memcpy(b->grad + t * n_dim, p->grad_to + index[t] * p->dim, size);
        }
    if (shares[1] != 0)
        NS(perceive_back)(p, b, w, shares[1], grads);
    if (shares[0] != 0) {
        NS(read_window)(p, &b->m, index);
        NS(mix_back)(p, b, w, room, shares[0], grads);
        float *normed = b->normed + p->n_prompts * n_dim;
        for (int64_t t = 0; t < p->n_tokens; t++)
            if (index[t] < 0)
                memset(normed + t * n_dim, 0, size);
        for (int64_t t = 0; t < p->n_prompts; t++)
            NS(add_rows)(b->normed + t * n_dim, n_dim, 1, p->dim,
                         grads + p->places[PROMPTS] + t * p->dim);
        NS(normalise_back)(b->m.tokens, n_dim, p->n_tokens, p->dim, p->norm1, p->epsilon, normed,
                           b->grad, grads + p->places[NORM1], grads + p->places[NORM1_BIAS]);
    }
    NS(write_window)(p, b->grad, index, p->grad_from);
}

/* What the products need forward, as in NS(block_forward_layout), and backward. */
TARGET static int64_t NS(block_backward_layout)(const ns_block *p, const float **w, int fill)
{
    const int64_t n_projected = p->rank + 2 * p->n_states;
    const NS(part) parts[11] = {
        {p->in_proj, 2 * p->inner, p->dim, 0},  {p->x_proj, n_projected, p->inner, 0},
        {p->step_proj, p->inner, p->rank, 0},   {p->linear1, p->wide, p->dim, 0},
        {p->linear1_bias, p->wide, 1, 0},       {p->in_proj, p->dim, 2 * p->inner, 1},
        {p->x_proj, p->inner, n_projected, 1},  {p->step_proj, p->rank, p->inner, 1},
        {p->out_proj, p->inner, p->dim, 1},     {p->linear2, p->wide, p->dim, 1},
        {p->linear1, p->dim, p->wide, 1},
    };
    return NS(lay_out)(p, parts, 11, w, fill);
}

TARGET static int NS(block_backward)(ns_block *p)
{
    const float *w[11];
    NS(block_backward_layout)(p, w, 0);
    const size_t n = (size_t)(p->n_prompts + p->n_tokens), some = n > MLP_TOKENS ? n : MLP_TOKENS;
    const size_t dim = (size_t)NS(pad)(p->dim), inner = (size_t)NS(pad)(p->inner);
    const size_t gated = (size_t)NS(pad)(2 * p->inner), wide = (size_t)NS(pad)(p->wide);
    const size_t projected = (size_t)NS(pad)(p->rank + 2 * p->n_states);
    const size_t narrow = dim > projected ? dim : projected;
    const size_t sizes[18] = {
        n * dim, some * dim, n * gated, n * inner, n * projected, n * inner, MLP_TOKENS * wide,
        n * dim, n * dim, some * dim, n * inner, n * gated, n * projected, n * inner, n * inner,
        n * inner, some * narrow, MLP_TOKENS * wide,
    };
    NS(back_buffers) b;
    if (NS(make_buffers)(sizes, 18, (float **)&b))
        return -1;
    NS(room) room;
    ns_scan scan = NS(describe_scan)(p, &b.m);
    if (NS(make_room)(&scan, &room)) {
        free(b.m.tokens);
        return -1;
    }
    for (;;) {
        int64_t part = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED);
        int64_t first = part * p->group, end = first + p->group;
        if (first >= p->n_windows)
            break;
        for (int64_t window = first; window < end && window < p->n_windows; window++)
            NS(back_window)(p, &b, w, &room, window, p->grads + part * p->grads_size);
    }
    free(room.starts);
    free(b.m.tokens);
    return 0;
}

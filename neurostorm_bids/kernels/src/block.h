/* A whole block over one window after the other; included once per instruction set, after scan.h.
 *
 * Everything between a window's tokens and their update stays in a buffer of each thread, some
 * hundred kB in the base model, and so in the L2 cache. Rows of the buffers are padded to whole
 * vectors; what stands in the padding is never read as a value.
 */

typedef struct {
    float mean, rest, scale; /* the mean is mean + rest */
} NS(moments);

INLINE NS(moments) NS(measure_row)(const float *from, int64_t n, float epsilon)
{
    VEC total = {0}, squares = {0};
    for (int64_t c = 0; c < n; c += LANES)
        total += NS(load_part)(from + c, n - c < LANES ? (int)(n - c) : LANES);
    const double exact = NS(sum_exactly)(total) / (double)n;
    const float mean = (float)exact, rest = (float)(exact - mean);
    for (int64_t c = 0; c < n; c += LANES) {
        int count = n - c < LANES ? (int)(n - c) : LANES;
        VEC off = NS(load_part)(from + c, count) - NS(load_part)(NS(ones), count) * mean;
        squares += off * off;
    }
    const double variance = NS(sum_exactly)(squares) / (double)n - (double)rest * rest;
    return (NS(moments)){mean, rest, (float)(1.0 / sqrt(variance + epsilon))};
}

/* Layer norm of rows of n values; variance in a second pass. What a whole row has in common, its mean
 * and scale, is found in double: its rounding would not average out. */
static TARGET void NS(normalise)(const float *from, int64_t row, int64_t n_rows, int64_t n,
                                 const float *weight, const float *bias, float epsilon, float *out)
{
    for (int64_t r = 0; r < n_rows; r++, from += row, out += row) {
        const NS(moments) m = NS(measure_row)(from, n, epsilon);
        for (int64_t c = 0; c < n; c += LANES) {
            int count = n - c < LANES ? (int)(n - c) : LANES;
            VEC off = ((NS(load)(from + c) - m.mean) - m.rest) * m.scale;
            NS(store)(out + c, off * NS(load_part)(weight + c, count)
                                   + NS(load_part)(bias + c, count));
        }
    }
}

/* erf by a quotient of polynomials (that of Eigen and XLA), absolute error below 3e-7. */
INLINE VEC NS(erf)(VEC x)
{
    x = NS(max)(NS(set)(-4.0f), NS(min)(NS(set)(4.0f), x));
    VEC s = x * x;
    VEC p = s * -2.72614225801306e-10f + 2.77068142495902e-08f;
    p = p * s - 2.10102402082508e-06f;
    p = p * s - 5.69250639462346e-05f;
    p = p * s - 7.34990630326855e-04f;
    p = p * s - 2.95459980854025e-03f;
    p = p * s - 1.60960333262415e-02f;
    VEC q = s * -1.45660718464996e-05f - 2.13374055278905e-04f;
    q = q * s - 1.68282697438203e-03f;
    q = q * s - 7.37332916720468e-03f;
    q = q * s - 1.42647390514189e-02f;
    return x * p / q;
}

static TARGET void NS(apply_gelu)(float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i += LANES) {
        VEC v = NS(load)(x + i);
        NS(store)(x + i, 0.5f * v * (1.0f + NS(erf)(v * 0.707106781f)));
    }
}

/* SiLU of the causal convolution of each channel with its taps (taps, d), the last for now. */
static TARGET void NS(convolve)(const ns_block *p, const float *from, int64_t from_row,
                                int64_t n_tokens, float *out, int64_t out_row)
{
    for (int64_t c = 0; c < p->inner; c += LANES) {
        int count = p->inner - c < LANES ? (int)(p->inner - c) : LANES;
        VEC bias = NS(load_part)(p->conv_bias + c, count);
        for (int64_t t = 0; t < n_tokens; t++) {
            VEC sum = bias;
            for (int64_t lag = 0; lag < p->taps && lag <= t; lag++)
                sum += NS(load)(from + (t - lag) * from_row + c)
                       * NS(load_part)(p->conv + (p->taps - 1 - lag) * p->inner + c, count);
            NS(store)(out + t * out_row + c, sum * NS(sigmoid)(sum));
        }
    }
}

/* A thread's buffers; weights are packed once for all. */
typedef struct {
    float *tokens, *normed, *gated, *hidden, *projected, *step, *wide;
} NS(buffers);

/* Put a window's tokens into `tokens`, and prompts and what norm1 makes of the tokens into `normed`. */
TARGET static void NS(read_window)(const ns_block *p, const NS(buffers) * m, const int64_t *index)
{
    const int64_t n_dim = NS(pad)(p->dim);
    const size_t size = sizeof(float) * (size_t)p->dim;
    float *normed = m->normed + p->n_prompts * n_dim;
    for (int64_t t = 0; t < p->n_prompts; t++)
        memcpy(m->normed + t * n_dim, p->prompts + t * p->dim, size);
    for (int64_t t = 0; t < p->n_tokens; t++)
        if (index[t] < 0)
            memset(m->tokens + t * n_dim, 0, size);
        else
            memcpy(m->tokens + t * n_dim, p->from + index[t] * p->dim, size);
    NS(normalise)(m->tokens, n_dim, p->n_tokens, p->dim, p->norm1, p->norm1_bias, p->epsilon,
                  normed);
    for (int64_t t = 0; t < p->n_tokens; t++)
        if (index[t] < 0)
            memset(normed + t * n_dim, 0, size);
}

/* From `normed` to all that the scan reads. */
TARGET static void NS(project_window)(const ns_block *p, const NS(buffers) * m,
                                      const float *const *w)
{
    const int64_t n = p->n_prompts + p->n_tokens, d = p->inner, n_dim = NS(pad)(p->dim);
    const int64_t n_gated = NS(pad)(2 * d), n_inner = NS(pad)(d);
    const int64_t n_projected = p->rank + 2 * p->n_states, row = NS(pad)(n_projected);
    NS(multiply)(m->normed, n_dim, n, w[0], p->dim, 2 * d, NULL, 0, m->gated, n_gated);
    NS(convolve)(p, m->gated, n_gated, n, m->hidden, n_inner);
    NS(multiply)(m->hidden, n_inner, n, w[1], d, n_projected, NULL, 0, m->projected, row);
    NS(multiply)(m->projected, row, n, w[2], p->rank, d, NULL, 0, m->step, n_inner);
}

INLINE ns_scan NS(describe_scan)(const ns_block *p, const NS(buffers) * m)
{
    const int64_t n_inner = NS(pad)(p->inner), row = NS(pad)(p->rank + 2 * p->n_states);
    return (ns_scan){
        .u = m->hidden, .u_t = n_inner, .delta = m->step, .delta_t = n_inner,
        .B = m->projected + p->rank, .B_t = row,
        .C = m->projected + p->rank + p->n_states, .C_t = row,
        .z = m->gated + p->inner, .z_t = NS(pad)(2 * p->inner),
        .rates = p->rates, .skip = p->skip, .bias = p->step_bias,
        .n_sequences = 1, .n_tokens = p->n_prompts + p->n_tokens, .n_channels = p->inner,
        .n_states = p->n_states, .softplus = 1,
    };
}

TARGET static void NS(mix_window)(const ns_block *p, const NS(buffers) * m, const float *const *w,
                                  float share)
{
    const int64_t n_inner = NS(pad)(p->inner);
    NS(project_window)(p, m, w);
    ns_scan scan = NS(describe_scan)(p, m);
    scan.y = m->step, scan.y_t = n_inner;
    NS(scan_sequence)(&scan, 0);
    NS(multiply)(m->step + p->n_prompts * n_inner, n_inner, p->n_tokens, w[3], p->inner, p->dim,
                 NULL, share, m->tokens, NS(pad)(p->dim));
}

TARGET static void NS(perceive)(const ns_block *p, const NS(buffers) * m, const float *const *w,
                                float share)
{
    const int64_t n_dim = NS(pad)(p->dim), n_wide = NS(pad)(p->wide);
    for (int64_t t = 0; t < p->n_tokens; t += MLP_TOKENS) {
        int64_t n = p->n_tokens - t < MLP_TOKENS ? p->n_tokens - t : MLP_TOKENS;
        float *tokens = m->tokens + t * n_dim;
        NS(normalise)(tokens, n_dim, n, p->dim, p->norm2, p->norm2_bias, p->epsilon, m->normed);
        NS(multiply)(m->normed, n_dim, n, w[4], p->dim, p->wide, w[6], 0, m->wide, n_wide);
        NS(apply_gelu)(m->wide, n * n_wide);
        NS(multiply)(m->wide, n_wide, n, w[5], p->wide, p->dim, w[7], share, tokens, n_dim);
    }
}

/* Copy the rows of a window's tokens to where they lie. */
INLINE void NS(write_window)(const ns_block *p, const float *rows, const int64_t *index, float *to)
{
    for (int64_t t = 0; t < p->n_tokens; t++)
        if (index[t] >= 0)
            memcpy(to + index[t] * p->dim, rows + t * NS(pad)(p->dim),
                   sizeof(float) * (size_t)p->dim);
}

TARGET static void NS(update_window)(const ns_block *p, const NS(buffers) * m,
                                     const float *const *w, int64_t window)
{
    const int64_t *index = p->index + window * p->n_tokens;
    const float *shares = p->shares ? p->shares + 2 * window : NS(ones);
    NS(read_window)(p, m, index);
    if (shares[0] != 0)
        NS(mix_window)(p, m, w, shares[0]);
    if (p->between)
        NS(write_window)(p, m->tokens, index, p->between);
    if (shares[1] != 0)
        NS(perceive)(p, m, w, shares[1]);
    NS(write_window)(p, m->tokens, index, p->to);
}

typedef struct {
    const float *weight;
    int64_t n_out, n_in;
    int is_turned;
} NS(part);

/* Lay out `packed`: each part begins at a cache line, w[i]. Returns the number of values. */
TARGET static int64_t NS(lay_out)(const ns_block *p, const NS(part) * parts, int n_parts,
                                  const float **w, int fill)
{
    int64_t used = 0;
    for (int i = 0; i < n_parts; i++) {
        if (w)
            w[i] = p->packed + used;
        if (fill && parts[i].is_turned)
            NS(pack_turned)(parts[i].weight, parts[i].n_out, parts[i].n_in, p->packed + used);
        else if (fill)
            NS(pack)(parts[i].weight, parts[i].n_out, parts[i].n_in, p->packed + used);
        used += (NS(pad)(parts[i].n_out) * parts[i].n_in + 15) / 16 * 16;
    }
    return used;
}

/* Six products' weights and the perceptron's two biases. */
TARGET static int64_t NS(block_forward_layout)(const ns_block *p, const float **w, int fill)
{
    const NS(part) parts[8] = {
        {p->in_proj, 2 * p->inner, p->dim, 0},
        {p->x_proj, p->rank + 2 * p->n_states, p->inner, 0},
        {p->step_proj, p->inner, p->rank, 0},
        {p->out_proj, p->dim, p->inner, 0},
        {p->linear1, p->wide, p->dim, 0},
        {p->linear2, p->dim, p->wide, 0},
        {p->linear1_bias, p->wide, 1, 0},
        {p->linear2_bias, p->dim, 1, 0},
    };
    return NS(lay_out)(p, parts, 8, w, fill);
}

/* Room for buffers of so many values, each from a cache line on; all zero, as what pads rows shall be
 * no NaN. Freed by its first buffer. */
TARGET static int NS(make_buffers)(const size_t *sizes, int count, float **buffers)
{
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += (sizes[i] + LANES + 15) / 16 * 16;
    float *next = aligned_alloc(64, total * sizeof(float));
    if (!next)
        return -1;
    memset(next, 0, total * sizeof(float));
    for (int i = 0; i < count; i++) {
        buffers[i] = next;
        next += (sizes[i] + LANES + 15) / 16 * 16;
    }
    return 0;
}

TARGET static int NS(block_forward)(ns_block *p)
{
    const float *w[8];
    NS(block_forward_layout)(p, w, 0);
    const size_t n = (size_t)(p->n_prompts + p->n_tokens);
    const size_t sizes[7] = {
        n * (size_t)NS(pad)(p->dim),
        (n > MLP_TOKENS ? n : MLP_TOKENS) * (size_t)NS(pad)(p->dim),
        n * (size_t)NS(pad)(2 * p->inner),
        n * (size_t)NS(pad)(p->inner),
        n * (size_t)NS(pad)(p->rank + 2 * p->n_states),
        n * (size_t)NS(pad)(p->inner),
        MLP_TOKENS * (size_t)NS(pad)(p->wide),
    };
    NS(buffers) m;
    if (NS(make_buffers)(sizes, 7, (float **)&m))
        return -1;
    for (;;) {
        int64_t window = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED);
        if (window >= p->n_windows)
            break;
        NS(update_window)(p, &m, w, window);
    }
    free(m.tokens);
    return 0;
}

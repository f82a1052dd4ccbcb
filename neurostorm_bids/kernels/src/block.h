/* A whole block over one window after the other; included once per instruction set, after scan.h.
 *
 * Everything between a window's tokens and their update stays in a buffer of each thread, some
 * hundred kB in the base model, and so in the L2 cache. Rows of the buffers are padded to whole
 * vectors; what stands in the padding is never read as a value.
 */

INLINE int64_t NS(pad)(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

/* Rows of weights (n_out, n_in) become panels of WIDE vectors of outputs, input by input. */
static TARGET int64_t NS(pack)(const float *weight, int64_t n_out, int64_t n_in, float *to)
{
    for (int64_t first = 0; first < n_out; first += WIDE * LANES) {
        int64_t left = n_out - first, rows = left < WIDE * LANES ? left : WIDE * LANES;
        int64_t width = NS(pad)(rows);
        for (int64_t k = 0; k < n_in; k++)
            for (int64_t row = rows; row < width; row++)
                to[k * width + row] = 0;
        for (int64_t start = 0; start < n_in; start += 16) /* rows read by the cache line */
            for (int64_t row = 0; row < rows; row++)
                for (int64_t k = start; k < start + 16 && k < n_in; k++)
                    to[k * width + row] = weight[(first + row) * n_in + k];
        to += width * n_in;
    }
    return NS(pad)(n_out) * n_in;
}

/* out (rows, width vectors) = from (rows, n_in) times a panel, plus a bias or what is there. */
INLINE void NS(multiply_tile)(const float *from, int64_t from_row, const float *panel, int64_t n_in,
                              const int rows, const int width, const float *bias, int add,
                              float *out, int64_t out_row)
{
    VEC totals[TALL][WIDE];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < width; v++)
            totals[r][v] = (VEC){0};
    for (int64_t first = 0; first < n_in; first += RUN) {
        const int64_t end = first + RUN < n_in ? first + RUN : n_in;
        VEC sums[TALL][WIDE];
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < width; v++)
                sums[r][v] = (VEC){0};
        for (int64_t k = first; k < end; k++) {
            VEC weights[WIDE];
            for (int v = 0; v < width; v++)
                weights[v] = NS(load)(panel + (k * width + v) * LANES);
            for (int r = 0; r < rows; r++)
                for (int v = 0; v < width; v++)
                    sums[r][v] += weights[v] * from[r * from_row + k];
        }
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < width; v++)
                totals[r][v] += sums[r][v];
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < width; v++) {
            float *to = out + r * out_row + v * LANES;
            VEC sum = totals[r][v];
            if (bias)
                sum += NS(load)(bias + v * LANES);
            if (add)
                sum += NS(load)(to);
            NS(store)(to, sum);
        }
}

INLINE void NS(multiply_panel)(const float *from, int64_t from_row, int64_t n_rows,
                               const float *panel, int64_t n_in, const int width,
                               const float *bias, int add, float *out, int64_t out_row)
{
    int64_t r = 0;
    for (; r + TALL <= n_rows; r += TALL)
        NS(multiply_tile)(from + r * from_row, from_row, panel, n_in, TALL, width, bias, add,
                          out + r * out_row, out_row);
    for (; r < n_rows; r++)
        NS(multiply_tile)(from + r * from_row, from_row, panel, n_in, 1, width, bias, add,
                          out + r * out_row, out_row);
}

/* out (n_rows, n_out) = from (n_rows, n_in) times packed weights; `bias` is padded, or NULL. */
static TARGET void NS(multiply)(const float *from, int64_t from_row, int64_t n_rows,
                                const float *packed, int64_t n_in, int64_t n_out,
                                const float *bias, int add, float *out, int64_t out_row)
{
    int64_t n_vectors = NS(pad)(n_out) / LANES;
    for (int64_t v = 0; v < n_vectors; v += WIDE) {
        const float *part = bias ? bias + v * LANES : NULL;
        if (n_vectors - v >= 3)
            NS(multiply_panel)(from, from_row, n_rows, packed, n_in, 3, part, add,
                               out + v * LANES, out_row);
        else if (n_vectors - v == 2)
            NS(multiply_panel)(from, from_row, n_rows, packed, n_in, 2, part, add,
                               out + v * LANES, out_row);
        else
            NS(multiply_panel)(from, from_row, n_rows, packed, n_in, 1, part, add,
                               out + v * LANES, out_row);
        packed += WIDE * LANES * n_in;
    }
}

/* Layer norm of rows of n values; variance in a second pass, as exact as float allows. */
static TARGET void NS(normalise)(const float *from, int64_t row, int64_t n_rows, int64_t n,
                                 const float *weight, const float *bias, float epsilon, float *out)
{
    for (int64_t r = 0; r < n_rows; r++, from += row, out += row) {
        VEC total = {0}, squares = {0};
        for (int64_t c = 0; c < n; c += LANES)
            total += NS(load_part)(from + c, n - c < LANES ? (int)(n - c) : LANES);
        float mean = NS(sum)(total) / (float)n;
        for (int64_t c = 0; c < n; c += LANES) {
            int count = n - c < LANES ? (int)(n - c) : LANES;
            VEC off = NS(load_part)(from + c, count) - NS(load_part)(NS(ones), count) * mean;
            squares += off * off;
        }
        float scale = 1.0f / sqrtf(NS(sum)(squares) / (float)n + epsilon);
        for (int64_t c = 0; c < n; c += LANES) {
            int count = n - c < LANES ? (int)(n - c) : LANES;
            VEC off = (NS(load)(from + c) - mean) * scale;
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

TARGET static void NS(mix_window)(const ns_block *p, const NS(buffers) * m, const float *const *w)
{
    const int64_t n = p->n_prompts + p->n_tokens, d = p->inner, n_dim = NS(pad)(p->dim);
    const int64_t n_gated = NS(pad)(2 * d), n_inner = NS(pad)(d);
    const int64_t n_projected = p->rank + 2 * p->n_states, row = NS(pad)(n_projected);
    NS(multiply)(m->normed, n_dim, n, w[0], p->dim, 2 * d, NULL, 0, m->gated, n_gated);
    NS(convolve)(p, m->gated, n_gated, n, m->hidden, n_inner);
    NS(multiply)(m->hidden, n_inner, n, w[1], d, n_projected, NULL, 0, m->projected, row);
    NS(multiply)(m->projected, row, n, w[2], p->rank, d, NULL, 0, m->step, n_inner);
    ns_scan scan = {
        .u = m->hidden, .u_t = n_inner, .delta = m->step, .delta_t = n_inner,
        .B = m->projected + p->rank, .B_t = row,
        .C = m->projected + p->rank + p->n_states, .C_t = row,
        .z = m->gated + d, .z_t = n_gated, .rates = p->rates, .skip = p->skip, .bias = p->step_bias,
        .y = m->step, .y_t = n_inner, .n_sequences = 1, .n_tokens = n, .n_channels = d,
        .n_states = p->n_states, .softplus = 1,
    };
    NS(scan_sequence)(&scan, 0);
    NS(multiply)(m->step + p->n_prompts * n_inner, n_inner, p->n_tokens, w[3], d, p->dim, NULL, 1,
                 m->tokens, n_dim);
}

TARGET static void NS(update_window)(const ns_block *p, const NS(buffers) * m,
                                     const float *const *w, const int64_t *index)
{
    const int64_t n_dim = NS(pad)(p->dim), n_wide = NS(pad)(p->wide);
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
    NS(mix_window)(p, m, w);
    for (int64_t t = 0; t < p->n_tokens; t += MLP_TOKENS) {
        int64_t n = p->n_tokens - t < MLP_TOKENS ? p->n_tokens - t : MLP_TOKENS;
        float *tokens = m->tokens + t * n_dim;
        NS(normalise)(tokens, n_dim, n, p->dim, p->norm2, p->norm2_bias, p->epsilon, m->normed);
        NS(multiply)(m->normed, n_dim, n, w[4], p->dim, p->wide, w[6], 0, m->wide, n_wide);
        NS(apply_gelu)(m->wide, n * n_wide);
        NS(multiply)(m->wide, n_wide, n, w[5], p->wide, p->dim, w[7], 1, tokens, n_dim);
    }
    for (int64_t t = 0; t < p->n_tokens; t++)
        if (index[t] >= 0)
            memcpy(p->to + index[t] * p->dim, m->tokens + t * n_dim, size);
}

/* Lay out `packed`: six products' weights and the perceptron's two biases, padded. */
TARGET static int64_t NS(block_layout)(const ns_block *p, const float **w, int fill)
{
    const int64_t n_projected = p->rank + 2 * p->n_states;
    const struct { const float *weight; int64_t n_out, n_in; } parts[8] = {
        {p->in_proj, 2 * p->inner, p->dim},   {p->x_proj, n_projected, p->inner},
        {p->step_proj, p->inner, p->rank},    {p->out_proj, p->dim, p->inner},
        {p->linear1, p->wide, p->dim},        {p->linear2, p->dim, p->wide},
        {p->linear1_bias, p->wide, 1},        {p->linear2_bias, p->dim, 1},
    };
    int64_t used = 0;
    for (int i = 0; i < 8; i++) {
        if (w)
            w[i] = p->packed + used;
        if (fill)
            NS(pack)(parts[i].weight, parts[i].n_out, parts[i].n_in, p->packed + used);
        used += (NS(pad)(parts[i].n_out) * parts[i].n_in + 15) / 16 * 16;
    }
    return used;
}

TARGET static int NS(block_forward)(ns_block *p)
{
    const float *w[8];
    NS(block_layout)(p, w, 0);
    const size_t n = (size_t)(p->n_prompts + p->n_tokens);
    const size_t sizes[7] = {
        n * (size_t)NS(pad)(p->dim),
        (n > MLP_TOKENS ? n : MLP_TOKENS) * (size_t)NS(pad)(p->dim),
        n * (size_t)NS(pad)(2 * p->inner) + LANES,
        n * (size_t)NS(pad)(p->inner),
        n * (size_t)NS(pad)(p->rank + 2 * p->n_states),
        n * (size_t)NS(pad)(p->inner),
        MLP_TOKENS * (size_t)NS(pad)(p->wide),
    };
    size_t total = 0;
    for (int i = 0; i < 7; i++)
        total += (sizes[i] + 15) / 16 * 16;
    float *memory = aligned_alloc(64, total * sizeof(float)), *next = memory;
    if (!memory)
        return -1;
    float *parts[7];
    for (int i = 0; i < 7; i++) {
        parts[i] = next;
        next += (sizes[i] + 15) / 16 * 16;
    }
    memset(memory, 0, total * sizeof(float)); /* what pads rows shall be no NaN */
    NS(buffers) m = {parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], parts[6]};
    for (;;) {
        int64_t window = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED);
        if (window >= p->n_windows)
            break;
        NS(update_window)(p, &m, w, p->index + window * p->n_tokens);
    }
    free(memory);
    return 0;
}

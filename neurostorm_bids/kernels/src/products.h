/* Products of tokens with weights, and what weights get back; included once per instruction set. */

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

/* The same of weights (n_in, n_out): of a product backward. */
static TARGET int64_t NS(pack_turned)(const float *weight, int64_t n_out, int64_t n_in, float *to)
{
    for (int64_t first = 0; first < n_out; first += WIDE * LANES) {
        int64_t left = n_out - first, rows = left < WIDE * LANES ? left : WIDE * LANES;
        int64_t width = NS(pad)(rows);
        for (int64_t k = 0; k < n_in; k++, to += width) {
            memset(to, 0, sizeof(float) * (size_t)width);
            memcpy(to, weight + k * n_out + first, sizeof(float) * (size_t)rows);
        }
    }
    return NS(pad)(n_out) * n_in;
}

/* out (rows, width vectors) = from (rows, n_in) times a panel, plus a bias; a share of that is added
 * to what is there, where it is not 0. */
INLINE void NS(multiply_tile)(const float *from, int64_t from_row, const float *panel, int64_t n_in,
                              const int rows, const int width, const float *bias, float share,
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
            if (share != 0)
                sum = sum * share + NS(load)(to);
            NS(store)(to, sum);
        }
}

INLINE void NS(multiply_panel)(const float *from, int64_t from_row, int64_t n_rows,
                               const float *panel, int64_t n_in, const int width,
                               const float *bias, float share, float *out, int64_t out_row)
{
    int64_t r = 0;
    for (; r + TALL <= n_rows; r += TALL)
        NS(multiply_tile)(from + r * from_row, from_row, panel, n_in, TALL, width, bias, share,
                          out + r * out_row, out_row);
    for (; r < n_rows; r++)
        NS(multiply_tile)(from + r * from_row, from_row, panel, n_in, 1, width, bias, share,
                          out + r * out_row, out_row);
}

/* out (n_rows, n_out) = from (n_rows, n_in) times packed weights; `bias` is padded, or NULL. Of a
 * `share` that is not 0, as much is added to `out`. */
static TARGET void NS(multiply)(const float *from, int64_t from_row, int64_t n_rows,
                                const float *packed, int64_t n_in, int64_t n_out,
                                const float *bias, float share, float *out, int64_t out_row)
{
    int64_t n_vectors = NS(pad)(n_out) / LANES;
    for (int64_t v = 0; v < n_vectors; v += WIDE) {
        const float *part = bias ? bias + v * LANES : NULL;
        if (n_vectors - v >= 3)
            NS(multiply_panel)(from, from_row, n_rows, packed, n_in, 3, part, share,
                               out + v * LANES, out_row);
        else if (n_vectors - v == 2)
            NS(multiply_panel)(from, from_row, n_rows, packed, n_in, 2, part, share,
                               out + v * LANES, out_row);
        else
            NS(multiply_panel)(from, from_row, n_rows, packed, n_in, 1, part, share,
                               out + v * LANES, out_row);
        packed += WIDE * LANES * n_in;
    }
}

/* What weights (rows of them, width vectors of inputs) get of some tokens, added to `to`. */
INLINE void NS(correlate_tile)(const float *grad, int64_t grad_row, const float *from,
                               int64_t from_row, int64_t n_tokens, const int rows, const int width,
                               int64_t n_left, float *to, int64_t n_in)
{
    VEC sums[TALL][WIDE];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < width; v++)
            sums[r][v] = (VEC){0};
    for (int64_t t = 0; t < n_tokens; t++) {
        VEC values[WIDE];
        for (int v = 0; v < width; v++)
            values[v] = NS(load)(from + t * from_row + v * LANES);
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < width; v++)
                sums[r][v] += values[v] * grad[t * grad_row + r];
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < width; v++) {
            int64_t left = n_left - v * LANES;
            NS(add_part)(to + r * n_in + v * LANES, sums[r][v], left < LANES ? (int)left : LANES);
        }
}

INLINE void NS(correlate_panel)(const float *grad, int64_t grad_row, const float *from,
                                int64_t from_row, int64_t n_tokens, int64_t n_out, const int width,
                                int64_t n_left, float *to, int64_t n_in)
{
    int64_t r = 0;
    for (; r + TALL <= n_out; r += TALL)
        NS(correlate_tile)(grad + r, grad_row, from, from_row, n_tokens, TALL, width, n_left,
                           to + r * n_in, n_in);
    for (; r + 4 <= n_out; r += 4)
        NS(correlate_tile)(grad + r, grad_row, from, from_row, n_tokens, 4, width, n_left,
                           to + r * n_in, n_in);
    for (; r < n_out; r++)
        NS(correlate_tile)(grad + r, grad_row, from, from_row, n_tokens, 1, width, n_left,
                           to + r * n_in, n_in);
}

/* to (n_out, n_in) += grad (n_tokens, n_out), turned, times from (n_tokens, n_in), whose rows may be
 * read up to a whole vector; nothing where `to` is NULL. */
static TARGET void NS(correlate)(const float *grad, int64_t grad_row, int64_t n_out,
                                 const float *from, int64_t from_row, int64_t n_in,
                                 int64_t n_tokens, float *to)
{
    for (int64_t t = 0; to && t < n_tokens; t += SUM_TOKENS) {
        const int64_t n = n_tokens - t < SUM_TOKENS ? n_tokens - t : SUM_TOKENS;
        for (int64_t c = 0; c < n_in; c += WIDE * LANES) {
            const float *part = grad + t * grad_row, *values = from + t * from_row + c;
            const int64_t n_left = n_in - c, n_vectors = NS(pad)(n_left) / LANES;
            if (n_vectors >= 3)
                NS(correlate_panel)(part, grad_row, values, from_row, n, n_out, 3, n_left, to + c,
                                    n_in);
            else if (n_vectors == 2)
                NS(correlate_panel)(part, grad_row, values, from_row, n, n_out, 2, n_left, to + c,
                                    n_in);
            else
                NS(correlate_panel)(part, grad_row, values, from_row, n, n_out, 1, n_left, to + c,
                                    n_in);
        }
    }
}

/* to (n) += the sum of rows. */
static TARGET void NS(add_rows)(const float *from, int64_t row, int64_t n_rows, int64_t n, float *to)
{
    for (int64_t c = 0; c < n; c += LANES) {
        const int count = n - c < LANES ? (int)(n - c) : LANES;
        VEC sum = {0};
        for (int64_t r = 0; r < n_rows; r++)
            sum += NS(load_part)(from + r * row + c, count);
        NS(add_part)(to + c, sum, count);
    }
}

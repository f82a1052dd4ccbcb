/* Patches of a clip to tokens, read where they lie; included once per instruction set. */

/* The tokens of `rows` volumes of a patch: volumes lie side by side, voxels at `offsets`. */
INLINE void NS(embed_tile)(const ns_patches *p, const float *from, const float *panel,
                           const float *bias, const int rows, const int width, int64_t n_left,
                           float *to)
{
    VEC sums[PATCH_ROWS][WIDE];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < width; v++)
            sums[r][v] = NS(load)(bias + v * LANES);
    for (int64_t k = 0; k < p->n_features; k++) {
        const float *values = from + p->offsets[k];
        VEC weights[WIDE];
        for (int v = 0; v < width; v++)
            weights[v] = NS(load)(panel + (k * width + v) * LANES);
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < width; v++)
                sums[r][v] += weights[v] * values[r];
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < width; v++) {
            int64_t left = n_left - v * LANES;
            NS(store_part)(to + r * p->dim + v * LANES, sums[r][v],
                           left < LANES ? (int)left : LANES);
        }
}

INLINE void NS(embed_patch)(const ns_patches *p, const float *from, const float *panel,
                            const float *bias, const int width, int64_t n_left, float *to)
{
    int64_t t = 0;
    for (; t + PATCH_ROWS <= p->n_volumes; t += PATCH_ROWS)
        NS(embed_tile)(p, from + t, panel, bias, PATCH_ROWS, width, n_left, to + t * p->dim);
    for (; t < p->n_volumes; t++)
        NS(embed_tile)(p, from + t, panel, bias, 1, width, n_left, to + t * p->dim);
}

TARGET static void NS(embed_row)(const ns_patches *p, const float *from, const float *biases,
                                 float *to)
{
    for (int64_t patch = 0; patch < p->n_patches; patch++) {
        const float *panel = p->packed;
        for (int64_t first = 0; first < p->dim; first += WIDE * LANES) {
            const float *bias = biases + first;
            const int64_t left = p->dim - first, n_vectors = NS(pad)(left) / LANES;
            if (n_vectors >= 3)
                NS(embed_patch)(p, from, panel, bias, 3, left, to + first);
            else if (n_vectors == 2)
                NS(embed_patch)(p, from, panel, bias, 2, left, to + first);
            else
                NS(embed_patch)(p, from, panel, bias, 1, left, to + first);
            panel += WIDE * LANES * p->n_features;
        }
        from += p->patch_step;
        to += p->n_volumes * p->dim;
    }
}

TARGET static int NS(patches_forward)(ns_patches *p)
{
    const float *bias = p->packed + NS(pad)(p->dim) * p->n_features;
    for (;;) {
        int64_t row = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED);
        if (row >= p->n_rows)
            return 0;
        NS(embed_row)(p, p->from + p->starts[row], bias,
                      p->to + row * p->n_patches * p->n_volumes * p->dim);
    }
}

TARGET static int64_t NS(patches_forward_layout)(const ns_patches *p, const float **w, int fill)
{
    (void)w;
    int64_t used = NS(pad)(p->dim) * p->n_features;
    if (fill) {
        NS(pack)(p->weight, p->dim, p->n_features, p->packed);
        NS(pack)(p->bias, p->dim, 1, p->packed + used);
    }
    return used + NS(pad)(p->dim);
}

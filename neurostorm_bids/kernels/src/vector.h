/* Vectors of LANES floats and the functions of them that the kernels need.
 *
 * Included once per instruction set, with NS(name) (a name of its own for each), LANES and TARGET
 * defined. Only what no compiler finds by itself is written in an instruction set's own words.
 */

typedef float NS(vec) __attribute__((vector_size(4 * LANES)));
typedef int32_t NS(ivec) __attribute__((vector_size(4 * LANES)));
#define VEC NS(vec)
#define IVEC NS(ivec)
static const float NS(ones)[LANES] = {
    [0 ... LANES - 1] = 1.0f,
};
#if LANES == 8
static const IVEC NS(lane_numbers) = {0, 1, 2, 3, 4, 5, 6, 7};
#endif
#define INLINE static inline __attribute__((always_inline)) TARGET

INLINE VEC NS(load)(const float *from)
{
    VEC v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE void NS(store)(float *to, VEC v) { memcpy(to, &v, sizeof v); }

/* Read or write the first `count` lanes; the others are zero, or left alone. */
INLINE VEC NS(load_part)(const float *from, int count)
{
    if (count == LANES)
        return NS(load)(from);
#if LANES == 16
    return (VEC)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
#elif LANES == 8
    return (VEC)_mm256_maskload_ps(from, (__m256i)(NS(lane_numbers) < count));
#else
    VEC v = {0};
    for (int lane = 0; lane < count; lane++)
        v[lane] = from[lane];
    return v;
#endif
}

INLINE void NS(store_part)(float *to, VEC v, int count)
{
    if (count == LANES) {
        NS(store)(to, v);
        return;
    }
#if LANES == 16
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)v);
#elif LANES == 8
    _mm256_maskstore_ps(to, (__m256i)(NS(lane_numbers) < count), (__m256)v);
#else
    for (int lane = 0; lane < count; lane++)
        to[lane] = v[lane];
#endif
}

INLINE void NS(add_part)(float *to, VEC v, int count)
{
    NS(store_part)(to, NS(load_part)(to, count) + v, count);
}

INLINE VEC NS(set)(float x) { return x - (VEC){0}; }

INLINE float NS(sum)(VEC v)
{
    float lanes[LANES], total = 0;
    memcpy(lanes, &v, sizeof v);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int lane = 0; lane < width; lane++)
            lanes[lane] += lanes[lane + width];
    total = lanes[0];
    return total;
}

INLINE double NS(sum_exactly)(VEC v)
{
    double total = 0;
    for (int lane = 0; lane < LANES; lane++)
        total += (double)v[lane];
    return total;
}

/* Where x is not a number these give x, in that order of the arguments. */
INLINE VEC NS(max)(VEC bound, VEC x)
{
#if LANES == 16
    return (VEC)_mm512_max_ps((__m512)bound, (__m512)x);
#elif LANES == 8
    return (VEC)_mm256_max_ps((__m256)bound, (__m256)x);
#elif defined(__SSE2__)
    return (VEC)_mm_max_ps((__m128)bound, (__m128)x);
#else
    IVEC is_less = x < bound;
    return (VEC)((is_less & (IVEC)bound) | (~is_less & (IVEC)x));
#endif
}

INLINE VEC NS(min)(VEC bound, VEC x) { return -NS(max)(-bound, -x); }

/* 2^f for |f| <= 1/2; exact at 0, so that slow decays do not drift. The polynomial itself errs by 2e-9:
 * what is left is rounding, which has no sign of its own and does not add up over tokens. */
INLINE VEC NS(exp2_fraction)(VEC f)
{
    VEC p = f * 1.535336159e-04f + 1.339887452e-03f;
    p = p * f + 9.618437360e-03f;
    p = p * f + 5.550332471e-02f;
    p = p * f + 2.402264791e-01f;
    p = p * f + 6.931472029e-01f;
    return p * f + 1.0f;
}

/* 2^x. Without AVX-512, x is held within -126 and 127: nothing the kernels add notices. */
INLINE VEC NS(exp2)(VEC x)
{
#if LANES == 16
    VEC f = (VEC)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT); /* 0 for an infinite x */
    return (VEC)_mm512_scalef_ps((__m512)NS(exp2_fraction)(f), (__m512)(x - f));
#else
    x = NS(max)(NS(set)(-126.0f), NS(min)(NS(set)(127.0f), x));
    VEC shifted = x + 12582912.0f; /* 1.5 * 2^23: the last bits now hold x, rounded */
    VEC f = x - (shifted - 12582912.0f);
    return (VEC)((IVEC)NS(exp2_fraction)(f) + ((IVEC)shifted << 23));
#endif
}

/* e^x, also right to the last digits where x is large. */
INLINE VEC NS(exp)(VEC x)
{
    x = NS(max)(NS(set)(-87.0f), NS(min)(NS(set)(88.0f), x));
    VEC whole = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    VEC rest = x - whole * 0.693359375f; /* ln 2 in two parts, the first of few digits */
    rest = rest + whole * 2.12194440e-4f;
    return NS(exp2)(whole) * NS(exp2_fraction)(rest * 1.44269504f);
}

INLINE VEC NS(sigmoid)(VEC x) { return 1.0f / (1.0f + NS(exp)(-x)); }

/* log(1 + e^x) = max(x, 0) + 2 atanh(e / (2 + e)) with e = e^-|x|: exact for small results too. */
INLINE VEC NS(softplus)(VEC x)
{
    VEC positive = NS(max)(NS(set)(0.0f), x);
    VEC e = NS(exp)(-NS(max)(x, -x));
    VEC s = e / (2.0f + e), q = s * s; /* q <= 1/9 */
    VEC p = q * 0.066666667f + 0.076923077f;
    p = p * q + 0.090909091f;
    p = p * q + 0.111111111f;
    p = p * q + 0.142857143f;
    p = p * q + 0.2f;
    p = p * q + 0.333333333f;
    p = p * q + 1.0f;
    return positive + 2.0f * s * p;
}

/* The kernels for every instruction set in one library, and the choice between them.
 *
 * Plain C with a C interface: needs neither Python's headers nor PyTorch's. Each instruction set is
 * the same source, compiled anew; which of them a processor has is asked at run time, so the library
 * runs on any processor of its architecture.
 */

#include "kernels.h"

#include <stdlib.h>
#include <string.h>

#if !defined(__GNUC__)
#error "GCC or Clang is needed"
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#define HAS_X86_LEVELS 1
#endif

#define LOG2_E 1.44269504088896341f
#define MAX_STATES 64
#define TILE 256 /* tokens whose states the backward keeps at once: they fit into the L2 cache */
/* Do it for each state k: 16, which are the rule, written out, so that they stay in registers. */
#define ONE(K, ...) { enum { k = K }; __VA_ARGS__ }
#define FOUR(K, ...) \
    ONE(K, __VA_ARGS__) ONE(K + 1, __VA_ARGS__) ONE(K + 2, __VA_ARGS__) ONE(K + 3, __VA_ARGS__)
#define EACH_STATE(n, ...) \
    if ((n) == 16) { \
        FOUR(0, __VA_ARGS__) FOUR(4, __VA_ARGS__) FOUR(8, __VA_ARGS__) FOUR(12, __VA_ARGS__) \
    } else { \
        for (int k = 0; k < (n); k++) { __VA_ARGS__ } \
    }
#define EXPORT __attribute__((visibility("default")))

#define NS(name) name##_baseline
#define LANES 4
#define TARGET
#include "vector.h"
#include "scan.h"
#undef NS
#undef LANES
#undef TARGET

#ifdef HAS_X86_LEVELS
#define NS(name) name##_avx2
#define LANES 8
#define TARGET __attribute__((target("avx2,fma,bmi,bmi2")))
#include "vector.h"
#include "scan.h"
#undef NS
#undef LANES
#undef TARGET

#define NS(name) name##_avx512
#define LANES 16
#define TARGET \
    __attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi,bmi2")))
#include "vector.h"
#include "scan.h"
#undef NS
#undef LANES
#undef TARGET
#endif

/* The best instruction set of this processor: 0 baseline, 1 AVX2 with FMA, 2 AVX-512. */
EXPORT int ns_best_level(void)
{
#ifdef HAS_X86_LEVELS
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !__builtin_cpu_supports("bmi2"))
        return 0;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return 2;
    return 1;
#else
    return 0;
#endif
}

/* Changes with the structs and functions: a library of another version is not used. */
EXPORT int ns_interface(void) { return 1; }

EXPORT int64_t ns_max_states(void) { return MAX_STATES; }

/* Numbers too small for float's full precision are slow and mean nothing here. */
static unsigned start_flushing(void)
{
#ifdef HAS_X86_LEVELS
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
    return before;
#else
    return 0;
#endif
}

static void stop_flushing(unsigned before)
{
#ifdef HAS_X86_LEVELS
    _mm_setcsr(before);
#else
    (void)before;
#endif
}

/* Both return 0, or -1 without memory; every thread that works on a struct calls them on it. */
EXPORT int ns_scan_forward(ns_scan *scan, int level)
{
    unsigned before = start_flushing();
    int status;
#ifdef HAS_X86_LEVELS
    status = level == 2   ? scan_forward_avx512(scan)
             : level == 1 ? scan_forward_avx2(scan)
                          : scan_forward_baseline(scan);
#else
    (void)level;
    status = scan_forward_baseline(scan);
#endif
    stop_flushing(before);
    return status;
}

EXPORT int ns_scan_backward(ns_scan *scan, int level)
{
    unsigned before = start_flushing();
    int status;
#ifdef HAS_X86_LEVELS
    status = level == 2   ? scan_backward_avx512(scan)
             : level == 1 ? scan_backward_avx2(scan)
                          : scan_backward_baseline(scan);
#else
    (void)level;
    status = scan_backward_baseline(scan);
#endif
    stop_flushing(before);
    return status;
}

/* The kernels for every instruction set in one library, and the choice between them.
 *
 * Plain C with a C interface: needs neither Python's headers nor PyTorch's. Each instruction set is
 * the same source, compiled anew; which of them a processor has is asked at run time, so the library
 * runs on any processor of its architecture.
 */

#include "kernels.h"

#include <math.h>
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
/* A product works on WIDE vectors of outputs and TALL tokens in registers, and sums over RUN inputs
 * before these join the rest: that rounds less. Both are an instruction set's own. */
#define WIDE 3
#define PATCH_ROWS 4  /* volumes of a patch, likewise */
#define MLP_TOKENS 64 /* tokens that go through the perceptron at a time */
#define SUM_TOKENS 64 /* tokens over which gradients of weights are summed at a time */
#define EXPORT __attribute__((visibility("default")))

#define NS(name) name##_baseline
#define LANES 4
#define TALL 4
#define RUN 12
#define TARGET
#include "vector.h"
#include "scan.h"
#include "products.h"
#include "block.h"
#include "block_back.h"
#include "patches.h"
#include "end.h"

#ifdef HAS_X86_LEVELS
#define NS(name) name##_avx2
#define LANES 8
#define TALL 4
#define RUN 32
#define TARGET __attribute__((target("avx2,fma,bmi,bmi2")))
#include "vector.h"
#include "scan.h"
#include "products.h"
#include "block.h"
#include "block_back.h"
#include "patches.h"
#include "end.h"

#define NS(name) name##_avx512
#define LANES 16
#define TALL 8
#define RUN 32
#define TARGET \
    __attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi,bmi2")))
#include "vector.h"
#include "scan.h"
#include "products.h"
#include "block.h"
#include "block_back.h"
#include "patches.h"
#include "end.h"
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
EXPORT int ns_interface(void) { return 4; }

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

#ifdef HAS_X86_LEVELS
#define AT_LEVEL(function, ...) \
    (level == 2   ? function##_avx512(__VA_ARGS__) \
     : level == 1 ? function##_avx2(__VA_ARGS__) \
                  : function##_baseline(__VA_ARGS__))
#else
#define AT_LEVEL(function, ...) ((void)level, function##_baseline(__VA_ARGS__))
#endif

/* These return 0, or -1 without memory; every thread that works on a struct calls them on it. */
#define EXPORT_WORK(function, type) \
    EXPORT int ns_##function(type *job, int level) \
    { \
        unsigned before = start_flushing(); \
        int status = AT_LEVEL(function, job); \
        stop_flushing(before); \
        return status; \
    }

/* Beside these: how many floats `packed` must hold, and what fills it. */
#define EXPORT_PACKED_WORK(function, type) \
    EXPORT_WORK(function, type) \
    EXPORT int64_t ns_##function##_room(const type *job, int level) \
    { \
        return AT_LEVEL(function##_layout, job, NULL, 0); \
    } \
    EXPORT void ns_##function##_pack(const type *job, int level) \
    { \
        AT_LEVEL(function##_layout, job, NULL, 1); \
    }

EXPORT_WORK(scan_forward, ns_scan)
EXPORT_WORK(scan_backward, ns_scan)
EXPORT_PACKED_WORK(block_forward, ns_block)
EXPORT_PACKED_WORK(block_backward, ns_block)
EXPORT_PACKED_WORK(patches_forward, ns_patches)

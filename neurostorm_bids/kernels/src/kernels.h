/* What Python hands over: one struct per kernel, mirrored by ctypes in scan.py. */
#ifndef NEUROSTORM_KERNELS_H
#define NEUROSTORM_KERNELS_H

#include <stdint.h>

/* The selective scan of b sequences, L tokens, d channels, n state values.
 *
 * u, delta, z, y and their gradients are (b, d, L), B and C (b, n, L), with channels (d or n) one
 * after the other in memory; *_b and *_t are the distances, in values, between sequences and
 * between tokens. rates is (n, d); skip and bias are (d). z, skip and bias may be NULL.
 * Several threads may work on one struct: each takes the next `group` sequences until none is left.
 */
typedef struct {
    const float *u, *delta, *B, *C, *z;
    const float *rates, *skip, *bias;
    const float *grad_y; /* from here on also what only the backward reads or writes */
    float *y;            /* written by the forward, by the backward where it is not NULL and z is */
    float *grad_u, *grad_delta, *grad_B, *grad_C, *grad_z;
    /* One (n + 2, d) per group of sequences: gradients of rates, skip and bias. */
    float *grad_shared;
    int64_t u_b, u_t, delta_b, delta_t, B_b, B_t, C_b, C_t, z_b, z_t, y_b, y_t;
    int64_t grad_y_b, grad_y_t;
    /* Gradients lie (L, b, d) and (L, b, n), with gaps between tokens only; grad_B_t is C's too. */
    int64_t grad_t, grad_z_t, grad_B_t;
    int64_t n_sequences, n_tokens, n_channels, n_states;
    int64_t softplus, group;
    int64_t next; /* the first group that no thread has taken */
} ns_scan;

/* What gradients of a block's weights are found by. */
enum {
    RATES, SKIP, STEP_BIAS, /* in this order one after the other, as the scan writes them */
    NORM1, NORM1_BIAS, NORM2, NORM2_BIAS, IN_PROJ, CONV, CONV_BIAS, X_PROJ, STEP_PROJ, OUT_PROJ,
    LINEAR1, LINEAR1_BIAS, LINEAR2, LINEAR2_BIAS, PROMPTS, N_WEIGHTS
};

/* A block: x + mixer(norm1(x)), then x + perceptron(norm2(x)).
 *
 * from, to and between are (tokens, dim); index (n_windows, n_tokens) says which token stands where in
 * a window, -1 for padding. Weights are PyTorch's, (n_out, n_in); conv is (taps, inner), rates
 * (n_states, inner), prompts (n_prompts, dim) or NULL. shares (n_windows, 2), or NULL for ones, scales
 * what is added to the tokens. The forward writes what is between the two sums to `between`, where it
 * is not NULL; the backward reads it. `packed` is room for as many values as ns_<function>_room()
 * says, which ns_<function>_pack() fills; then several threads may call the function.
 *
 * The backward computes a window's insides anew. grad_to and grad_from are like to and from. Windows
 * come in parts of `group`; grads (n_parts, grads_size) starts at zero, and gets each part's gradients
 * of weights, in the weights' own layout, at `places` (N_WEIGHTS). Matrices whose place is -1 are
 * left out.
 */
typedef struct {
    const float *from;
    float *to;
    const int64_t *index;
    const float *norm1, *norm1_bias, *norm2, *norm2_bias;
    const float *in_proj, *conv, *conv_bias, *x_proj, *step_proj, *step_bias;
    const float *rates, *skip, *out_proj;
    const float *linear1, *linear1_bias, *linear2, *linear2_bias;
    const float *prompts;
    const float *shares;
    float *between;
    const float *grad_to;
    float *grad_from, *grads;
    const int64_t *places;
    float *packed;
    int64_t n_windows, n_tokens, n_prompts, dim, inner, wide, rank, n_states, taps;
    int64_t group, grads_size;
    int64_t next; /* the first window, or part of them, that no thread has taken */
    float epsilon;
} ns_block;

/* The embedding of patches: a linear map from a patch's voxels in one volume to a token.
 *
 * A clip's volumes are neighbours in memory. Patches that follow each other along Z make a row:
 * `starts` (n_rows) says where the first of each lies, patch_step how far the next is, `offsets`
 * (n_features) how far a voxel is from its patch's first. weight is (dim, n_features), bias (dim);
 * `to` is (n_rows, n_patches, n_volumes, dim). For `packed` see ns_block.
 */
typedef struct {
    const float *from;
    float *to;
    const float *weight, *bias;
    const int64_t *offsets, *starts;
    float *packed;
    int64_t n_rows, n_patches, n_volumes, patch_step, n_features, dim;
    int64_t next; /* the first row that no thread has taken */
} ns_patches;

#endif

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
    float *y;            /* written by the forward only */
    float *grad_u, *grad_delta, *grad_B, *grad_C, *grad_z;
    /* One (n + 2, d) per group of sequences: gradients of rates, skip and bias. */
    float *grad_shared;
    int64_t u_b, u_t, delta_b, delta_t, B_b, B_t, C_b, C_t, z_b, z_t, y_b, y_t;
    int64_t grad_y_b, grad_y_t;
    /* Gradients lie (L, b, d) and (L, b, n), without gaps. */
    int64_t n_sequences, n_tokens, n_channels, n_states;
    int64_t softplus, group;
    int64_t next; /* the first group that no thread has taken */
} ns_scan;

#endif

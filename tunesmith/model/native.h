/* What native.c computes, for decoder.c. */

#include <stdint.h>

/* A low-rank update of a linear: A^T (inputs, rank) and B^T (rank, outputs), or none. */
typedef struct {
    const float *a, *b;
} update;

void product(const float *x, long num_rows, long num_inputs, const uint32_t *panels,
             long num_outputs, const float *bias, float *y, float *turned, int num_threads);
void adapt(const float *x, long num_rows, long num_inputs, const int *order, const int *which,
           const update *updates, const int *ranks, const float *scales, long num_linears,
           const long *num_outputs, float *y, long y_stride, int num_threads);
void attend(const float *q, long q_stride, const float *k, long k_stride, const float *v,
            long v_stride, long num_positions, const long *rows, const long *places, float *keys,
            float *values, long length, long num_heads, long num_kv_heads, long head_size,
            long window, float factor, float *scores, long room, float *out, int num_threads);
void norm(const float *x, long num_rows, long size, const float *weight, float eps, float *y,
          int num_threads);
void norm_heads(float *x, long num_rows, long x_stride, long num_heads, long head_size,
                const float *weight, float eps, int num_threads);
void gated(const float *x, long num_rows, long size, float *y, int num_threads);
void turn_heads(float *x, long num_rows, long x_stride, long num_heads, long head_size,
                const float *cosines, const float *sines, long turn_stride, int num_threads);

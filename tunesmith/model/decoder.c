/* The layers of a decoder, one after the other: what `FrozenDecoder` does with the functions of
   native.c, in the same order and so with the same bits, in one call. For a few rows of a small
   model the calls took longer than what they compute. */

#include "native.c"

/* Each field of what follows is a word: Python fills them in as such. */

/* A linear, or several with one input as one. */
typedef struct {
    const uint32_t *panels;
    const float *bias;
    long num_inputs, num_outputs;
} linear;

/* In the order of their use. */
enum { QUERIES, OUT, GATES, DOWN, NUM_LINEARS };

typedef struct {
    const float *before, *after;
    linear linears[NUM_LINEARS];
    const float *of_queries, *of_keys; /* norms of each head, or none */
    long is_turned, window;
} layer;

/* The adapters of a pass, as `adapt` takes them. updates: of each layer's linears, one layer after
   the other; num_parts, part_outputs: of those of any layer. */
typedef struct {
    const int *order, *which, *ranks;
    const float *scales;
    const update *const *updates;
    const long *num_parts, *const *part_outputs;
} adapters;

static void apply(const layer *layers, long number, int which, const adapters *a, const float *x,
                  long num_rows, float *y, float *turned, int num_threads)
{
    const linear *l = &layers[number].linears[which];
    product(x, num_rows, l->num_inputs, l->panels, l->num_outputs, l->bias, y, turned, num_threads);
    if (a)
        adapt(x, num_rows, l->num_inputs, a->order, a->which,
              a->updates[number * NUM_LINEARS + which], a->ranks, a->scales, a->num_parts[which],
              a->part_outputs[which], y, l->num_outputs, num_threads);
}

static void add(float *x, const float *added, long num)
{
    for (long k = 0; k < num; k++)
        x[k] += added[k];
}

/* x: (rows, size), becomes what the last layer gives; a: none where all rows are of the base;
   keys, values: of each layer, and with what else has no name here as `attend` and `turn_heads`
   take it. Room: narrow (rows, size); wide (rows, outputs of any linear); inner, turned (rows,
   inputs of any). */
void layers(const layer *layers, long num_layers, const adapters *a, float *x, long num_rows,
            long size, float eps, long num_heads, long num_kv_heads, long head_size, float factor,
            const float *cosines, const float *sines, long turn_stride, const long *rows,
            const long *places, float *const *keys, float *const *values, long length, float *narrow,
            float *wide, float *inner, float *turned, float *scores, long room, int num_threads)
{
    long num_turned = num_heads + num_kv_heads;
    long stride = (num_turned + num_kv_heads) * head_size;
    const float *k = wide + num_heads * head_size, *v = wide + num_turned * head_size;
    for (long number = 0; number < num_layers; number++) {
        const layer *l = layers + number;
        norm(x, num_rows, size, l->before, eps, narrow, num_threads);
        apply(layers, number, QUERIES, a, narrow, num_rows, wide, turned, num_threads);
        if (l->of_queries) {
            norm_heads(wide, num_rows, stride, num_heads, head_size, l->of_queries, eps,
                       num_threads);
            norm_heads(wide + num_heads * head_size, num_rows, stride, num_kv_heads, head_size,
                       l->of_keys, eps, num_threads);
        }
        if (l->is_turned)
            turn_heads(wide, num_rows, stride, num_turned, head_size, cosines, sines, turn_stride,
                       num_threads);
        attend(wide, stride, k, stride, v, stride, num_rows, rows, places, keys[number],
               values[number], length, num_heads, num_kv_heads, head_size, l->window, factor,
               scores, room, inner, num_threads);
        apply(layers, number, OUT, a, inner, num_rows, narrow, turned, num_threads);
        add(x, narrow, num_rows * size);
        norm(x, num_rows, size, l->after, eps, narrow, num_threads);
        apply(layers, number, GATES, a, narrow, num_rows, wide, turned, num_threads);
        gated(wide, num_rows, l->linears[DOWN].num_inputs, inner, num_threads);
        apply(layers, number, DOWN, a, inner, num_rows, narrow, turned, num_threads);
        add(x, narrow, num_rows * size);
    }
}

/* Products in fp32 of a few rows: with weights of 16 bits, and with each row's own adapter.
   Threads take what is next of them, so that one whose processor others use holds up none.

   Each output is one sum, in the order of the inputs, so that a row gets the same bits whatever
   rows are beside it. */

#include "lanes.h"

/* TILE: rows computed at once; with their two sums each, the weights and one input they have to fit
   into the registers. */
#if defined(__AVX512F__)
#define TILE 12
#elif defined(__AVX2__)
#define TILE 6
#elif defined(__aarch64__)
#define TILE 12
#else
#define TILE 6
#endif
#define PANEL (2 * LANES)
/* How many inputs ahead the weights are asked for: memory takes as long as some 30 of them. */
#define AHEAD 32

int lanes(void) { return LANES; }

/* What takes the time of a few rows is to read the weights, and checkpoints hold them in bf16: a
   bf16 is the upper half of the same number in fp32, so they are read as they are and widened in
   registers, exactly. */

/* PANEL outputs (`num_outputs` of them wanted) of `rows` rows, a constant where this is inlined.
   x: (inputs, rows). panel: (inputs, LANES), in the lower halves the first LANES outputs. */
__attribute__((always_inline)) static inline void
tile(int rows, long num_inputs, const float *x, const uint32_t *panel, const float *bias, float *y,
     long y_stride, int num_outputs)
{
    floats sums[TILE][2];
    float ends[PANEL] = {0};
    if (bias)
        memcpy(ends, bias, num_outputs * sizeof(float));
    for (int row = 0; row < rows; row++)
        memcpy(sums[row], ends, sizeof ends);
    for (long input = 0; input < num_inputs; input++) {
        words both;
        memcpy(&both, panel + input * LANES, sizeof both);
        __builtin_prefetch(panel + (input + AHEAD) * LANES);
        floats low = (floats)(both << 16), high = (floats)(both & 0xffff0000u);
#pragma GCC unroll 12
        for (int row = 0; row < rows; row++) {
            sums[row][0] += x[input * rows + row] * low;
            sums[row][1] += x[input * rows + row] * high;
        }
    }
    for (int row = 0; row < rows; row++)
        memcpy(y + row * y_stride, sums[row], num_outputs * sizeof(float));
}

static void any_tile(int rows, long num_inputs, const float *x, const uint32_t *panel,
                     const float *bias, float *y, long y_stride, int num_outputs)
{
#define CASE(number)                                                                    \
    case number:                                                                        \
        tile(number, num_inputs, x, panel, bias, y, y_stride, num_outputs);             \
        break;
    switch (rows) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if TILE > 6
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
    }
}

/* The numbers of some rows, by inputs: in blocks, so that neither side is read across pages. */
static void turn(long rows, long num_inputs, const float *x, float *turned)
{
    for (long first = 0; first < num_inputs; first += LANES) {
        long stop = first + LANES < num_inputs ? first + LANES : num_inputs;
        for (long row = 0; row < rows; row++)
            for (long input = first; input < stop; input++)
                turned[input * rows + row] = x[row * num_inputs + input];
    }
}

/* Tiles are of nearly the same height. */
static inline long first_row(long tile, long num_tiles, long num_rows)
{
    return num_rows * tile / num_tiles;
}

/* y = x W^T + bias. x: (rows, inputs); y: (rows, outputs); panels: of W (outputs / PANEL, inputs,
   LANES); bias: none or (outputs); turned: room for the numbers of x. */
void product(const float *x, long num_rows, long num_inputs, const uint32_t *panels,
             long num_outputs, const float *bias, float *y, float *turned, int num_threads)
{
    long num_panels = (num_outputs + PANEL - 1) / PANEL;
    long num_tiles = (num_rows + TILE - 1) / TILE;
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1 && num_tiles > 1)
    for (long t = 0; t < num_tiles; t++) {
        long first = first_row(t, num_tiles, num_rows);
        long rows = first_row(t + 1, num_tiles, num_rows) - first;
        turn(rows, num_inputs, x + first * num_inputs, turned + first * num_inputs);
    }
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1) schedule(dynamic, 4)
    for (long p = 0; p < num_panels; p++) {
        long left = num_outputs - p * PANEL;
        for (long t = 0; t < num_tiles; t++) {
            long first = first_row(t, num_tiles, num_rows);
            long rows = first_row(t + 1, num_tiles, num_rows) - first;
            any_tile(rows, num_inputs, turned + first * num_inputs, panels + p * num_inputs * LANES,
                     bias ? bias + p * PANEL : 0, y + first * num_outputs + p * PANEL, num_outputs,
                     left < PANEL ? left : PANEL);
        }
    }
}

/* A low-rank update of a linear: A^T (inputs, rank) and B^T (rank, outputs), or none. */
typedef struct {
    const float *a, *b;
} update;

/* Rows with the same adapter are computed by so many at once. */
#define TOGETHER 4
/* Registers of columns that are computed at once. */
#define WIDE 4

/* y += x M for a constant number of rows and of registers of columns, of which `num_columns` are
   there. M: (inputs, stride); memory is asked for what lies so many numbers `ahead` in it. */
__attribute__((always_inline)) static inline void
columns(int rows, int width, const float *const *x, long num_inputs, const float *m, long stride,
        long ahead, float *const *y, long offset, long num_columns)
{
    floats sums[TOGETHER][WIDE] = {{{0}}};
    long size = num_columns * sizeof(float);
    for (int row = 0; row < rows; row++)
        memcpy(sums[row], y[row] + offset, size);
    for (long input = 0; input < num_inputs; input++) {
        floats numbers[WIDE] = {{0}};
        memcpy(numbers, m + input * stride + offset, size);
        for (int k = 0; k < width; k++)
            __builtin_prefetch(m + input * stride + offset + ahead + k * LANES);
        for (int row = 0; row < rows; row++)
            for (int k = 0; k < width; k++)
                sums[row][k] += x[row][input] * numbers[k];
    }
    for (int row = 0; row < rows; row++)
        memcpy(y[row] + offset, sums[row], size);
}

/* y += x M. M: (inputs, columns). */
__attribute__((always_inline)) static inline void
add_product(int rows, const float *const *x, long num_inputs, const float *m, float *const *y,
            long num)
{
    long at = 0;
    for (; at + WIDE * LANES <= num; at += WIDE * LANES)
        columns(rows, WIDE, x, num_inputs, m, num, WIDE * LANES, y, at, WIDE * LANES);
    for (; at + LANES <= num; at += LANES)
        columns(rows, 1, x, num_inputs, m, num, AHEAD * num, y, at, LANES);
    for (; at + LANES / 2 <= num; at += LANES / 2)
        columns(rows, 1, x, num_inputs, m, num, AHEAD * num, y, at, LANES / 2);
    if (at < num)
        columns(rows, 1, x, num_inputs, m, num, AHEAD * num, y, at, num - at);
}

__attribute__((always_inline)) static inline void
adapt_rows(int rows, const float *const *x, long num_inputs, const update *updates, long rank,
           float scale, long num_linears, const long *num_outputs, float **y)
{
    for (long linear = 0; linear < num_linears; linear++) {
        if (updates[linear].a) {
            float narrow[TOGETHER][rank], *narrows[TOGETHER];
            memset(narrow, 0, sizeof narrow);
            for (int row = 0; row < rows; row++)
                narrows[row] = narrow[row];
            add_product(rows, x, num_inputs, updates[linear].a, narrows, rank);
            for (int row = 0; row < rows; row++)
                for (long r = 0; r < rank; r++)
                    narrow[row][r] *= scale;
            add_product(rows, (const float *const *)narrows, rank, updates[linear].b, y,
                        num_outputs[linear]);
        }
        for (int row = 0; row < rows; row++)
            y[row] += num_outputs[linear];
    }
}

/* y += scale * (x A^T) B^T for linears with one input, whose outputs lie one behind the other.
   x: (rows, inputs); order: the rows, those with one adapter together; which: of each row, the
   number of its adapter, or -1; updates: (adapters, linears); ranks, scales: (adapters);
   y: (rows, y_stride). */
void adapt(const float *x, long num_rows, long num_inputs, const int *order, const int *which,
           const update *updates, const int *ranks, const float *scales, long num_linears,
           const long *num_outputs, float *y, long y_stride, int num_threads)
{
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1) schedule(dynamic)
    for (long first = 0; first < num_rows; first += TOGETHER) {
        int rows = first + TOGETHER < num_rows ? TOGETHER : num_rows - first, equal = 1;
        const float *from[TOGETHER];
        float *to[TOGETHER];
        for (int k = 0; k < rows; k++) {
            from[k] = x + order[first + k] * num_inputs;
            to[k] = y + order[first + k] * y_stride;
            equal &= which[order[first + k]] == which[order[first]];
        }
        for (int k = 0; k < rows; k++) {
            int one = which[order[first + k]];
            const update *own = updates + one * num_linears;
            if (one < 0)
                continue;
            if (equal && rows == TOGETHER) {
                adapt_rows(TOGETHER, from, num_inputs, own, ranks[one], scales[one], num_linears,
                           num_outputs, to);
                break;
            }
            adapt_rows(1, from + k, num_inputs, own, ranks[one], scales[one], num_linears,
                       num_outputs, to + k);
        }
    }
}

/* Attention in fp32 of new positions to stored keys and values, row by row of the cache and each
   position by itself, so that it reads the same bits whatever is computed beside it. */

#ifdef __clang__
#define PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int quad_of_int __attribute__((vector_size(16)));
#define PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, (quad_of_int){i, j, k, l})
#endif

/* Query heads of a key head that are computed at once, and keys. */
#define HEADS 4
#define KEYS 4
/* How many keys ahead memory is asked. */
#define KEYS_AHEAD 16

/* The total of each of four, folded before. */
static inline quad sums_of(const quad *t)
{
    quad a = PICK(t[0], t[1], 0, 1, 4, 5) + PICK(t[0], t[1], 2, 3, 6, 7);
    quad b = PICK(t[2], t[3], 0, 1, 4, 5) + PICK(t[2], t[3], 2, 3, 6, 7);
    return PICK(a, b, 0, 2, 4, 6) + PICK(a, b, 1, 3, 5, 7);
}

/* What `heads` query heads of one position read from `num` keys and values of their key head;
   heads and `size`, the registers of a head, are constants where this is inlined. q, out: (heads,
   head size); k, v: (num, head size); scores: room for `room` numbers of each head. */
__attribute__((always_inline)) static inline void
read_heads(int heads, int size, const float *q, const float *k, const float *v, long num,
           float factor, float *scores, long room, float *out)
{
    long width = size * LANES;
    floats queries[HEADS][size];
    memcpy(queries, q, heads * width * sizeof(float));
    for (int head = 0; head < heads; head++)
        for (int part = 0; part < size; part++)
            queries[head][part] *= factor;
    for (long first = 0; first < num; first += KEYS) {
        quad parts[HEADS][KEYS];
        for (int key = 0; key < KEYS; key++) {
            /* Behind the last one the last one again. */
            long at = first + key < num ? first + key : num - 1;
            for (int part = 0; part < size; part++) {
                __builtin_prefetch(k + (at + KEYS_AHEAD) * width + part * LANES);
                /* Needed as soon as the keys are read: its way takes no more time then. */
                __builtin_prefetch(v + at * width + part * LANES, 0, 2);
            }
            for (int head = 0; head < heads; head++) {
                floats sum = {0};
                for (int part = 0; part < size; part++) {
                    floats numbers;
                    memcpy(&numbers, k + at * width + part * LANES, sizeof numbers);
                    sum += queries[head][part] * numbers;
                }
                parts[head][key] = folded(sum);
            }
        }
        for (int head = 0; head < heads; head++) {
            quad found = sums_of(parts[head]);
            memcpy(scores + head * room + first, &found, sizeof found);
        }
    }
    float totals[HEADS], highest;
    for (int head = 0; head < heads; head++)
        totals[head] = softened(scores + head * room, num, &highest);
    floats sums[HEADS][size];
    memset(sums, 0, sizeof sums);
    for (long at = 0; at < num; at++) {
        for (int part = 0; part < size; part++)
            __builtin_prefetch(v + (at + KEYS_AHEAD) * width + part * LANES);
        for (int part = 0; part < size; part++) {
            floats numbers;
            memcpy(&numbers, v + at * width + part * LANES, sizeof numbers);
            for (int head = 0; head < heads; head++)
                sums[head][part] += scores[head * room + at] * numbers;
        }
    }
    for (int head = 0; head < heads; head++)
        for (int part = 0; part < size; part++)
            sums[head][part] /= totals[head];
    memcpy(out, sums, heads * width * sizeof(float));
}

static void read_some(int heads, int size, const float *q, const float *k, const float *v, long num,
                      float factor, float *scores, long room, float *out)
{
#define READ(h, s)                                                                      \
    if (heads == h && size == s) {                                                      \
        read_heads(h, s, q, k, v, num, factor, scores, room, out);                      \
        return;                                                                         \
    }
    READ(1, 2) READ(2, 2) READ(3, 2) READ(4, 2)
    READ(1, 4) READ(2, 4) READ(3, 4) READ(4, 4)
    READ(1, 8) READ(2, 8) READ(3, 8) READ(4, 8)
    read_heads(heads, size, q, k, v, num, factor, scores, room, out);
}

/* Stores the keys and values of new positions, and reads for each of them what lies at its own and
   earlier ones, `window` of them at most. q: (positions, q_stride), of it `num_heads` heads of
   `head_size`; k, v: (positions, k_stride and v_stride), of `num_kv_heads`; rows, places: of each
   position; keys, values: (rows x num_kv_heads, length, head_size); scores: (threads, HEADS, room),
   room a multiple of LANES; out: (positions, num_heads, head_size). */
void attend(const float *q, long q_stride, const float *k, long k_stride, const float *v,
            long v_stride, long num_positions, const long *rows, const long *places, float *keys,
            float *values, long length, long num_heads, long num_kv_heads, long head_size,
            long window, float factor, float *scores, long room, float *out, int num_threads)
{
    for (long p = 0; p < num_positions; p++)
        for (long head = 0; head < num_kv_heads; head++) {
            long at = ((rows[p] * num_kv_heads + head) * length + places[p]) * head_size;
            memcpy(keys + at, k + p * k_stride + head * head_size, head_size * sizeof(float));
            memcpy(values + at, v + p * v_stride + head * head_size, head_size * sizeof(float));
        }
    long group = num_heads / num_kv_heads;
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1) schedule(dynamic, 8)
    for (long each = 0; each < num_positions * num_kv_heads; each++) {
        long p = each / num_kv_heads, head = each % num_kv_heads;
        long first = places[p] + 1 > window ? places[p] + 1 - window : 0;
        long at = ((rows[p] * num_kv_heads + head) * length + first) * head_size;
        float *own = scores + omp_get_thread_num() * HEADS * room;
        for (long g = 0; g < group; g += HEADS) {
            long of_heads = (head * group + g) * head_size;
            read_some(group - g < HEADS ? group - g : HEADS, head_size / LANES,
                      q + p * q_stride + of_heads, keys + at, values + at, places[p] + 1 - first,
                      factor, own, room, out + p * num_heads * head_size + of_heads);
        }
    }
}

/* What works on each row by itself: one call for what takes torch several. */

/* y = x / sqrt(mean(x^2) + eps) * weight. x, y: (rows, size). */
void norm(const float *x, long num_rows, long size, const float *weight, float eps, float *y,
          int num_threads)
{
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1)
    for (long row = 0; row < num_rows; row++) {
        const float *from = x + row * size;
        floats sum = {0};
        long at = 0;
        for (; at + LANES <= size; at += LANES) {
            floats v;
            memcpy(&v, from + at, sizeof v);
            sum += v * v;
        }
        float square = total(sum);
        for (; at < size; at++)
            square += from[at] * from[at];
        float factor = 1 / sqrtf(square / size + eps);
        for (at = 0; at < size; at++)
            y[row * size + at] = from[at] * factor * weight[at];
    }
}

/* Norms heads in place. x: (rows, x_stride), of it `num_heads` of `head_size`. */
void norm_heads(float *x, long num_rows, long x_stride, long num_heads, long head_size,
                const float *weight, float eps, int num_threads)
{
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1)
    for (long row = 0; row < num_rows; row++) {
        float *heads = x + row * x_stride;
        norm(heads, num_heads, head_size, weight, eps, heads, 1);
    }
}

static inline floats gated_floats(floats gate, floats up)
{
    floats zero = {0}, one = zero + 1.0f;
    words is_positive = (words)(gate > zero);
    floats e = exponential(chosen(is_positive, -gate, gate));
    return gate * chosen(is_positive, one, e) / (one + e) * up;
}

/* y = silu(gate) * up. x: (rows, gates and ups); y: (rows, size). */
void gated(const float *x, long num_rows, long size, float *y, int num_threads)
{
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1)
    for (long row = 0; row < num_rows; row++) {
        const float *from = x + 2 * row * size;
        floats gate = {0}, up = {0}, z;
        long at = 0;
        for (; at + LANES <= size; at += LANES) {
            memcpy(&gate, from + at, sizeof gate);
            memcpy(&up, from + size + at, sizeof up);
            z = gated_floats(gate, up);
            memcpy(y + row * size + at, &z, sizeof z);
        }
        memcpy(&gate, from + at, (size - at) * sizeof(float));
        memcpy(&up, from + size + at, (size - at) * sizeof(float));
        z = gated_floats(gate, up);
        memcpy(y + row * size + at, &z, (size - at) * sizeof(float));
    }
}

/* Turns heads in place (RoFormer, Su et al. 2021, its halves as pairs). x: (rows, x_stride), of it
   `num_heads` of `head_size`; cosines, sines: (rows, turn_stride), as `Rotation` gives them. */
void turn_heads(float *x, long num_rows, long x_stride, long num_heads, long head_size,
                const float *cosines, const float *sines, long turn_stride, int num_threads)
{
    long half = head_size / 2;
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1)
    for (long row = 0; row < num_rows; row++)
        for (long head = 0; head < num_heads; head++) {
            const float *c = cosines + row * turn_stride, *s = sines + row * turn_stride;
            float *a = x + row * x_stride + head * head_size, *b = a + half;
            for (long k = 0; k < half; k++) {
                float low = a[k], high = b[k];
                a[k] = low * c[k] + high * s[k];
                b[k] = high * c[half + k] + low * s[half + k];
            }
        }
}

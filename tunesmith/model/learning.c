/* What training does beside the products of its weights, in fp32: attention of packed sequences,
   the gate, norm and rotation, each with its backward pass.

   Every number has one order of summation and one thread that writes it, so that a step gives the
   same bits whenever it is repeated. */

#include "fixed.c"

/* Rows of a product that are computed at once, and registers of its columns: with one of each
   factor they have to fit into the registers. */
#define ROWS 6
#if LANES == 16
#define WIDE 4
#else
#define WIDE 2
#endif

/* Query positions of a head that are computed at once. */
#define BLOCK 24

int lanes(void) { return LANES; }

/* c = a b, or with `adds` c + a b, for constant numbers of rows and of registers of columns. The
   numbers of a lie `a_row` and `a_inner` apart; rows of b and c so many. */
__attribute__((always_inline)) static inline void
tile(int rows, int width, long inner, const float *a, long a_row, long a_inner, const float *b,
     long b_row, float *c, long c_row, int adds)
{
    floats sums[ROWS][WIDE] = {{{0}}};
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < width && adds; j++)
            memcpy(&sums[i][j], c + i * c_row + j * LANES, sizeof(floats));
    for (long k = 0; k < inner; k++) {
        floats numbers[WIDE];
#pragma GCC unroll 4
        for (int j = 0; j < width; j++)
            memcpy(&numbers[j], b + k * b_row + j * LANES, sizeof(floats));
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
            for (int j = 0; j < width; j++)
                sums[i][j] += a[i * a_row + k * a_inner] * numbers[j];
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < width; j++)
            memcpy(c + i * c_row + j * LANES, &sums[i][j], sizeof(floats));
}

__attribute__((always_inline)) static inline void
tiles(int width, long num_rows, long inner, const float *a, long a_row, long a_inner,
      const float *b, long b_row, float *c, long c_row, int adds)
{
    long i = 0;
    for (; i + ROWS <= num_rows; i += ROWS)
        tile(ROWS, width, inner, a + i * a_row, a_row, a_inner, b, b_row, c + i * c_row, c_row,
             adds);
    for (; i < num_rows; i++)
        tile(1, width, inner, a + i * a_row, a_row, a_inner, b, b_row, c + i * c_row, c_row, adds);
}

/* The same of any numbers; the columns are of whole registers. */
static void multiply(long num_rows, long num_columns, long inner, const float *a, long a_row,
                     long a_inner, const float *b, long b_row, float *c, long c_row, int adds)
{
    for (long j = 0; j < num_columns; j += WIDE * LANES) {
#define CASE(number)                                                                    \
    case number:                                                                        \
        tiles(number, num_rows, inner, a, a_row, a_inner, b + j, b_row, c + j, c_row, adds); \
        break;
        long left = (num_columns - j) / LANES;
        switch (left < WIDE ? left : WIDE) {
            CASE(1) CASE(2)
#if WIDE > 2
            CASE(3) CASE(4)
#endif
        }
#undef CASE
    }
}

/* Sequences in a row of positions. `starts`: of each sequence in `places`, and the end of the last;
   places: where in the row a position of a sequence lies; skips: how many positions at the
   beginning of each are computed with another sequence. */
typedef struct {
    long num_sequences;
    const long *starts, *places, *skips;
} packing;

/* Heads of `size` numbers, and the factor of their scores. */
typedef struct {
    long num, num_kv, size;
    float factor;
} heading;

static inline long padded(long num) { return (num + LANES - 1) / LANES * LANES; }

/* The heads at places of a row, one after the other. x: (T, stride), from the head on. */
static void gather(const float *x, long stride, const long *places, long num, long size,
                   float factor, float *found)
{
    for (long i = 0; i < num; i++)
        for (long d = 0; d < size; d++)
            found[i * size + d] = x[places[i] * stride + d] * factor;
}

/* (num, size) as (size, padded(num)), filled up with zeros. */
static void transpose(const float *x, long num, long size, float *turned)
{
    long width = padded(num);
    for (long first = 0; first < width; first += LANES)
        for (long d = 0; d < size; d++)
            for (long i = first; i < first + LANES; i++)
                turned[d * width + i] = i < num ? x[i * size + d] : 0;
}

/* The sum of x[i] y[i]. */
static float product_of(const float *x, const float *y, long num)
{
    floats a = {0}, b = {0}, sum = {0};
    long i = 0;
    for (; i + LANES <= num; i += LANES) {
        memcpy(&a, x + i, sizeof a);
        memcpy(&b, y + i, sizeof b);
        sum += a * b;
    }
    float ends = 0;
    for (; i < num; i++)
        ends += x[i] * y[i];
    return total(sum) + ends;
}

/* Numbers that a thread works with, for sequences of `longest` positions. */
long attention_room(long longest, long head_size)
{
    return 4 * padded(longest) * head_size + 2 * BLOCK * padded(longest) + 3 * BLOCK * head_size;
}

/* What each position reads of its sequence up to itself. q, k, v: (T, stride); out: (T, heads,
   head_size); logs: (T, heads), of the sum of each position's e^score. */
void attend(const packing *p, const heading *heads, const float *q, long q_stride, const float *k,
            long k_stride, const float *v, long v_stride, float *out, float *logs, float *rooms,
            long room, int num_threads)
{
    long D = heads->size, H = heads->num, K = heads->num_kv;
#pragma omp parallel for num_threads(num_threads) schedule(static, 1)
    for (long item = 0; item < p->num_sequences * K; item++) {
        long head = item % K, s = item / K;
        float *keys = rooms + omp_get_thread_num() * room;
        const long *places = p->places + p->starts[s];
        long num = p->starts[s + 1] - p->starts[s], width = padded(num);
        float *turned = keys + width * D, *values = turned + width * D;
        float *scores = values + width * D, *queries = scores + BLOCK * width;
        float *read = queries + BLOCK * D;
        gather(k + head * D, k_stride, places, num, D, 1, keys);
        gather(v + head * D, v_stride, places, num, D, 1, values);
        transpose(keys, num, D, turned);
        for (long h = head * (H / K); h < (head + 1) * (H / K); h++)
            for (long first = p->skips[s]; first < num; first += BLOCK) {
                long rows = num - first < BLOCK ? num - first : BLOCK;
                gather(q + h * D, q_stride, places + first, rows, D, heads->factor, queries);
                multiply(rows, padded(first + rows), D, queries, D, 1, turned, width, scores,
                         width, 0);
                float sums[BLOCK];
                for (long i = 0; i < rows; i++) {
                    float top, *own = scores + i * width;
                    sums[i] = softened(own, first + i + 1, &top);
                    logs[places[first + i] * H + h] = top + logf(sums[i]);
                    for (long j = padded(first + i + 1); j < first + rows; j++)
                        own[j] = 0;
                }
                multiply(rows, D, first + rows, scores, width, 1, values, D, read, D, 0);
                for (long i = 0; i < rows; i++)
                    for (long d = 0; d < D; d++)
                        out[(places[first + i] * H + h) * D + d] = read[i * D + d] / sums[i];
            }
    }
}

/* The gradients (T, heads, head_size) of q, k and v from that of out; parts: of k and v (2, key
   heads, positions of all sequences, head_size), by sequence. */
void attend_backward(const packing *p, const heading *heads, const float *q, long q_stride,
                     const float *k, long k_stride, const float *v, long v_stride,
                     const float *out, const float *logs, const float *of_out, float *of_q,
                     float *of_k, float *of_v, long num_rows, float *parts, float *rooms,
                     long room, int num_threads)
{
    long D = heads->size, H = heads->num, K = heads->num_kv;
    long num_places = p->starts[p->num_sequences];
#pragma omp parallel for num_threads(num_threads) schedule(static, 1)
    for (long item = 0; item < p->num_sequences * K; item++) {
        long head = item % K, s = item / K;
        float *keys = rooms + omp_get_thread_num() * room;
        const long *places = p->places + p->starts[s];
        long num = p->starts[s + 1] - p->starts[s], width = padded(num);
        float *turned = keys + width * D, *values = turned + width * D;
        float *turned_values = values + width * D, *weights = turned_values + width * D;
        float *of_scores = weights + BLOCK * width, *queries = of_scores + BLOCK * width;
        float *toward = queries + BLOCK * D, *of_queries = toward + BLOCK * D;
        float *of_keys = parts + (head * num_places + p->starts[s]) * D;
        float *of_values = of_keys + K * num_places * D;
        gather(k + head * D, k_stride, places, num, D, 1, keys);
        gather(v + head * D, v_stride, places, num, D, 1, values);
        transpose(keys, num, D, turned);
        transpose(values, num, D, turned_values);
        memset(of_keys, 0, num * D * sizeof(float));
        memset(of_values, 0, num * D * sizeof(float));
        for (long h = head * (H / K); h < (head + 1) * (H / K); h++)
            for (long first = p->skips[s]; first < num; first += BLOCK) {
                long rows = num - first < BLOCK ? num - first : BLOCK, seen = first + rows;
                gather(q + h * D, q_stride, places + first, rows, D, heads->factor, queries);
                gather(of_out + h * D, H * D, places + first, rows, D, 1, toward);
                multiply(rows, padded(seen), D, queries, D, 1, turned, width, weights, width,
                         0);
                multiply(rows, padded(seen), D, toward, D, 1, turned_values, width, of_scores,
                         width, 0);
                for (long i = 0; i < rows; i++) {
                    long at = places[first + i] * H + h, last = first + i;
                    float *weight = weights + i * width, *of_score = of_scores + i * width;
                    float along = product_of(toward + i * D, out + at * D, D);
                    for (long j = 0; j <= last; j += LANES) {
                        floats score, of_weight;
                        memcpy(&score, weight + j, sizeof score);
                        memcpy(&of_weight, of_score + j, sizeof of_weight);
                        score = exponential(score - logs[at]);
                        of_weight = score * (of_weight - along);
                        memcpy(weight + j, &score, sizeof score);
                        memcpy(of_score + j, &of_weight, sizeof of_weight);
                    }
                    for (long j = last + 1; j < seen; j++)
                        weight[j] = of_score[j] = 0;
                }
                multiply(rows, D, seen, of_scores, width, 1, keys, D, of_queries, D, 0);
                multiply(seen, D, rows, of_scores, 1, width, queries, D, of_keys, D, 1);
                multiply(seen, D, rows, weights, 1, width, toward, D, of_values, D, 1);
                for (long i = 0; i < rows; i++)
                    for (long d = 0; d < D; d++)
                        of_q[(places[first + i] * H + h) * D + d] =
                            of_queries[i * D + d] * heads->factor;
            }
    }
    /* What sequences have in common, in their order. */
#pragma omp parallel for num_threads(num_threads) schedule(static, 1)
    for (long item = 0; item < 2 * K; item++) {
        float *sums = (item < K ? of_k : of_v) + item % K * D;
        for (long t = 0; t < num_rows; t++)
            memset(sums + t * K * D, 0, D * sizeof(float));
        for (long i = 0; i < num_places; i++)
            for (long d = 0; d < D; d++)
                sums[p->places[i] * K * D + d] += parts[(item * num_places + i) * D + d];
    }
}

/* What works on each row by itself: one call for what takes torch several. Rows lie `stride` apart
   where one is given, else one behind the other. */

/* 1 / (1 + e^-x) */
static inline floats sigmoid(floats x)
{
    floats zero = {0}, one = zero + 1.0f;
    words is_positive = (words)(x > zero);
    floats e = exponential(chosen(is_positive, -x, x));
    return chosen(is_positive, one, e) / (one + e);
}

/* Of a register of them, which may be the last and not full. */
#define LOAD(name, from) memcpy(&name, from, num * sizeof(float))
#define STORE(name, to) memcpy(to, &name, num * sizeof(float))

__attribute__((always_inline)) static inline void
gate_some(long num, const float *gate, const float *up, float *y)
{
    floats g = {0}, u = {0};
    LOAD(g, gate);
    LOAD(u, up);
    g = g * sigmoid(g) * u;
    STORE(g, y);
}

/* y = silu(gate) * up */
void gate(const float *gate, long gate_stride, const float *up, long up_stride, long num_rows,
          long size, float *y, int num_threads)
{
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long row = 0; row < num_rows; row++) {
        const float *g = gate + row * gate_stride, *u = up + row * up_stride;
        long at = 0;
        for (; at + LANES <= size; at += LANES)
            gate_some(LANES, g + at, u + at, y + row * size + at);
        if (at < size)
            gate_some(size - at, g + at, u + at, y + row * size + at);
    }
}

__attribute__((always_inline)) static inline void
gate_some_backward(long num, const float *gate, const float *up, float *toward, float *y,
                   float *of_gate)
{
    floats g = {0}, u = {0}, t = {0}, zero = {0};
    LOAD(g, gate);
    LOAD(u, up);
    LOAD(t, toward);
    floats s = sigmoid(g), active = g * s, x = active * u, of_up = active * t;
    floats of_g = t * u * s * (zero + 1.0f + g * (zero + 1.0f - s));
    STORE(x, y);
    STORE(of_up, toward);
    STORE(of_g, of_gate);
}

/* The same y once more, the gradient of gate, and in the place of that of y the one of up. */
void gate_backward(const float *gate, long gate_stride, const float *up, long up_stride,
                   long num_rows, long size, float *toward, float *y, float *of_gate,
                   int num_threads)
{
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long row = 0; row < num_rows; row++) {
        const float *g = gate + row * gate_stride, *u = up + row * up_stride;
        long at = 0, first = row * size;
        for (; at + LANES <= size; at += LANES)
            gate_some_backward(LANES, g + at, u + at, toward + first + at, y + first + at,
                               of_gate + first + at);
        if (at < size)
            gate_some_backward(size - at, g + at, u + at, toward + first + at, y + first + at,
                               of_gate + first + at);
    }
}

/* The sum of x[i] y[i] z[i]. */
static float product_of_three(const float *x, const float *y, const float *z, long num)
{
    floats a = {0}, b = {0}, c = {0}, sum = {0};
    long i = 0;
    for (; i + LANES <= num; i += LANES) {
        memcpy(&a, x + i, sizeof a);
        memcpy(&b, y + i, sizeof b);
        memcpy(&c, z + i, sizeof c);
        sum += a * b * c;
    }
    float ends = 0;
    for (; i < num; i++)
        ends += x[i] * y[i] * z[i];
    return total(sum) + ends;
}

/* y = x * factor * weight, each row's factor being 1 / sqrt(mean(x^2) + eps), which is told. */
void norm(const float *x, const float *weight, float eps, long num_rows,
          long size, float *y, float *factors, int num_threads)
{
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long row = 0; row < num_rows; row++) {
        const float *from = x + row * size;
        float factor = 1 / sqrtf(product_of(from, from, size) / size + eps);
        factors[row] = factor;
        for (long at = 0; at < size; at++)
            y[row * size + at] = from[at] * factor * weight[at];
    }
}

/* The same y once more. */
void scale(const float *x, const float *factors, const float *weight, long num_rows, long size,
           float *y, int num_threads)
{
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long row = 0; row < num_rows; row++)
        for (long at = 0; at < size; at++)
            y[row * size + at] = x[row * size + at] * factors[row] * weight[at];
}

/* The gradient of x from that of y. */
void norm_backward(const float *x, const float *weight, const float *factors, const float *toward,
                   long num_rows, long size, float *of_x, int num_threads)
{
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long row = 0; row < num_rows; row++) {
        const float *from = x + row * size, *of_y = toward + row * size;
        float f = factors[row], along = product_of_three(from, of_y, weight, size) * f * f * f / size;
        for (long at = 0; at < size; at++)
            of_x[row * size + at] = of_y[at] * weight[at] * f - from[at] * along;
    }
}

/* Turns heads (RoFormer, Su et al. 2021, its halves as pairs), by `sign` -1 back again. x: (rows,
   stride); cosines, sines: (rows, size), the sines of the first half negative; y: (rows, num_heads,
   size). */
void turn(const float *x, long stride, const float *cosines, const float *sines, float sign,
          long num_rows, long num_heads, long size, float *y, int num_threads)
{
    long half = size / 2;
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long row = 0; row < num_rows; row++)
        for (long head = 0; head < num_heads; head++) {
            const float *c = cosines + row * size, *s = sines + row * size;
            const float *low = x + row * stride + head * size, *high = low + half;
            float *to = y + (row * num_heads + head) * size;
            for (long k = 0; k < half; k++) {
                to[k] = low[k] * c[k] + sign * high[k] * s[k];
                to[half + k] = high[k] * c[half + k] + sign * low[k] * s[half + k];
            }
        }
}

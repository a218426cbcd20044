/* Products of frozen weights in fixed point, for processors that multiply integers of 16 bits twice
   as fast as floats (AVX-512 VNNI).

   Numbers are integers of 16 bits with a factor: a weight's for each output, that of what is
   multiplied with it for each row and each block of what is summed over. Within a block sums are
   exact, in 32 bits: the factors are such that the lengths of both sides keep every sum below 2^31
   (Cauchy and Schwarz). Blocks are added in fp32, in their order, so that a row gets the same bits
   whatever rows are beside it. */

#include "lanes.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

#include <immintrin.h>

/* Numbers of a sum of integers. */
#define BLOCK_SIZE 256
/* The length that a block of a weight's row has at most, and of a row that goes forward. */
#define LONGEST 46000.0f
/* Of any integer: rounded it is one still. */
#define LARGEST 32766.0f
/* Smaller ones are taken for zero. */
#define SMALLEST 1e-30f

/* Rows and columns computed at once: 24 registers of sums, and blocks for which rows are read from
   the second cache. */
#define HEIGHT 12
#define WIDTH 32
#define GROUP 4

int multiplies_fixed(void) { return 1; }

static inline long least(long one, long other) { return one < other ? one : other; }

static inline __mmask16 first_of_16(long num)
{
    return num >= 16 ? 0xffff : num > 0 ? (1u << num) - 1 : 0;
}

/* What divides the numbers so that they are integers in range and no longer than `bound`. */
static float divisor(const float *x, long num, float bound)
{
    __m512 top = _mm512_setzero_ps(), sum = _mm512_setzero_ps();
    __mmask16 is_odd = 0;
    for (long i = 0; i < num; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(first_of_16(num - i), x + i);
        is_odd |= _mm512_fpclass_ps_mask(v, 0x99);  /* infinite, or no number */
        top = _mm512_max_ps(top, _mm512_abs_ps(v));
    }
    float most = _mm512_reduce_max_ps(top);
    if (is_odd)
        return NAN;
    if (most < SMALLEST)
        return 0;
    __m512 inverse = _mm512_set1_ps(1 / most);
    for (long i = 0; i < num; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(first_of_16(num - i), x + i) * inverse;
        sum = _mm512_fmadd_ps(v, v, sum);
    }
    float by_length = sqrtf(_mm512_reduce_add_ps(sum)) / bound;
    return most * (by_length > 1 / LARGEST ? by_length : 1 / LARGEST);
}

/* num numbers over a divisor, and zeros up to `width` of them. */
static void divide(const float *x, long num, long width, float by, int16_t *numbers)
{
    __m512 inverse = _mm512_set1_ps(by > 0 ? 1 / by : 0);
    for (long i = 0; i < width; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(first_of_16(num - i), x + i);
        __m512i whole = _mm512_cvtps_epi32(v * inverse);
        _mm512_mask_cvtepi32_storeu_epi16(numbers + i, first_of_16(width - i), whole);
    }
}

/* Rows (T, stride) of `size` numbers: (T, size, made even) integers and (T, blocks) factors.
   Backwards each number is multiplied by its output's of `factors` (size) before, and a block has
   its own of `bounds`. */
void fix_rows(const float *x, long stride, long num_rows, long size, const float *factors,
              const float *bounds, int16_t *numbers, float *scales, int num_threads)
{
    long num_blocks = (size + BLOCK_SIZE - 1) / BLOCK_SIZE, width = (size + 1) / 2 * 2;
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long t = 0; t < num_rows; t++)
        for (long b = 0; b < num_blocks; b++) {
            long first = b * BLOCK_SIZE, num = least(size - first, BLOCK_SIZE);
            const float *from = x + t * stride + first;
            float room[BLOCK_SIZE];
            if (factors) {
                for (long i = 0; i < num; i++)
                    room[i] = from[i] * factors[first + i];
                from = room;
            }
            float by = divisor(from, num, bounds ? bounds[b] : LONGEST);
            scales[t * num_blocks + b] = by;
            divide(from, num, least(width - first, BLOCK_SIZE), by, numbers + t * width + first);
        }
}

/* A weight (outputs, inputs): integers, the factor of each output, and the length that a row may
   have which is multiplied with a block of outputs. */
void fix_weight(const float *weight, long num_outputs, long num_inputs, int16_t *numbers,
                float *scales, float *bounds, int num_threads)
{
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long n = 0; n < num_outputs; n++) {
        const float *from = weight + n * num_inputs;
        float by = 0;
        for (long first = 0; first < num_inputs; first += BLOCK_SIZE) {
            float own = divisor(from + first, least(num_inputs - first, BLOCK_SIZE), LONGEST);
            by = own > by || isnan(own) ? own : by;
        }
        scales[n] = by;
        divide(from, num_inputs, num_inputs, by, numbers + n * num_inputs);
    }
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long first = 0; first < num_outputs; first += BLOCK_SIZE) {
        float most = 1;
        for (long k = 0; k < num_inputs; k += BLOCK_SIZE) {
            long num = least(num_inputs - k, BLOCK_SIZE);
            float sums[BLOCK_SIZE] = {0};
            for (long n = first; n < least(num_outputs, first + BLOCK_SIZE); n++)
                for (long i = 0; i < num; i++) {
                    float v = numbers[n * num_inputs + k + i];
                    sums[i] += v * v;
                }
            for (long i = 0; i < num; i++)
                most = sums[i] > most ? sums[i] : most;
        }
        /* Rounding makes a row longer by half a square root of its numbers. */
        float bound = 2147e6f / sqrtf(most) - 8, all_largest = LARGEST * 16;
        bounds[first / BLOCK_SIZE] = bound < all_largest ? bound : all_largest;
    }
}

/* A panel holds what WIDTH columns multiply with: for each pair of a block's numbers the pair of
   each column, (pairs, WIDTH). */

/* 16 pairs of 16 rows, `stride` numbers apart, as 16 rows of a panel. */
static inline void turn_pairs(const int16_t *from, long stride, long num_rows, __mmask16 pairs,
                              int32_t *panel)
{
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++)
        a[i] = i < num_rows ? _mm512_maskz_loadu_epi32(pairs, from + i * stride)
                            : _mm512_setzero_si512();
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + 2 + j]);
            a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + 2 + j]);
        }
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 4; j++) {
            b[i + j] = _mm512_shuffle_i32x4(a[i + j], a[i + 4 + j], 0x88);
            b[i + 4 + j] = _mm512_shuffle_i32x4(a[i + j], a[i + 4 + j], 0xdd);
        }
    for (int j = 0; j < 8; j++) {
        _mm512_store_si512(panel + j * WIDTH, _mm512_shuffle_i32x4(b[j], b[8 + j], 0x88));
        _mm512_store_si512(panel + (8 + j) * WIDTH, _mm512_shuffle_i32x4(b[j], b[8 + j], 0xdd));
    }
}

/* Columns are outputs, of which there are `num_columns`; pairs are of their inputs. */
static void panel_of_outputs(const int16_t *w, long stride, long num_columns, long num,
                             int32_t *panel)
{
    for (long pair = 0; 2 * pair < num; pair += 16)
        for (long column = 0; column < WIDTH; column += 16)
            turn_pairs(w + column * stride + 2 * pair, stride, num_columns - column,
                       first_of_16((num + 1) / 2 - pair), panel + pair * WIDTH + column);
}

/* Columns are inputs; pairs are of outputs. */
static void panel_of_inputs(const int16_t *w, long stride, long num_columns, long num,
                            int32_t *panel)
{
    __mmask32 there = num_columns >= 32 ? 0xffffffffu : (1u << num_columns) - 1;
    for (long pair = 0; 2 * pair < num; pair++) {
        __mmask32 is_second = 2 * pair + 1 < num ? there : 0;
        __m512i one = _mm512_maskz_loadu_epi16(there, w + 2 * pair * stride);
        __m512i other = _mm512_maskz_loadu_epi16(is_second, w + (2 * pair + 1) * stride);
        for (int half = 0; half < 2; half++) {
            __m512i low = _mm512_cvtepu16_epi32(
                half ? _mm512_extracti64x4_epi64(one, 1) : _mm512_castsi512_si256(one));
            __m512i high = _mm512_cvtepu16_epi32(
                half ? _mm512_extracti64x4_epi64(other, 1) : _mm512_castsi512_si256(other));
            _mm512_store_si512(panel + pair * WIDTH + half * 16, low | _mm512_slli_epi32(high, 16));
        }
    }
}

/* Sums (num_rows, WIDTH) of a block, for a constant number of rows. */
__attribute__((always_inline)) static inline void
multiply_block(int num_rows, long num_pairs, const int16_t *x, long x_stride, const int32_t *panel,
               int32_t *found)
{
    __m512i sums[HEIGHT][2];
#pragma GCC unroll 12
    for (int i = 0; i < num_rows; i++)
        sums[i][0] = sums[i][1] = _mm512_setzero_si512();
    for (long pair = 0; pair < num_pairs; pair++) {
        __m512i left = _mm512_load_si512(panel + pair * WIDTH);
        __m512i right = _mm512_load_si512(panel + pair * WIDTH + 16);
#pragma GCC unroll 12
        for (int i = 0; i < num_rows; i++) {
            int32_t both;
            memcpy(&both, x + i * x_stride + 2 * pair, sizeof both);
            __m512i own = _mm512_set1_epi32(both);
            /* By hand: from the intrinsic gcc 12 makes a copy of each sum for each product. */
            __asm__("vpdpwssd %2, %1, %0" : "+v"(sums[i][0]) : "v"(own), "v"(left));
            __asm__("vpdpwssd %2, %1, %0" : "+v"(sums[i][1]) : "v"(own), "v"(right));
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < num_rows; i++) {
        _mm512_store_si512(found + i * WIDTH, sums[i][0]);
        _mm512_store_si512(found + i * WIDTH + 16, sums[i][1]);
    }
}

static void any_block(int num_rows, long num_pairs, const int16_t *x, long x_stride,
                      const int32_t *panel, int32_t *found)
{
#define CASE(number)                                                        \
    case number:                                                            \
        multiply_block(number, num_pairs, x, x_stride, panel, found);       \
        break;
    switch (num_rows) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
    }
#undef CASE
}

/* Sums times both factors, added to rows of y or, with `adds` unset, to `begun`. */
static void add_block(int num_rows, const int32_t *sums, const float *scales, long num_scales,
                      const float *column_scales, const float *begun, int adds, float *y,
                      long y_stride, long num_columns)
{
    for (int i = 0; i < num_rows; i++)
        for (long first = 0; first < num_columns; first += 16) {
            __mmask16 there = first_of_16(num_columns - first);
            float *to = y + i * y_stride + first;
            __m512 before = adds ? _mm512_maskz_loadu_ps(there, to) : _mm512_loadu_ps(begun + first);
            __m512 sum = _mm512_cvtepi32_ps(_mm512_load_si512(sums + i * WIDTH + first));
            sum = sum * scales[i * num_scales];
            sum = _mm512_fmadd_ps(sum, _mm512_loadu_ps(column_scales + first), before);
            _mm512_mask_storeu_ps(to, there, sum);
        }
}

/* Memory is asked for lines first to last of rows of a weight, each of so many lines. */
static inline void ask_for(const int16_t *w, long stride, long num_lines, long first, long last)
{
    for (long i = first; i < last; i++)
        __builtin_prefetch((const char *)(w + i / num_lines * stride) + i % num_lines * 64, 0, 2);
}

/* y = x W^T + bias (none, or by outputs); backwards y += x W. x: as `fix_rows` left it; numbers:
   (outputs, inputs) of W. */
void fixed_product(const int16_t *x, const float *x_scales, long num_rows, const int16_t *numbers,
                   const float *scales, long num_outputs, long num_inputs, int is_backward,
                   const float *bias, float *y, long y_stride, int num_threads)
{
    long size = is_backward ? num_outputs : num_inputs;
    long num_columns = is_backward ? num_inputs : num_outputs;
    long num_blocks = (size + BLOCK_SIZE - 1) / BLOCK_SIZE, x_stride = (size + 1) / 2 * 2;
    long num_panels = (num_columns + WIDTH - 1) / WIDTH;
    long num_tiles = (num_rows + HEIGHT - 1) / HEIGHT;
    /* Neighbours lie in the same lines of memory, but every thread is to have some. */
    long at_once = num_panels > 8 * num_threads ? 4 : 1;
    /* From a column to the next, and from one of a block's numbers to the next. */
    long apart = is_backward ? 1 : num_inputs, along = is_backward ? num_inputs : 1;
#pragma omp parallel num_threads(num_threads)
    for (long group = 0; group < num_blocks; group += GROUP) {
        long end = least(group + GROUP, num_blocks);
#pragma omp for schedule(dynamic, at_once)
        for (long p = 0; p < num_panels; p++) {
            _Alignas(64) int32_t panel[BLOCK_SIZE / 2 * WIDTH], sums[HEIGHT * WIDTH];
            float column_scales[WIDTH], begun[WIDTH];
            long column = p * WIDTH, left = least(num_columns - column, WIDTH);
            for (long i = 0; i < WIDTH; i++) {
                column_scales[i] = is_backward ? 1 : i < left ? scales[column + i] : 0;
                begun[i] = bias && i < left ? bias[column + i] : 0;
            }
            for (long b = group; b < end; b++) {
                long first = b * BLOCK_SIZE, num = least(size - first, BLOCK_SIZE);
                const int16_t *from = numbers + column * apart + first * along;
                (is_backward ? panel_of_inputs : panel_of_outputs)(from, num_inputs, left, num,
                                                                   panel);
                /* What is read next comes while this is computed. */
                long then = b + 1 < end ? column : column + WIDTH;
                long next = (b + 1 < end ? b + 1 : group) * BLOCK_SIZE;
                long lines = is_backward ? 1 : BLOCK_SIZE / 32;
                long ahead = is_backward ? least(size - next, BLOCK_SIZE)
                                         : least(num_columns - then, WIDTH) * lines;
                ahead = then < num_columns ? ahead : 0;
                for (long t = 0; t < num_tiles; t++) {
                    long row = num_rows * t / num_tiles, stop = num_rows * (t + 1) / num_tiles;
                    ask_for(numbers + then * apart + next * along, num_inputs, lines,
                            ahead * t / num_tiles, ahead * (t + 1) / num_tiles);
                    any_block(stop - row, (num + 1) / 2, x + row * x_stride + first, x_stride,
                              panel, sums);
                    add_block(stop - row, sums, x_scales + row * num_blocks + b, num_blocks,
                              column_scales, begun, is_backward || b > 0, y + row * y_stride + column,
                              y_stride, left);
                }
            }
        }
    }
}

#else

int multiplies_fixed(void) { return 0; }

#endif

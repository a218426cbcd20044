/* Registers of the processor as vectors of C, and what is computed in them alone. */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

/* LANES: numbers in a register. */
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef float quad __attribute__((vector_size(16)));

#define LOWEST -3e38f

static inline quad folded(floats v)
{
    quad parts[LANES / 4];
    memcpy(parts, &v, sizeof v);
    quad sum = parts[0];
    for (int k = 1; k < LANES / 4; k++)
        sum += parts[k];
    return sum;
}

static inline float total(floats v)
{
    quad sum = folded(v);
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

static inline floats chosen(words mask, floats yes, floats no)
{
    return (floats)(((words)yes & mask) | ((words)no & ~mask));
}

/* e^x for x <= 0, to 2e-7 of it; below -87 as there. 2^n e^r with |r| <= ln(2) / 2, the latter by
   its series; n ends up in the lowest bits of a number of 2^23 and a half of that. */
static inline floats exponential(floats x)
{
    const float half = 12582912.0f;
    floats zero = {0}, lowest = zero - 87.0f;
    x = chosen((words)(x < lowest), lowest, x);
    floats shifted = x * 1.44269504f + half, n = shifted - half;
    floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
    floats p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    /* A product, so that what is no number stays none. */
    return p * (floats)(((words)shifted << 23) + 0x3f800000u);
}

/* scores[0..num) becomes e^(score - highest), up to the next register filled with zeros; returns
   their sum, and the highest score in `top`. */
static inline float softened(float *scores, long num, float *top)
{
    long whole = (num + LANES - 1) / LANES * LANES;
    floats v, zero = {0}, highest = zero + LOWEST, sum = zero;
    for (long k = num; k < whole; k++)
        scores[k] = LOWEST;
    for (long k = 0; k < whole; k += LANES) {
        memcpy(&v, scores + k, sizeof v);
        highest = chosen((words)(v > highest), v, highest);
    }
    *top = highest[0];
    for (int k = 1; k < LANES; k++)
        *top = highest[k] > *top ? highest[k] : *top;
    for (long k = 0; k < whole; k += LANES) {
        memcpy(&v, scores + k, sizeof v);
        v = exponential(v - *top);
        memcpy(scores + k, &v, sizeof v);
    }
    for (long k = num; k < whole; k++)
        scores[k] = 0;
    for (long k = 0; k < whole; k += LANES) {
        memcpy(&v, scores + k, sizeof v);
        sum += v;
    }
    return total(sum);
}

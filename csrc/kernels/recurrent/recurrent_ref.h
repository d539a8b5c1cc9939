/* recurrent_ref.h - scalar pieces of the reference kernels. */
#ifndef LGR_RECURRENT_REF_H
#define LGR_RECURRENT_REF_H
#include "kernels/recurrent/recurrent_sizes.h"
#include <string.h>

LGR_INLINE int64_t lgr_blocks(int64_t h) { return (h + LGR_UNITS - 1) / LGR_UNITS; }
/* Unit u of one plane of a block that forward saves. */
LGR_INLINE void lgr_put32(char *plane, int64_t u, int32_t v)
{
    memcpy(plane + u % LGR_UNITS * 4, &v, 4);
}
LGR_INLINE void lgr_put16(char *plane, int64_t u, int32_t v)
{
    const int16_t low = (int16_t)v;
    memcpy(plane + u % LGR_UNITS * 2, &low, 2);
}
LGR_INLINE void lgr_put8(char *plane, int64_t u, int32_t v)
{
    plane[u % LGR_UNITS] = (char)(v & 255);
}
/* sat_32(w . x + bias) of one gate and unit; w [unit block][gate][k][16], bias [unit block][gate][16] */
static inline int32_t lgr_gate(const void *packed, const int32_t *bias, int gates, int gate,
                               int64_t u, const int8_t *x, int64_t k)
{
    const int64_t block = (u / LGR_UNITS) * gates + gate, lane = u % LGR_UNITS;
    const int8_t *w = (const int8_t *)packed + block * k * LGR_UNITS + lane;
    int64_t sum = bias[block * LGR_UNITS + lane];
    for (int64_t i = 0; i < k; ++i) sum += w[i * LGR_UNITS] * x[i];
    return lgr_sat_s32(sum);
}
/* A sum in Q.q brought to Q.base: sat_32(g * 2^(base - q)), or rounded half up to the right. */
LGR_INLINE int32_t lgr_fit_ref(int32_t g, int q, int base)
{
    return lgr_sat_s32(lgr_shift_s64(g, q - base));
}
/* e / (1 + e)^2 with e = exp(-|x|): the derivative of the sigmoid at x, a quarter of that of tanh at x / 2 */
LGR_INLINE float lgr_dsigmoid_ref(float x)
{
    const float e = expf(-fabsf(x)), d = e + 1.0f;
    return e / (d * d);
}
static inline void lgr_start_s8(const int8_t *h0, int64_t r, int64_t h, int8_t *out)
{
    if (h0) memcpy(out, h0 + r * h, (size_t)h);
    else memset(out, 0, (size_t)h);
}
#endif

/* scale_bias.h - one factor and one offset per channel. Source: docs/numerics.md, "BatchNorm2dInt". */
#ifndef LGR_SCALE_BIAS_H
#define LGR_SCALE_BIAS_H
#include "lgr/qmath.h"

LGR_INLINE int8_t lgr_scale_bias_one(int8_t x, int8_t w, int32_t b, int32_t shift)
{
    return lgr_sat_s8(lgr_shift_s64((int64_t)x * w + b, shift));
}

#ifdef __cplusplus
extern "C" {
#endif

/**
 * out[i][ch][j] = sat_8(RSH(x[i][ch][j] * w[ch] + b[ch], shift)), or sat_8((...) * 2^-shift) for shift < 0 (venus).
 *
 * @param[in]  x      [outer][c][inner] int8: inner = H * W for planar, 1 for interleaved data.
 * @param[in]  w      [c] int8.   @param[in] b  [c] int32, at the product's scale.
 * @param[in]  shift  -63..63.
 * @param[out] out    [outer][c][inner] int8; may be x itself.
 * @return LGR_OK; LGR_E_RANGE for a count or shift; LGR_E_NULL.
 */
lgr_status lgr_scale_bias_s8_s8(const int8_t *x, const int8_t *w, const int32_t *b, int64_t outer,
                                int64_t c, int64_t inner, int32_t shift, int8_t *out);

#ifdef __cplusplus
}
#endif
#endif

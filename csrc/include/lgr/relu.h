/* relu.h - ReLU and its bounded forms on codes. Source: docs/numerics.md, "ReLU". */
#ifndef LGR_RELU_H
#define LGR_RELU_H
#include "lgr/qmath.h"
#include "lgr/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lgr_relu_params {
    int32_t exp2;   /* log2 of the scale, |exp2| <= 126, or LGR_EXP2_NAN */
    int32_t bytes;  /* of one code: 1 (int8) or 4 (int32) */
    int32_t stream; /* write the values around the cache */
    double high;    /* upper limit in real units, > 0; infinity: none */
};

/**
 * code = min(max(x, 0), h);  value = code / 2^exp2;  mask bit i = 0 < x[i] < h;  h = floor(high * 2^exp2)
 *
 * Without an upper limit h is no code, and the mask is 0 < x[i].
 *
 * @param[in]  x      [n] codes.
 * @param[out] codes  [n] of the same type; may be x itself.
 * @param[out] value  [n] float32.   @param[out] mask  [(n + 7) / 8] or NULL; spare bits 0.
 * @return LGR_OK; LGR_E_RANGE for n or a parameter; LGR_E_NULL.
 *
 * exp2 == LGR_EXP2_NAN: value NaN, codes 0, mask 0 for every element. Codes above 24 bits are rounded once in value.
 */
lgr_status lgr_relu(const void *x, int64_t n, const struct lgr_relu_params *p, void *codes,
                    float *value, uint8_t *mask);

#ifdef __cplusplus
}
#endif
#endif

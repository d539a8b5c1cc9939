/* layer_norm.h - rows of int8 codes to mean 0 and variance 1, then one factor and one offset per element.
 * Source: docs/numerics.md, "LayerNormInt".
 */
#ifndef LGR_LAYER_NORM_H
#define LGR_LAYER_NORM_H
#include "lgr/epilogue.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LGR_NORM_EXP2 10 /* exponent of the normalised value */
#define LGR_LAYER_NORM_MAX (1 << 20) /* elements of a row: n * x - sum fits 32 bits */

struct lgr_layer_norm_params {
    int64_t n; /* elements of a row, 1..LGR_LAYER_NORM_MAX */
    int64_t eps; /* from lgr_layer_norm_eps, 0..2^62 */
    int32_t bits; /* width of the normalised value: 32, venus 16 */
    const int32_t *gamma; /* [n] codes of at most 16 bits */
    const int32_t *beta; /* [n] at exponent LGR_NORM_EXP2 + that of gamma */
};

/* What is added to n^2 times the variance: floor(1e-5 * 4^x_exp2 * n * n + 0.5) in float32, left to right; at most 2^62. */
int64_t lgr_layer_norm_eps(int32_t x_exp2, int64_t n);

/**
 * A[r][i] = sat_32(norm[r][i] * gamma[i]) + beta[i], norm = (x - mean) / deviation in Q10; the rest is the epilogue's.
 *
 * @param[in]  x        [rows of the whole tensor][n] int8.
 * @param[in]  from,to  Rows to do, 0 <= from <= to.
 * @param[in]  ep       Output quantizer; its sums have exponent LGR_NORM_EXP2 + that of gamma.
 * @param[out] out      Rows of n results each; acc is not used.
 * @param[out] scratch  [n] int32.
 * @param[in,out] amax  {max(A), max(-A)} so far.
 * @return LGR_OK; LGR_E_RANGE for a count, eps or bits; LGR_E_NULL.
 *
 * n * sum x^2 and (sum x)^2 wrap at 32 bits as the engine's do (the first can for n > 362). A wrapped sum that leaves nothing
 * positive counts as 0.
 */
lgr_status lgr_layer_norm(const int8_t *x, int64_t from, int64_t to,
                          const struct lgr_layer_norm_params *p, const lgr_epilogue *ep,
                          const lgr_outputs *out, int32_t *scratch, int64_t amax[2]);

#ifdef __cplusplus
}
#endif
#endif

/* rescale.h - codes of one tensor brought to another power-of-two scale. Source: docs/numerics.md, "iqCat". */
#ifndef LGR_RESCALE_H
#define LGR_RESCALE_H
#include "lgr/quantize.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lgr_rescale_params {
    int32_t exp2_x; /* log2 of the operand's scale, |e| <= 126 */
    int32_t exp2; /* of the result, |e| <= 126, or LGR_EXP2_NAN */
    int32_t bits; /* of the result, 2..32 */
    int32_t bytes; /* of one operand code: 1 (int8) or 4 (int32) */
    int32_t rounding; /* enum lgr_rounding; the chip: LGR_FLOOR_ADD */
};

/**
 * t = x * 2^(exp2 - exp2_x), rounded when it shifts right;  code = clamp(t, lo, hi), value = code / 2^exp2
 * mask = lo <= t <= hi;  slope = code - x * 2^(exp2 - exp2_x) under the mask, else code (the limit)
 *
 * @param[in] x     [n] codes, int8 or int32 as params->bytes says.
 * @param[out] out  Results, as lgr_quantize_f32. Must not overlap x.
 * @return LGR_OK; LGR_E_RANGE for n or a parameter; LGR_E_NULL.
 */
lgr_status lgr_rescale(const void *x, int64_t n, const struct lgr_rescale_params *p,
                       const struct lgr_quantize_out *out);

/* max|x| of n codes of `bytes` bytes; 0 for n = 0. */
int64_t lgr_peak_codes(const void *x, int32_t bytes, int64_t n);

#ifdef __cplusplus
}
#endif
#endif

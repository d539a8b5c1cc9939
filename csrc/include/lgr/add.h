/* add.h - sum and difference of two quantized tensors. Source: docs/numerics.md, "iqAdd". */
#ifndef LGR_ADD_H
#define LGR_ADD_H
#include "lgr/quantize.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lgr_add_params {
    int32_t exp2_x, exp2_y; /* log2 of the operands' scales, |e| <= 126 */
    int32_t exp2;           /* of the result, <= both; or LGR_EXP2_NAN */
    int32_t bits;           /* of the result, 2..32 */
    int32_t bytes;          /* of one operand code: 1 (int8) or 4 (int32) */
    int32_t rounding;       /* enum lgr_rounding; the chip: LGR_FLOOR_ADD */
    int32_t relu, no_slope; /* as lgr_quantize_params */
    int32_t stream;         /* write the values around the cache */
    int32_t minus;          /* the difference: t = a - b, x - y in the slope and the range */
    float clamp;            /* the sum is clamped to +-floor(clamp * 2^exp2); <= 0: not */
};

/**
 * a = sat(RSH(x, exp2_x - exp2));  b = sat(RSH(y, exp2_y - exp2));  t = a + b
 * code = clamp(t, lo, hi), value = code / 2^exp2;  lo, hi: limits of `bits`, narrowed by clamp and relu
 * mask = lo <= t <= hi (relu: 1 <= t);  slope as lgr_quantize_f32 with v = (x / 2^exp2_x + y / 2^exp2_y) * 2^exp2
 *
 * @param[in] x, y    [n] codes, int8 or int32 as params->bytes says.
 * @param[out] out    Results, as lgr_quantize_f32. Must not overlap the operands.
 * @param[in,out] range  When not NULL, the range of x / 2^exp2_x + y / 2^exp2_y (not rounded, as float32) is merged into it.
 * @return LGR_OK; LGR_E_RANGE for n or a parameter; LGR_E_NULL.
 */
lgr_status lgr_add(const void *x, const void *y, int64_t n, const struct lgr_add_params *p,
                   const struct lgr_quantize_out *out, lgr_range *range);

/* out[i] = sat_bits(sat_bits(RSH(x, shift_x)) + sat_bits(RSH(y, shift_y))), shifts 0..63, codes of `bytes` bytes;
 * minus: the difference; out: int8 for bits <= 8, int32 above. */
lgr_status lgr_add_codes(const void *x, const void *y, int32_t bytes, int64_t n, int32_t shift_x,
                         int32_t shift_y, int32_t bits, int32_t minus, void *out);

/* out[i] = sat_bits(RSH(x, shift)), or sat_bits(x * 2^-shift) for shift < 0; |shift| <= 63. Types as lgr_add_codes. */
lgr_status lgr_requant(const void *x, int32_t bytes, int64_t n, int32_t shift, int32_t bits,
                       void *out);

#ifdef __cplusplus
}
#endif
#endif

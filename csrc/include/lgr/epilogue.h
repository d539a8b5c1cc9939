/* epilogue.h - the output quantizer of a bilinear operator: exact integer sums -> codes, values, gradient masks.
 *
 * Every limit (saturation, 32-bit accumulator, training clamp, fused ReLU) is monotone, so it is folded into one range
 * of codes and one range of sums when the epilogue is made; per element there is a shift, a clamp and a range test.
 * Source: docs/numerics.md, "Convolution and linear".
 */
#ifndef LGR_EPILOGUE_H
#define LGR_EPILOGUE_H
#include "lgr/qmath.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * One output quantizer, for an exact sum A in units of 2^-acc_exp2:
 *
 *     code  = clamp(round(A / 2^shift), lo, hi)
 *     value = code * inv
 *     mask  = t0 <= A <= t1                                      the gradient passes
 *     slope = code - A / 2^shift   where t0 <= A <= t1           d value / d threshold, times scale / ln 2
 *             0                    where A < c0 or A > c1        cut by the clamp, the ReLU or 32 bits
 *             code                 elsewhere (saturated)
 */
typedef struct lgr_epilogue {
    int32_t shift; /* <= 63; negative: A * 2^-shift, saturated (32-bit codes only) */
    int32_t rounding; /* enum lgr_rounding */
    int64_t lo, hi; /* codes */
    int64_t t0, t1; /* sums that keep their gradient; t0 > t1: none */
    int64_t c0, c1; /* sums that no clamp, ReLU or accumulator cuts */
    int64_t a0, a1; /* sums after the accumulator's saturation and the clamp, for statistics */
    int32_t relu; /* statistics use max(x, 0) instead of max|x| */
    float inv; /* 2^-out_exp2 */
    float slope_one; /* 2^-shift */
} lgr_epilogue;

/* What to make an epilogue from. */
typedef struct lgr_epilogue_spec {
    int32_t acc_exp2; /* exponent of the sums, |e| <= 504 */
    int32_t out_exp2; /* exponent of the codes, |e| <= 126, at least acc_exp2 - 63 */
    int32_t bits; /* 2..32 */
    int32_t rounding; /* enum lgr_rounding */
    int32_t relu; /* fused ReLU: no negative code, gradient only where code > 0 */
    int32_t sat32; /* the accumulator saturates at 32 bits (convolutions) */
    double clamp; /* training clamp of the sum's value, > 0; 0: none */
} lgr_epilogue_spec;

/**
 * @return LGR_OK; LGR_E_RANGE for a field out of its range, or a negative shift with bits != 32; LGR_E_NULL.
 *
 * The clamp becomes the integer limit floor(clamp * 2^acc_exp2) of the sum.
 */
lgr_status lgr_epilogue_make(const lgr_epilogue_spec *spec, lgr_epilogue *ep);

/* Largest value of the statistics (max|x|, or max(x, 0) under ReLU) from amax = {max(A), max(-A)}, both >= 0. */
float lgr_epilogue_peak(const lgr_epilogue *ep, int32_t acc_exp2, const int64_t amax[2]);

/* Where a row-major [pixels][o] block of results goes. Any pointer may be NULL; no two may overlap. */
typedef struct lgr_outputs {
    int32_t *acc; /* raw sums, modulo 2^32 */
    int8_t *code8; /* codes of at most 8 bits */
    int16_t *code16; /* codes of at most 16 bits */
    int32_t *code32; /* codes */
    float *value;
    float *slope;
    uint8_t *mask; /* [pixels][lgr_mask_row_bytes(o)]; channel c is bit c % 8 of byte c / 8 */
    int stream; /* value is large and read late: write it around the cache */
} lgr_outputs;

/**
 * Codes, values, masks and slopes of rows [0, rows) x channels [ch, ch + n) from int32 sums.
 *
 * @param[in]     narrow lgr_epilogue_narrow of a bound on these sums; 0 is always right.
 * @param[in]     sums   Row r at sums + r * stride. The exact sum is sums[] + bias[], a 64-bit addition.
 * @param[in]     bias   [n] int32 for these channels, or NULL.
 * @param[in]     ch     A multiple of 16 when mask is written, unless it is 0.
 * @param[in]     o      Channels per pixel of the outputs.
 * @param[in]     pixel  Index of the first row in the outputs.
 * @param[in,out] amax   Maximum of A and of -A so far.
 *
 * Takes the AVX2 twin for narrow sums without bias, acc and code16. Same bits on every path.
 */
void lgr_epilogue_rows(const lgr_epilogue *ep, int narrow, const int32_t *sums, int64_t stride,
                       const int32_t *bias, int64_t rows, int64_t n, int64_t ch, int64_t o,
                       int64_t pixel, const lgr_outputs *out, int64_t amax[2]);

/* The reference for one exact 64-bit sum; `at` = pixel * o + channel. The mask is the caller's. Returns its bit. */
int lgr_epilogue_one(const lgr_epilogue *ep, int64_t sum, int64_t at, const lgr_outputs *out);

/* Whether |A| <= bound makes the 32-bit twins exact for this epilogue: no half-to-even, no left shift, no overflow. */
int lgr_epilogue_narrow(const lgr_epilogue *ep, int64_t bound);

#ifdef __cplusplus
}
#endif
#endif

/* softmax.h - softmax and log-softmax of rows as the chips' vector libraries compute them. Source: docs/numerics.md, "Softmax".
 *
 * Common to all: m = the row's maximum, d = sat_32(x - m) <= 0, X = RSH(d * 774541002, 31) is log2 of the term in Q23; with
 * E = (X >> 23) + 1 and F = (X & 0x7fffff) - 2^23 the term e is a polynomial of degree 4 in F, times 2^E, in Q23.
 */
#ifndef LGR_SOFTMAX_H
#define LGR_SOFTMAX_H
#include "lgr/activation.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { LGR_SOFTMAX_CHIPS = LGR_VENUSA + 1 }; /* chips with a formula: the first of enum lgr_chip */

#define LGR_LOG2E 774541002 /* log2(e) in Q29 */
#define LGR_LN2 45426 /* ln(2) in Q16 */
/* 2^f on (-1, 0], Q23, highest power first */
enum {
    LGR_EXP_P0 = 57364,
    LGR_EXP_P1 = 446161,
    LGR_EXP_P2 = 2008107,
    LGR_EXP_P3 = 5813551,
    LGR_EXP_P4 = 8388575,
};

/* One term: e in Q23 of d <= 0 in Q25; once: the last step of the polynomial is rounded once, as on venusA. */
int32_t lgr_softmax_exp(int once, int32_t d);

/**
 * y = RSH(C * e, 38), C = 2 * floor(2^52 / S), S = sat_32(sum of e)
 *
 * @param[in]  chip  LGR_ARCS: the last product of the polynomial is rounded to Q23 and then shifted down by flooring;
 *                   LGR_VENUSA: it is rounded once. LGR_VENUS has no verified softmax.
 * @param[in]  x     [rows][n] Q25, any value.
 * @param[in]  n     >= 1 where rows > 0.
 * @param[out] y     [rows][n] Q15, 0..32768 while the sum does not saturate. May be x itself.
 * @return LGR_OK; LGR_E_RANGE for chip, rows or n; LGR_E_NULL.
 *
 * More than about 256 elements near the maximum saturate S: all results are then too large. Same bits on every path.
 */
lgr_status lgr_softmax(int chip, const int32_t *x, int64_t rows, int64_t n, int32_t *y);

/**
 * y = RSH(x - m, 10) - (L >> 1), L = ln(sum of e) in Q16 from a table of 512 logarithms; e as on venusA, whatever the chip
 *
 * @param[in]  x  [rows][n] Q25.   @param[out] y  [rows][n] Q15. May be x itself.
 * @return LGR_OK; LGR_E_RANGE for rows or n; LGR_E_NULL.
 */
lgr_status lgr_log_softmax(const int32_t *x, int64_t rows, int64_t n, int32_t *y);

/**
 * A = softmax or log-softmax of codes, Q15; the rest is the epilogue's.
 *
 * @param[in] chip     LGR_ARCS or LGR_VENUSA.
 * @param[in] log      Non-zero: log-softmax.
 * @param[in] x        Row `row` and on: codes, int8 (bytes = 1) or int32 (bytes = 4), in exponent exp2; brought to Q25.
 * @param[in] rows     Rows of this call.   @param[in] n  Their length, >= 1 where rows > 0.
 * @param[in] scratch  lgr_softmax_scratch(n) int32.
 * @param[out] out     Results of all rows.
 * @param[in,out] amax {max(A), max(-A)} so far.
 * @return LGR_OK; LGR_E_RANGE; LGR_E_NULL.
 */
lgr_status lgr_softmax_codes(int chip, int log, const void *x, int32_t bytes, int32_t exp2,
                             int64_t row, int64_t rows, int64_t n, int32_t *scratch,
                             const lgr_epilogue *ep, const lgr_outputs *out, int64_t amax[2]);
int64_t lgr_softmax_scratch(int64_t n);

/**
 * dx = y * (g - sum(g * y)) of rows: the Jacobian of softmax at its computed result
 *
 * @param[in] y  [rows][n] codes, int8 (bytes = 1) or int32 (bytes = 4), in exponent exp2. Sums in float64, in order.
 * @param[in] g  [rows][n] float32.   @param[out] dx  [rows][n]; may be g itself.
 * @return LGR_OK; LGR_E_RANGE; LGR_E_NULL. exp2 = LGR_EXP2_NAN: dx = 0.
 */
lgr_status lgr_softmax_grad(const float *g, const void *y, int32_t bytes, int32_t exp2,
                            int64_t rows, int64_t n, float *dx);

/* dx = g - softmax(x) * sum(g) of rows: log-softmax at its operand x, arguments and errors as above. */
lgr_status lgr_log_softmax_grad(const float *g, const void *x, int32_t bytes, int32_t exp2,
                                int64_t rows, int64_t n, float *dx);

/* floor(ln(1 + i / 512) * 65536 + 1/2) */
extern const int32_t lgr_ln_table[512];

#ifdef __cplusplus
}
#endif
#endif

/* softmax.h - softmax and log-softmax of rows as the chips' vector libraries compute them. Source: docs/numerics.md, "Softmax".
 *
 * Common to all: m = the row's maximum, d = sat_32(x - m) <= 0, X = RSH(d * 774541002, 31) is log2 of the term in Q23; with
 * E = (X >> 23) + 1 and F = (X & 0x7fffff) - 2^23 the term e is a polynomial of degree 4 in F, times 2^E, in Q23.
 */
#ifndef LGR_SOFTMAX_H
#define LGR_SOFTMAX_H
#include "lgr/chip_functions.h"

#ifdef __cplusplus
extern "C" {
#endif

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

/* floor(ln(1 + i / 512) * 65536 + 1/2) */
extern const int32_t lgr_ln_table[512];

#ifdef __cplusplus
}
#endif
#endif

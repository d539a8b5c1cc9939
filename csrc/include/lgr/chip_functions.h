/* chip_functions.h - sigmoid, tanh, GELU and swish as the chips compute them: 16 straight segments, in integers.
 *
 * One table per chip and function; the formula is the same for all. Source: docs/numerics.md, "Chip functions".
 */
#ifndef LGR_CHIP_FUNCTIONS_H
#define LGR_CHIP_FUNCTIONS_H
#include "lgr/qmath.h"

#ifdef __cplusplus
extern "C" {
#endif

enum lgr_chip { LGR_ARCS, LGR_VENUSA, LGR_VENUS }; /* mars computes as arcs */
enum lgr_table {
    LGR_ARCS_SIGMOID,
    LGR_ARCS_TANH,
    LGR_VENUSA_SIGMOID,
    LGR_VENUSA_TANH,
    LGR_VENUS_SIGMOID,
    LGR_VENUS_TANH,
    LGR_VENUSA_GELU,
    LGR_VENUSA_SWISH,
    LGR_N_TABLES
};

/**
 * One function. j = the smallest segment with |x| <= thr[j]; s = j for x >= 0, j + 16 for x < 0:
 *
 *     v = ((slope[s] * max(x, least) + half) >> shift[j]) + icpt[s], saturated to `bits`
 *
 * arcs, venusA: x in Q27, int32; v in Q31 (GELU, swish: Q27). venus: x in Q11, int16; v in Q15.
 * SIMD twins find the segment by bucket: j = j0[min(|x| >> bucket, 31)], plus one where |x| > thr[j].
 */
typedef struct lgr_pwl {
    int16_t j0[32];
    uint32_t thr[16];
    int32_t slope[32], icpt[32];
    int32_t shift[16];
    int32_t bucket; /* 0: the segments are too uneven for buckets */
    int32_t half, least, bits;
    int32_t pad[12];
} __attribute__((aligned(64))) lgr_pwl;
extern const lgr_pwl lgr_chip_tables[LGR_N_TABLES];

/**
 * y[i] = f(x[i])
 *
 * @param[in]  table  enum lgr_table.
 * @param[in]  bits   Width of the result. arcs: 8, 32; venusA: 8, 16, 32; venus: 8, 16. Sigmoid and tanh are Q.(bits - 1);
 *                    GELU and swish Q3, Q11, Q27.
 * @param[in]  x      [n] Q27, any value (venus: Q11 within int16).
 * @param[out] y      [n] int32 whatever the width. May be x itself.
 * @return LGR_OK; LGR_E_RANGE for table, bits or n; LGR_E_NULL.
 *
 * Rounding: a result narrower than the table's own is rounded half up, on arcs and venus from the full-width result, on
 * venusA from the exact sum. Same bits on every path.
 */
lgr_status lgr_chip_function(int table, int bits, const int32_t *x, int64_t n, int32_t *y);

/* Whether the chip of `table` has a result of this width. */
int lgr_chip_function_has(int table, int bits);

#ifdef __cplusplus
}
#endif
#endif

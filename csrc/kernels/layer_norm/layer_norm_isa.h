/* layer_norm_isa.h - the loops of one row; each takes whole vectors and returns how many elements it has done. */
#ifndef LGR_LAYER_NORM_ISA_H
#define LGR_LAYER_NORM_ISA_H
#include "lgr/layer_norm.h"

/* A row in front of gamma: (n x - sum) * factor, shifted right by `shift`; the first product fits 32 bits. */
struct lgr_norm_row {
    int32_t n, sum, factor, shift;
    int narrow; /* the second product fits 32 bits, too, and shift < 32 */
};

/* Adds sum x and sum x^2. n <= 2^16: the sums of squares fit 32 bits. */
int64_t lgr_norm_sums_avx2(const int8_t *x, int64_t n, int64_t *sum, int64_t *squares);

/* y = RSH((n x - sum) * factor, shift) * gamma + beta, all of which fits 32 bits. */
int64_t lgr_norm_scale_avx2(const int8_t *x, const struct lgr_norm_row *row, const int32_t *gamma,
                            const int32_t *beta, int32_t *y);
#endif

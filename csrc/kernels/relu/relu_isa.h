/* relu_isa.h - the int8 loop that has twins. */
#ifndef LGR_RELU_ISA_H
#define LGR_RELU_ISA_H
#include "lgr/relu.h"

struct lgr_relu_consts {
    float inv;
    int32_t high;    /* greatest code, at most 127 */
    int32_t limited; /* whether high cuts */
    int32_t stream;
};
/* Whole groups of 32 elements only; returns how many elements it did. */
typedef int64_t lgr_relu_s8_fn(const int8_t *x, int64_t n, const struct lgr_relu_consts *c,
                               int8_t *codes, float *value, uint8_t *mask);
lgr_relu_s8_fn lgr_relu_s8_avx2;
#endif

/* chip_functions_avx2.c - 8 lanes at a time. */
#include "kernels/chip_functions/chip_functions_avx2.h"
#include "kernels/chip_functions/chip_functions_isa.h"
#include <string.h>

LGR_VEC __m256i one(const int table, const int bits, __m256i x)
{
    const lgr_pwl *p = &lgr_chip_tables[table];
    const int is = table == LGR_VENUSA_GELU || table == LGR_VENUSA_SWISH ? LGR_IS_GELU : table & 1;
    if (table == LGR_VENUS_SIGMOID || table == LGR_VENUS_TANH) {
        const __m256i v = lgr_pwl11x8(p, is, x);
        return bits == 16 ? v : lgr_clamp8(lgr_rhu8(v, 8), -128, 127);
    }
    const int venusa = table >= LGR_VENUSA_SIGMOID;
    if (bits == 32) return lgr_pwl27x8(p, is, venusa, x);
    if (venusa) return lgr_pwl27x8_narrow(p, is, bits, x);
    return lgr_clamp8(lgr_rhu8(lgr_pwl27x8(p, is, 0, x), 24), -128, 127);
}
LGR_VEC void all(const int table, const int bits, const int32_t *x, int64_t n, int32_t *y)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_si256((void *)(y + i),
                            one(table, bits, _mm256_loadu_si256((const void *)(x + i))));
    if (i == n) return;
    int32_t t[8] = {0};
    memcpy(t, x + i, (size_t)(n - i) * sizeof *t);
    _mm256_storeu_si256((void *)t, one(table, bits, _mm256_loadu_si256((const void *)t)));
    memcpy(y + i, t, (size_t)(n - i) * sizeof *t);
}

#define CASE(t, b)                                                                                 \
    case (t) * 64 + (b): return all(t, b, x, n, y)

void lgr_chip_function_avx2(int table, int bits, const int32_t *x, int64_t n, int32_t *y)
{
    switch (table * 64 + bits) {
        CASE(LGR_ARCS_SIGMOID, 8);
        CASE(LGR_ARCS_SIGMOID, 32);
        CASE(LGR_ARCS_TANH, 8);
        CASE(LGR_ARCS_TANH, 32);
        CASE(LGR_VENUSA_SIGMOID, 8);
        CASE(LGR_VENUSA_SIGMOID, 16);
        CASE(LGR_VENUSA_SIGMOID, 32);
        CASE(LGR_VENUSA_TANH, 8);
        CASE(LGR_VENUSA_TANH, 16);
        CASE(LGR_VENUSA_TANH, 32);
        CASE(LGR_VENUSA_GELU, 8);
        CASE(LGR_VENUSA_GELU, 16);
        CASE(LGR_VENUSA_GELU, 32);
        CASE(LGR_VENUSA_SWISH, 8);
        CASE(LGR_VENUSA_SWISH, 16);
        CASE(LGR_VENUSA_SWISH, 32);
        CASE(LGR_VENUS_SIGMOID, 8);
        CASE(LGR_VENUS_SIGMOID, 16);
        CASE(LGR_VENUS_TANH, 8);
        CASE(LGR_VENUS_TANH, 16);
    }
}

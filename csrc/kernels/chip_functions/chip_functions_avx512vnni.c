/* chip_functions_avx512vnni.c - 16 lanes at a time. */
#include "kernels/chip_functions/chip_functions_avx512.h"
#include "kernels/chip_functions/chip_functions_isa.h"

LGR_VEC __m512i one(const int table, const int bits, __m512i x)
{
    const lgr_pwl *p = &lgr_chip_tables[table];
    const int is = table == LGR_VENUSA_GELU || table == LGR_VENUSA_SWISH ? LGR_IS_GELU : table & 1;
    if (table == LGR_VENUS_SIGMOID || table == LGR_VENUS_TANH) {
        const __m512i v = lgr_pwl11x16(p, is, x);
        return bits == 16 ? v : lgr_clamp16(lgr_rhu16(v, 8), -128, 127);
    }
    const int venusa = table >= LGR_VENUSA_SIGMOID;
    if (bits == 32) return lgr_pwl27x16(p, is, venusa, x);
    if (venusa) return lgr_pwl27x16_narrow(p, is, bits, x);
    return lgr_clamp16(lgr_rhu16(lgr_pwl27x16(p, is, 0, x), 24), -128, 127);
}
LGR_VEC void all(const int table, const int bits, const int32_t *x, int64_t n, int32_t *y)
{
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 k = n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1);
        _mm512_mask_storeu_epi32(y + i, k, one(table, bits, _mm512_maskz_loadu_epi32(k, x + i)));
    }
}

#define CASE(t, b)                                                                                 \
    case (t) * 64 + (b): return all(t, b, x, n, y)

void lgr_chip_function_avx512vnni(int table, int bits, const int32_t *x, int64_t n, int32_t *y)
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

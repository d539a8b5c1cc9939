/* chip_functions_all.h - every function and width over an array. A twin includes its look-ups, defines TWIN(name), and includes
 * this file. */
#include "kernels/chip_functions/chip_functions_isa.h"

LGR_VEC vi one(const int table, const int bits, vi x)
{
    const lgr_pwl *p = &lgr_chip_tables[table];
    const int is = table == LGR_VENUSA_GELU || table == LGR_VENUSA_SWISH ? LGR_IS_GELU : table & 1;
    if (table == LGR_VENUS_SIGMOID || table == LGR_VENUS_TANH) {
        const vi v = v_pwl11(p, is, x);
        return bits == 16 ? v : v_clamp(v_round(v, 8), -128, 127);
    }
    const int venusa = table >= LGR_VENUSA_SIGMOID;
    if (bits == 32) return v_pwl27(p, is, venusa, x);
    if (venusa) return v_pwl27_narrow(p, is, bits, x);
    return v_clamp(v_round(v_pwl27(p, is, 0, x), 24), -128, 127);
}
LGR_VEC void all(const int table, const int bits, const int32_t *x, int64_t n, int32_t *y)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(y + i, one(table, bits, v_load(x + i)));
    if (i < n) v_store_n(y + i, one(table, bits, v_load_n(x + i, n - i, 0)), n - i);
}

#define CASE(t, b)                                                                                 \
    case (t) * 64 + (b): return all(t, b, x, n, y)

void TWIN(lgr_chip_function)(int table, int bits, const int32_t *x, int64_t n, int32_t *y)
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

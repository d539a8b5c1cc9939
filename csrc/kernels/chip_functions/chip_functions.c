/* chip_functions.c - checks, dispatch and the scalar reference. */
#include "kernels/chip_functions/chip_functions_isa.h"
#include "kernels/chip_functions/chip_functions_ref.h"
#include "lgr/cpu.h"

int lgr_chip_function_has(int table, int bits)
{
    if (table < 0 || table >= LGR_N_TABLES) return 0;
    const lgr_pwl *p = &lgr_chip_tables[table];
    if (bits == 16) return p->bits == 16 || p->half != 0; /* arcs has no 16-bit result */
    return bits == 8 || bits == p->bits;
}

void lgr_chip_function_ref(int table, int bits, const int32_t *x, int64_t n, int32_t *y)
{
    for (int64_t i = 0; i < n; ++i) y[i] = lgr_pwl_bits_ref(table, bits, x[i]);
}

lgr_status lgr_chip_function(int table, int bits, const int32_t *x, int64_t n, int32_t *y)
{
    if (n < 0 || !lgr_chip_function_has(table, bits)) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (x == NULL || y == NULL) return LGR_E_NULL;
    lgr_chip_function_fn *run = lgr_chip_function_ref;
#if LGR_HAVE_AVX2
    if (lgr_cpu_flags() & LGR_CPU_AVX2) run = lgr_chip_function_avx2;
#endif
#if LGR_HAVE_AVX512VNNI
    if (lgr_cpu_flags() & LGR_CPU_AVX512VNNI) run = lgr_chip_function_avx512vnni;
#endif
    run(table, bits, x, n, y);
    return LGR_OK;
}

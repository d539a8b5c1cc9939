/* observe.c - checks, dispatch and the scalar reference. */
#include "kernels/observe/observe_isa.h"
#include "lgr/cpu.h"

void lgr_observe_f32_ref(const float *x, int64_t n, lgr_range *range)
{
    lgr_range r = *range;
    for (int64_t i = 0; i < n; ++i) {
        const int32_t bits = lgr_float_bits(x[i]);
        r = lgr_range_merge(r, (lgr_range){bits & 0x7fffffff, bits});
    }
    *range = r;
}

lgr_status lgr_observe_f32(const float *x, int64_t n, lgr_range *range)
{
    if (n < 0) return LGR_E_RANGE;
    if (range == NULL || (n > 0 && x == NULL)) return LGR_E_NULL;
    lgr_observe_fn *run = lgr_observe_f32_ref;
#if LGR_HAVE_AVX2
    if (lgr_cpu_flags() & LGR_CPU_AVX2) run = lgr_observe_f32_avx2;
#endif
    run(x, n, range);
    return LGR_OK;
}

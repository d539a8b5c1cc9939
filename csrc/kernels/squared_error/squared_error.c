/* squared_error.c - checks, dispatch and the scalar reference. */
#include "kernels/squared_error/squared_error_isa.h"
#include "lgr/cpu.h"

/* The tree over the elements i, i + 8, ... of `width` of them, a power of two. */
static double lane(const float *x, int64_t n, int64_t i, int64_t width,
                   const struct lgr_quantize_consts *c)
{
    if (i >= n) return 0.0;
    if (width > 1)
        return lane(x, n, i, width / 2, c) + lane(x, n, i + 8 * (width / 2), width / 2, c);
    const float d = x[i] - lgr_quantize_one_f32(x[i], c).value;
    return (double)d * (double)d;
}

double lgr_squared_error_f32_ref(const float *x, int64_t n, const struct lgr_quantize_consts *c)
{
    double v[8];
    for (int64_t i = 0; i < 8; ++i) v[i] = lane(x, n, i, LGR_ERROR_BLOCK / 8, c);
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

lgr_status lgr_squared_error_f32(const float *x, int64_t n,
                                 const struct lgr_squared_error_params *p, double *sum)
{
    if (p == NULL) return LGR_E_NULL;
    if (n < 0 || p->n_exp2 < 1 || p->n_exp2 > LGR_ERROR_EXPS || p->bits < 2 || p->bits > 16 ||
        p->rounding < LGR_FLOOR || p->rounding > LGR_CEIL || p->exp2 < -LGR_EXP2_MAX ||
        p->exp2 > LGR_EXP2_MAX + 1 - p->n_exp2)
        return LGR_E_RANGE;
    if (sum == NULL || (n > 0 && x == NULL)) return LGR_E_NULL;
    lgr_squared_error_fn *run = lgr_squared_error_f32_ref;
#if LGR_HAVE_AVX2
    if (lgr_cpu_flags() & LGR_CPU_AVX2) run = lgr_squared_error_f32_avx2;
#endif
    for (int64_t at = 0; at < n; at += LGR_ERROR_BLOCK) { /* a block stays in the cache meanwhile */
        const int64_t count = n - at < LGR_ERROR_BLOCK ? n - at : LGR_ERROR_BLOCK;
        for (int32_t k = 0; k < p->n_exp2; ++k) {
            const struct lgr_quantize_params q = {
                .exp2 = p->exp2 + k, .bits = p->bits, .rounding = p->rounding};
            const struct lgr_quantize_consts c = lgr_quantize_make_consts(&q);
            sum[k] += run(x + at, count, &c);
        }
    }
    return LGR_OK;
}

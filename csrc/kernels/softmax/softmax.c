/* softmax.c - checks, dispatch and the scalar reference. */
#include "kernels/softmax/softmax_isa.h"
#include "lgr/cpu.h"

void lgr_softmax_ref(int chip, const int32_t *x, int64_t n, int32_t *y)
{
    const int32_t m = lgr_max_ref(x, n, INT32_MIN);
    const int64_t sum = chip == LGR_ARCS ? lgr_terms_ref(LGR_EXP_TWICE, x, n, m, y)
                                         : lgr_terms_ref(LGR_EXP_ONCE, x, n, lgr_softmax_top(m), y);
    lgr_divide_ref(y, n, lgr_reciprocal(sum));
}

void lgr_log_softmax_ref(const int32_t *x, int64_t n, int32_t *y)
{
    const int32_t m = lgr_softmax_top(lgr_max_ref(x, n, INT32_MIN));
    int64_t sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += lgr_softmax_term(LGR_EXP_ONCE, x[i], m);
    const int32_t ln = lgr_half_ln(sum);
    for (int64_t i = 0; i < n; ++i) y[i] = lgr_log_softmax_one(x[i], m, ln);
}

static lgr_status refused(const int32_t *x, int64_t rows, int64_t n, const int32_t *y)
{
    if (rows < 0 || n < 0 || (n == 0 && rows > 0)) return LGR_E_RANGE;
    return rows > 0 && (x == NULL || y == NULL) ? LGR_E_NULL : LGR_OK;
}

int32_t lgr_softmax_exp(int once, int32_t d) { return lgr_exp_one(once, d); }

lgr_status lgr_softmax(int chip, const int32_t *x, int64_t rows, int64_t n, int32_t *y)
{
    if (chip != LGR_ARCS && chip != LGR_VENUSA) return LGR_E_RANGE;
    const lgr_status s = refused(x, rows, n, y);
    if (s != LGR_OK) return s;
    lgr_softmax_fn *run = lgr_softmax_ref;
#if LGR_HAVE_AVX2
    if (lgr_cpu_flags() & LGR_CPU_AVX2) run = lgr_softmax_avx2;
#endif
#if LGR_HAVE_AVX512VNNI
    if (lgr_cpu_flags() & LGR_CPU_AVX512VNNI) run = lgr_softmax_avx512vnni;
#endif
    for (int64_t r = 0; r < rows; ++r) run(chip, x + r * n, n, y + r * n);
    return LGR_OK;
}

lgr_status lgr_log_softmax(const int32_t *x, int64_t rows, int64_t n, int32_t *y)
{
    const lgr_status s = refused(x, rows, n, y);
    if (s != LGR_OK) return s;
    lgr_log_softmax_fn *run = lgr_log_softmax_ref;
#if LGR_HAVE_AVX2
    if (lgr_cpu_flags() & LGR_CPU_AVX2) run = lgr_log_softmax_avx2;
#endif
#if LGR_HAVE_AVX512VNNI
    if (lgr_cpu_flags() & LGR_CPU_AVX512VNNI) run = lgr_log_softmax_avx512vnni;
#endif
    for (int64_t r = 0; r < rows; ++r) run(x + r * n, n, y + r * n);
    return LGR_OK;
}

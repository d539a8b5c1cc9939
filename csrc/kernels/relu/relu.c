/* relu.c - checks, dispatch and the scalar reference. */
#include "kernels/relu/relu_isa.h"
#include "kernels/relu/relu_one.h"
#include "lgr/cpu.h"

/* Elements [from, n). `from` is a multiple of 8. */
static void relu_ref(const void *x, int64_t from, int64_t n, int32_t bytes, float inv, int64_t high,
                     void *codes, float *value, uint8_t *mask)
{
    for (int64_t i = from; i < n; ++i) {
        const int32_t v = (int32_t)lgr_code_at(x, bytes, i), q = lgr_relu_code(v, high);
        const unsigned pass = (unsigned)lgr_relu_passes(v, high);
        lgr_put_code(codes, bytes == 4, i, q);
        value[i] = (float)q * inv;
        if (mask == NULL) continue;
        if ((i & 7) == 0) mask[i >> 3] = 0;
        mask[i >> 3] = (uint8_t)(mask[i >> 3] | pass << (i & 7));
    }
}

lgr_status lgr_relu(const void *x, int64_t n, const struct lgr_relu_params *p, void *codes,
                    float *value, uint8_t *mask)
{
    if (p == NULL) return LGR_E_NULL;
    const int nan = p->exp2 == LGR_EXP2_NAN;
    if (n < 0 || (p->bytes != 1 && p->bytes != 4) || !(p->high > 0.0)) return LGR_E_RANGE;
    if (!nan && (p->exp2 < -LGR_EXP2_MAX || p->exp2 > LGR_EXP2_MAX)) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (x == NULL || codes == NULL || value == NULL) return LGR_E_NULL;

    const float inv = lgr_exp2_scale(nan ? p->exp2 : -p->exp2);
    const int64_t high = lgr_relu_limit(p->high, p->exp2);
    int64_t done = 0;
#if LGR_HAVE_AVX2
    if (p->bytes == 1 && lgr_cpu_flags() & LGR_CPU_AVX2) {
        const struct lgr_relu_consts c = {inv, high < 127 ? (int32_t)high : 127, high <= 127,
                                          p->stream};
        done = lgr_relu_s8_avx2(x, n, &c, codes, value, mask);
    }
#endif
    relu_ref(x, done, n, p->bytes, inv, high, codes, value, mask);
    return LGR_OK;
}

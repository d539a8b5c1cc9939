/* avg_pool.c - checks, dispatch and the scalar reference. */
#include "lgr/avg_pool.h"
#include "kernels/avg_pool/avg_pool_isa.h"
#include "kernels/avg_pool/avg_pool_one.h"
#include "lgr/cpu.h"

static void pixel_ref(const void *x, int64_t at, struct lgr_window win, int64_t from,
                      const struct lgr_avg_pool_params *p, lgr_divider v, float inv, void *codes,
                      float *value, int64_t to)
{
    for (int64_t ch = from; ch < p->c; ++ch) {
        int64_t sum = 0;
        for (int64_t i = 0; i < win.rows; ++i)
            for (int64_t j = 0; j < win.cols; ++j)
                sum += lgr_code_at(x, p->bytes, at + i * win.row_step + j * p->c + ch);
        const int32_t q = lgr_divide(sum, v);
        const int32_t code = p->bytes == 1 ? lgr_sat_s8(q) : q;
        lgr_put_code(codes, p->bytes == 4, to + ch, code);
        if (value) value[to + ch] = (float)code * inv;
    }
}

lgr_status lgr_avg_pool(const void *x, const struct lgr_avg_pool_params *p, int64_t from,
                        int64_t to, void *codes, float *value)
{
    if (p == NULL) return LGR_E_NULL;
    if (!lgr_avg_pool_valid(p) || from < 0 || to < from || to > p->n) return LGR_E_RANGE;
    const int64_t pixels = p->oh * p->ow, image = p->h * p->w * p->c;
    if (from == to || pixels * p->c == 0) return LGR_OK;
    if ((x == NULL && image > 0) || codes == NULL) return LGR_E_NULL;

    const int nan = p->exp2 == LGR_EXP2_NAN;
    const float inv = nan ? 0.0f : lgr_exp2_scale(-p->exp2);
    const lgr_divider v = lgr_pool_divider(p);
#if LGR_HAVE_AVX2
    const int fast =
        p->bytes == 1 && p->c >= 8 && p->kh * p->kw <= 1 << 14 && (lgr_cpu_flags() & LGR_CPU_AVX2);
#endif
    for (int64_t n = from; n < to; ++n)
        for (int64_t px = 0; px < pixels; ++px) {
            const lgr_pool_part part = lgr_pool_window(p, px);
            const struct lgr_window win = {part.rows, part.cols, p->w * p->c};
            const int64_t at = part.rows ? n * image + (part.y * p->w + part.x) * p->c : 0;
            const int64_t out = (n * pixels + px) * p->c;
            if (nan) {
                memset((char *)codes + out * p->bytes, 0, (size_t)(p->c * p->bytes));
                for (int64_t ch = 0; value && ch < p->c; ++ch)
                    value[out + ch] = lgr_exp2_scale(LGR_EXP2_NAN);
                continue;
            }
            int64_t done = 0;
#if LGR_HAVE_AVX2
            if (fast)
                done = lgr_avg_pool_s8_avx2((const int8_t *)x + at, win, p->c, v, inv,
                                            (int8_t *)codes + out, value ? value + out : NULL);
#endif
            pixel_ref(x, at, win, done, p, v, inv, codes, value, out);
        }
    return LGR_OK;
}

/* avg_pool.c - checks, dispatch and the scalar reference. */
#include "lgr/avg_pool.h"
#include "kernels/avg_pool/avg_pool_isa.h"
#include "lgr/cpu.h"

static int64_t load(const void *codes, int32_t bytes, int64_t i)
{
    return bytes == 1 ? ((const int8_t *)codes)[i] : ((const int32_t *)codes)[i];
}

static void pixel_ref(const void *x, int64_t at, struct lgr_window win, int64_t from,
                      const struct lgr_avg_pool_params *p, lgr_divider v, float inv, void *codes,
                      float *value, int64_t to)
{
    for (int64_t ch = from; ch < p->c; ++ch) {
        int64_t sum = 0;
        for (int64_t i = 0; i < win.rows; ++i)
            for (int64_t j = 0; j < win.cols; ++j)
                sum += load(x, p->bytes, at + i * win.row_step + j * p->c + ch);
        const int32_t q = lgr_divide(sum, v);
        if (p->bytes == 1) ((int8_t *)codes)[to + ch] = lgr_sat_s8(q);
        else ((int32_t *)codes)[to + ch] = q;
        if (value) value[to + ch] = (float)(p->bytes == 1 ? lgr_sat_s8(q) : q) * inv;
    }
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static int bad(const struct lgr_avg_pool_params *p, int64_t from, int64_t to)
{
    if (p->n < 0 || p->h < 0 || p->w < 0 || p->c < 0 || p->oh < 0 || p->ow < 0) return 1;
    if (p->kh < 1 || p->kw < 1 || p->sh < 1 || p->sw < 1 || p->pad_top < 0 || p->pad_left < 0)
        return 1;
    if ((int64_t)p->kh * p->kw > LGR_DIVISOR_MAX || (p->bytes != 1 && p->bytes != 4)) return 1;
    if (p->exp2 != LGR_EXP2_NAN && (p->exp2 < -LGR_EXP2_MAX || p->exp2 > LGR_EXP2_MAX)) return 1;
    return from < 0 || to < from || to > p->n;
}

lgr_status lgr_avg_pool(const void *x, const struct lgr_avg_pool_params *p, int64_t from,
                        int64_t to, void *codes, float *value)
{
    if (p == NULL) return LGR_E_NULL;
    if (bad(p, from, to)) return LGR_E_RANGE;
    const int64_t pixels = p->oh * p->ow, image = p->h * p->w * p->c;
    if (from == to || pixels * p->c == 0) return LGR_OK;
    if ((x == NULL && image > 0) || codes == NULL) return LGR_E_NULL;

    const int nan = p->exp2 == LGR_EXP2_NAN;
    const float inv = nan ? 0.0f : lgr_exp2_scale(-p->exp2);
    const lgr_divider v = lgr_make_divider(p->kh * p->kw);
#if LGR_HAVE_AVX2
    const int fast =
        p->bytes == 1 && p->c >= 8 && p->kh * p->kw <= 1 << 14 && (lgr_cpu_flags() & LGR_CPU_AVX2);
#endif
    for (int64_t n = from; n < to; ++n)
        for (int64_t px = 0; px < pixels; ++px) {
            const int64_t top = px / p->ow * p->sh - p->pad_top,
                          left = px % p->ow * p->sw - p->pad_left;
            const int64_t y0 = top > 0 ? top : 0, x0 = left > 0 ? left : 0;
            const int64_t rows = smaller(top + p->kh, p->h) - y0,
                          cols = smaller(left + p->kw, p->w) - x0;
            const struct lgr_window win = {rows > 0 && cols > 0 ? rows : 0, cols > 0 ? cols : 0,
                                           p->w * p->c};
            const int64_t at = win.rows ? n * image + (y0 * p->w + x0) * p->c : 0;
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

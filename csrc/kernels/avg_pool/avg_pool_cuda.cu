/* avg_pool_cuda.cu - one result per thread; neighbours of a warp are channels or pixels that lie side by side. */
#include "kernels/avg_pool/avg_pool_one.h"
#include "kernels/cuda/flat.h"
#include "lgr/avg_pool_cuda.h"

namespace {
struct pooled {
    const void *x;
    struct lgr_avg_pool_params p;
    lgr_divider v;
    const float *scale;
    void *codes;
    float *value;
    __device__ int32_t start() const { return scale ? lgr_scale_exp2(*scale) : p.exp2; }
    __device__ void operator()(int32_t e, int64_t i) const
    {
        const int64_t pixels = p.oh * p.ow, ch = i % p.c, px = i / p.c % pixels,
                      image = i / p.c / pixels * p.h * p.w;
        const lgr_pool_part w = lgr_pool_window(&p, px);
        int64_t sum = 0;
        for (int64_t r = 0; r < w.rows; ++r)
            for (int64_t s = 0; s < w.cols; ++s)
                sum += lgr_code_at(x, p.bytes, (image + (w.y + r) * p.w + w.x + s) * p.c + ch);
        const bool nan = e == LGR_EXP2_NAN;
        const int32_t q = lgr_divide(sum, v), code = nan ? 0 : p.bytes == 1 ? lgr_sat_s8(q) : q;
        lgr_put_code(codes, p.bytes == 4, i, code);
        if (value) value[i] = nan ? lgr_exp2_scale(e) : (float)code * lgr_exp2_scale(-e);
    }
};
} // namespace

extern "C" lgr_status lgr_avg_pool_cuda(const void *x, const struct lgr_avg_pool_params *p,
                                        const float *scale, void *codes, float *value, void *stream)
{
    if (p == NULL) return LGR_E_NULL;
    if (!lgr_avg_pool_valid(p)) return LGR_E_RANGE;
    const int64_t n = p->n * p->oh * p->ow * p->c;
    if (n > 0 && (codes == NULL || (x == NULL && p->h * p->w > 0))) return LGR_E_NULL;
    return lgr::flat(pooled{x, *p, lgr_pool_divider(p), scale, codes, value}, n, stream);
}

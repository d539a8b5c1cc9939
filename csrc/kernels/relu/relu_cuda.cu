/* relu_cuda.cu - one element per thread, masks by ballot. */
#include "kernels/cuda/flat.h"
#include "kernels/relu/relu_one.h"
#include "lgr/relu_cuda.h"

namespace {
struct bounded {
    const void *x;
    int32_t bytes;
    double high;
    const float *scale;
    void *codes;
    float *value;
    struct kept {
        int32_t exp2;
        int64_t limit;
    };
    __device__ kept start() const
    {
        const int32_t e = lgr_scale_exp2(*scale);
        return {e, lgr_relu_limit(high, e)};
    }
    __device__ int operator()(const kept &k, int64_t i) const
    {
        const bool nan = k.exp2 == LGR_EXP2_NAN;
        const int32_t v = (int32_t)lgr_code_at(x, bytes, i), q = lgr_relu_code(v, k.limit);
        lgr_put_code(codes, bytes == 4, i, q);
        value[i] = nan ? lgr_exp2_scale(LGR_EXP2_NAN) : (float)q * lgr_exp2_scale(-k.exp2);
        return lgr_relu_passes(v, k.limit);
    }
};
} // namespace

extern "C" lgr_status lgr_relu_cuda(const void *x, int64_t n, const struct lgr_relu_params *p,
                                    const float *scale, void *codes, float *value, uint8_t *mask,
                                    void *stream)
{
    if (p == NULL || scale == NULL) return LGR_E_NULL;
    if (n < 0 || (p->bytes != 1 && p->bytes != 4) || !(p->high > 0.0)) return LGR_E_RANGE;
    if (n > 0 && (x == NULL || codes == NULL || value == NULL)) return LGR_E_NULL;
    return lgr::flat_mask(bounded{x, p->bytes, p->high, scale, codes, value}, n, mask, stream);
}

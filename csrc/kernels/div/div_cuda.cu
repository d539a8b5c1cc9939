/* div_cuda.cu - one reciprocal per element. */
#include "kernels/cuda/flat.h"
#include "kernels/div/div_one.h"
#include "lgr/div_cuda.h"

namespace {
struct shifted {
    const int32_t *x, *y;
    int32_t shift;
    int32_t *quotient;
    __device__ lgr::nothing_kept start() const { return {}; }
    __device__ void operator()(lgr::nothing_kept, int64_t i) const
    {
        quotient[i] = lgr_div_one(x[i], y[i], shift);
    }
};
struct scaled {
    const int32_t *x, *y;
    const float *x_scale, *y_scale, *out_scale;
    int32_t *quotient;
    float *value;
    struct kept {
        int32_t shift;
        float inv; /* NaN: there is no quotient */
    };
    __device__ kept start() const
    {
        const int32_t ex = lgr_scale_exp2(*x_scale), ey = lgr_scale_exp2(*y_scale),
                      eo = lgr_scale_exp2(*out_scale);
        const bool nan = lgr_sum_exp2(lgr_sum_exp2(ex, ey), eo) == LGR_EXP2_NAN;
        const int32_t shift = nan ? 0 : eo - ex + ey;
        return {shift, lgr_exp2_scale(nan || shift < 0 || shift > 62 ? LGR_EXP2_NAN : -eo)};
    }
    __device__ void operator()(const kept &k, int64_t i) const
    {
        const bool none = k.inv != k.inv;
        quotient[i] = none ? 0 : lgr_div_one(x[i], y[i], k.shift);
        value[i] = none ? k.inv : (float)quotient[i] * k.inv;
    }
};
} // namespace

extern "C" lgr_status lgr_div_s32_cuda(const int32_t *x, const int32_t *y, int64_t n, int32_t shift,
                                       int32_t *quotient, void *stream)
{
    if (n < 0 || shift < 0 || shift > 62) return LGR_E_RANGE;
    if (n > 0 && (x == NULL || y == NULL || quotient == NULL)) return LGR_E_NULL;
    return lgr::flat(shifted{x, y, shift, quotient}, n, stream);
}
extern "C" lgr_status lgr_div_scales_cuda(const int32_t *x, const int32_t *y, int64_t n,
                                          const float *x_scale, const float *y_scale,
                                          const float *out_scale, int32_t *quotient, float *value,
                                          void *stream)
{
    if (n < 0) return LGR_E_RANGE;
    if (!x_scale || !y_scale || !out_scale || (n > 0 && (!x || !y || !quotient || !value)))
        return LGR_E_NULL;
    return lgr::flat(scaled{x, y, x_scale, y_scale, out_scale, quotient, value}, n, stream);
}

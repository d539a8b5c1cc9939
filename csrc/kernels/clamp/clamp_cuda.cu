/* clamp_cuda.cu - the clamp, and the limit that follows from the mean. */
#include "kernels/clamp/clamp_one.h"
#include "kernels/cuda/flat.h"
#include "lgr/clamp_cuda.h"

namespace {
struct clamped {
    const float *x;
    float limit;
    const float *limit_at;
    float *y;
    __device__ float start() const
    {
        const float l = limit_at ? *limit_at : limit;
        return l != l ? INFINITY : l;
    }
    __device__ int operator()(float l, int64_t i) const
    {
        const float v = x[i];
        y[i] = lgr_clamp_one(v, l);
        return lgr_clamp_passes(v, l);
    }
};
struct magnitudes {
    const float *x;
    __device__ lgr::nothing_kept start() const { return {}; }
    __device__ double operator()(lgr::nothing_kept, int64_t i) const { return (double)fabsf(x[i]); }
};
__global__ void mean_limit(const double *parts, int64_t n_parts, int64_t n, double factor,
                           float *limit)
{
    *limit = lgr_mean_limit_one(parts, n_parts, n, factor);
}
} // namespace

extern "C" lgr_status lgr_clamp_f32_cuda(const float *x, int64_t n, float limit,
                                         const float *limit_at, float *y, uint8_t *mask,
                                         void *stream)
{
    if (n < 0 || (limit_at == NULL && !(limit >= 0.0f))) return LGR_E_RANGE;
    if (n > 0 && (x == NULL || y == NULL)) return LGR_E_NULL;
    return lgr::flat_mask(clamped{x, limit, limit_at, y}, n, mask, stream);
}

extern "C" lgr_status lgr_mean_limit_cuda(const float *x, int64_t n, double factor, double *parts,
                                          int64_t n_parts, float *limit, void *stream)
{
    if (n < 0 || n_parts < 0 || (x && n_parts != lgr::sum_parts(n))) return LGR_E_RANGE;
    if (limit == NULL || (n_parts > 0 && parts == NULL)) return LGR_E_NULL;
    const lgr_status s = x ? lgr::sums(magnitudes{x}, n, parts, stream) : LGR_OK;
    return s == LGR_OK ? lgr::launch(mean_limit, 1, 1, stream, parts, n_parts, n, factor, limit)
                       : s;
}

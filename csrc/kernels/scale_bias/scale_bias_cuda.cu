/* scale_bias_cuda.cu - one element per thread. */
#include "kernels/cuda/flat.h"
#include "lgr/scale_bias_cuda.h"

namespace {
struct scaled {
    const int8_t *x, *w;
    const int32_t *b;
    int64_t c, inner;
    int32_t shift;
    int8_t *out;
    __device__ lgr::nothing_kept start() const { return {}; }
    __device__ void operator()(lgr::nothing_kept, int64_t i) const
    {
        const int64_t ch = i / inner % c;
        out[i] = lgr_scale_bias_one(x[i], w[ch], b[ch], shift);
    }
};
} // namespace

extern "C" lgr_status lgr_scale_bias_s8_s8_cuda(const int8_t *x, const int8_t *w, const int32_t *b,
                                                int64_t outer, int64_t c, int64_t inner,
                                                int32_t shift, int8_t *out, void *stream)
{
    if (outer < 0 || c < 0 || inner < 0 || shift < -63 || shift > 63) return LGR_E_RANGE;
    const int64_t n = outer * c * inner;
    if (n > 0 && (x == NULL || w == NULL || b == NULL || out == NULL)) return LGR_E_NULL;
    return lgr::flat(scaled{x, w, b, c, inner, shift, out}, n, stream);
}

/* mul_cuda.cu - products, exact in 64 bits. */
#include "kernels/cuda/quantized.h"
#include "lgr/mul_cuda.h"

namespace {
struct products {
    const void *x, *y;
    int32_t bytes;
    __device__ lgr::nothing_kept start() const { return {}; }
    __device__ int64_t operator()(lgr::nothing_kept, int64_t i) const
    {
        return lgr_code_at(x, bytes, i) * lgr_code_at(y, bytes, i);
    }
};
} // namespace

extern "C" lgr_status lgr_mul_cuda(const void *x, const void *y, int32_t bytes,
                                   const lgr_output_cuda *q, void *stream)
{
    if (q == NULL || (q->o > 0 && (x == NULL || y == NULL))) return LGR_E_NULL;
    if (bytes != 1 && bytes != 4) return LGR_E_RANGE;
    return lgr::flat_quantized(*q, products{x, y, bytes}, stream);
}

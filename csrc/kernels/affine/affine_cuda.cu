/* affine_cuda.cu - x * w + b; the addend is quantized where it is. */
#include "kernels/affine/affine_one.h"
#include "kernels/cuda/flat.h"
#include "kernels/cuda/quantized.h"
#include "lgr/affine_cuda.h"

namespace {
struct addend {
    const float *b, *x_scale;
    int32_t w_exp2;
    __device__ int32_t at(int64_t i) const
    {
        return lgr_affine_bias_one(b[i], lgr_sum_exp2(lgr_scale_exp2(*x_scale), w_exp2));
    }
};
struct sums {
    const int8_t *x;
    int32_t w;
    addend b;
    __device__ int32_t start() const { return b.at(0); }
    __device__ int64_t operator()(int32_t bias, int64_t i) const { return x[i] * w + bias; }
};
struct codes_alone {
    addend b;
    int32_t *codes;
    __device__ lgr::nothing_kept start() const { return {}; }
    __device__ void operator()(lgr::nothing_kept, int64_t i) const { codes[i] = b.at(i); }
};
} // namespace

extern "C" lgr_status lgr_affine_cuda(const int8_t *x, int32_t w, const lgr_output_cuda *q,
                                      void *stream)
{
    if (q == NULL || q->scale_a == NULL || q->number == NULL || (q->o > 0 && x == NULL))
        return LGR_E_NULL;
    if (w < -128 || w > 127) return LGR_E_RANGE;
    return lgr::flat_quantized(*q, sums{x, w, {q->number, q->scale_a, q->exp2}}, stream);
}
extern "C" lgr_status lgr_affine_bias_cuda(const float *b, int64_t n, const float *x_scale,
                                           int32_t w_exp2, int32_t *codes, void *stream)
{
    if (n < 0) return LGR_E_RANGE;
    if (x_scale == NULL || (n > 0 && (b == NULL || codes == NULL))) return LGR_E_NULL;
    return lgr::flat(codes_alone{{b, x_scale, w_exp2}, codes}, n, stream);
}

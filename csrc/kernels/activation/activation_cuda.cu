/* activation_cuda.cu - the chip's function of every element, and the slope of the exact one. */
#include "kernels/activation/activation_one.h"
#include "kernels/cuda/flat.h"
#include "kernels/cuda/quantized.h"
#include "lgr/chip_functions_cuda.h"

namespace {
struct curve {
    lgr_pwl table;
    const void *x;
    const float *x_scale;
    int32_t bytes, exp2, width;
    __device__ int32_t start() const { return x_scale ? lgr_scale_exp2(*x_scale) : exp2; }
    __device__ int64_t operator()(int32_t e, int64_t i) const
    {
        const int32_t code = (int32_t)lgr_code_at(x, bytes, i);
        return lgr_pwl_bits_one(&table, width, lgr_table_operand(&table, code, e));
    }
};

/* Slopes of the 256 codes of int8; wider operands compute their own. */
struct slopes {
    int32_t table, bytes;
    const float *g;
    const void *x;
    const float *x_scale;
    float *dx;
    using all = float[256];
    struct kept {
        const float *look;
        int32_t exp2;
    };
    __device__ float of(int64_t code, int32_t exp2) const
    {
        return exp2 == LGR_EXP2_NAN
                   ? 0.0f
                   : (float)lgr_activation_slope_one(table, (double)code * lgr_exp2_f64(-exp2));
    }
    __device__ kept start() const
    {
        LGR_SHARED(all, look);
        const int32_t e = lgr_scale_exp2(*x_scale);
        if (bytes == 1) look[threadIdx.x] = of((int)threadIdx.x - 128, e);
        __syncthreads();
        return {look, e};
    }
    __device__ void operator()(const kept &k, int64_t i) const
    {
        const int64_t code = lgr_code_at(x, bytes, i);
        const float slope = bytes == 1 ? k.look[code + 128] : of(code, k.exp2);
        dx[i] = k.exp2 == LGR_EXP2_NAN ? 0.0f : g[i] * slope;
    }
};
static_assert(lgr::FLAT == 256, "one thread for each code");
} // namespace

extern "C" lgr_status lgr_activation_cuda(int table, int width, const void *x, int32_t bytes,
                                          const float *x_scale, int32_t exp2,
                                          const lgr_output_cuda *q, void *stream)
{
    if (q == NULL || (q->o > 0 && x == NULL)) return LGR_E_NULL;
    if (!lgr_chip_function_has(table, width) || (bytes != 1 && bytes != 4)) return LGR_E_RANGE;
    return lgr::flat_quantized(*q, curve{lgr_chip_tables[table], x, x_scale, bytes, exp2, width},
                               stream);
}

extern "C" lgr_status lgr_activation_grad_cuda(int table, const float *g, const void *x,
                                               int32_t bytes, const float *x_scale, int64_t n,
                                               float *dx, void *stream)
{
    if (n < 0 || table < 0 || table >= LGR_N_TABLES || (bytes != 1 && bytes != 4))
        return LGR_E_RANGE;
    if (x_scale == NULL || (n > 0 && (g == NULL || x == NULL || dx == NULL))) return LGR_E_NULL;
    return lgr::flat(slopes{table, bytes, g, x, x_scale, dx}, n, stream);
}

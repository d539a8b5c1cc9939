/* glu_cuda.cu - every block looks its gates up: 256 values in shared memory. */
#include "kernels/cuda/flat.h"
#include "kernels/cuda/quantized.h"
#include "kernels/glu/glu_one.h"
#include "lgr/chip_functions_cuda.h"

namespace {
struct gated {
    lgr_pwl table;
    const int8_t *x;
    const float *x_scale;
    int64_t half;
    int32_t chip, exp2, left;
    using all = int32_t[256];
    __device__ const int32_t *start() const
    {
        LGR_SHARED(all, gate);
        const int32_t e = x_scale ? lgr_scale_exp2(*x_scale) : exp2;
        gate[threadIdx.x] =
            e == LGR_EXP2_NAN ? 0 : lgr_glu_gate(chip, &table, (int)threadIdx.x - 128, e);
        __syncthreads();
        return gate;
    }
    __device__ int64_t operator()(const int32_t *gate, int64_t i) const
    {
        const int8_t *a = x + i / half * 2 * half + i % half;
        return lgr_glu_product(*a, left, gate[a[half] + 128]);
    }
};

struct gradients { /* element i of g */
    const float *g;
    const int8_t *x;
    const float *x_scale;
    int64_t half;
    float *dx;
    using both = float[512];
    struct kept {
        const float *gate;
        int32_t exp2;
    };
    __device__ kept start() const
    {
        LGR_SHARED(both, gate);
        const int32_t e = lgr_scale_exp2(*x_scale);
        const double one = e == LGR_EXP2_NAN ? 0.0 : lgr_exp2_f64(-e),
                     v = ((int)threadIdx.x - 128) * one;
        gate[threadIdx.x] = (float)lgr_activation_value_one(LGR_ARCS_SIGMOID, v);
        gate[256 + threadIdx.x] = (float)lgr_activation_slope_one(LGR_ARCS_SIGMOID, v);
        __syncthreads();
        return {gate, e};
    }
    __device__ void operator()(const kept &k, int64_t i) const
    {
        const int64_t at = i / half * 2 * half + i % half;
        const int32_t a = x[at], b = x[at + half] + 128;
        const bool nan = k.exp2 == LGR_EXP2_NAN;
        const float v = nan ? 0.0f : g[i];
        const double one = nan ? 0.0 : lgr_exp2_f64(-k.exp2);
        dx[at] = v * k.gate[b];
        dx[at + half] = v * (lgr_glu_value(a, one) * k.gate[256 + b]);
    }
};
static_assert(lgr::FLAT == 256, "one thread for each code");
} // namespace

extern "C" lgr_status lgr_glu_cuda(int chip, const int8_t *x, const float *x_scale, int32_t exp2,
                                   int64_t half, int left, const lgr_output_cuda *q, void *stream)
{
    if (q == NULL || (q->o > 0 && x == NULL)) return LGR_E_NULL;
    if (chip < LGR_ARCS || chip > LGR_VENUS || left < 0 || left > 31) return LGR_E_RANGE;
    if (half < 1 ? q->o > 0 : q->o % half != 0) return LGR_E_RANGE;
    return lgr::flat_quantized(
        *q, gated{lgr_chip_tables[lgr_glu_table(chip)], x, x_scale, half, chip, exp2, left},
        stream);
}

extern "C" lgr_status lgr_glu_grad_cuda(const float *g, const int8_t *x, const float *x_scale,
                                        int64_t rows, int64_t half, float *dx, void *stream)
{
    if (rows < 0 || half < 0) return LGR_E_RANGE;
    if (x_scale == NULL || (rows * half > 0 && (g == NULL || x == NULL || dx == NULL)))
        return LGR_E_NULL;
    return lgr::flat(gradients{g, x, x_scale, half, dx}, rows * half, stream);
}

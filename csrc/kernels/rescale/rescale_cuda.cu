/* rescale_cuda.cu - codes to another scale; the largest magnitude of several tensors and the scale that follows. */
#include "kernels/cuda/flat.h"
#include "kernels/rescale/rescale_one.h"
#include "lgr/rescale_cuda.h"

namespace {
struct rescaled {
    const void *x;
    struct lgr_rescale_params p;
    const float *x_scale, *scale;
    struct lgr_quantize_out out;
    __device__ struct lgr_rescale_params start() const
    {
        struct lgr_rescale_params q = p;
        q.exp2_x = lgr_scale_exp2(*x_scale);
        q.exp2 = q.exp2_x == LGR_EXP2_NAN ? q.exp2_x : lgr_scale_exp2(*scale);
        return q;
    }
    __device__ int operator()(const struct lgr_rescale_params &q, int64_t i) const
    {
        struct lgr_rescaled e = {0, lgr_exp2_scale(LGR_EXP2_NAN), 0.0f, 0};
        if (q.exp2 != LGR_EXP2_NAN) e = lgr_rescale_one(lgr_code_at(x, p.bytes, i), &q);
        if (out.value) out.value[i] = e.value;
        if (out.codes) lgr_put_code(out.codes, p.bits > 8, i, e.code);
        if (out.slope) out.slope[i] = e.slope;
        return e.pass;
    }
};

struct seen { /* the scratch, zeroed: maxima */
    long long peak; /* bits of a float64 >= 0: ordered as integers */
    int32_t low, high; /* LGR_EXP2_MAX - exponent, LGR_EXP2_MAX + exponent */
    int32_t nan;
};
static_assert(sizeof(seen) <= LGR_CAT_CUDA_SCRATCH, "scratch size is part of the contract");

__global__ void __launch_bounds__(lgr::FLAT)
    operand(const void *x, int32_t bytes, int64_t n, const float *x_scale, seen *s)
{
    const int32_t e = lgr_scale_exp2(*x_scale);
    const int64_t step = (int64_t)gridDim.x * lgr::FLAT;
    long long top = 0;
    for (int64_t i = (int64_t)blockIdx.x * lgr::FLAT + threadIdx.x; i < n; i += step) {
        const int64_t v = lgr_code_at(x, bytes, i), m = v < 0 ? -v : v;
        top = m > top ? m : top;
    }
    top = lgr::warp_max(top);
    if ((threadIdx.x & 31) != 0) return;
    if (e == LGR_EXP2_NAN) {
        atomicMax(&s->nan, 1);
        return;
    }
    const double real = (double)top * lgr_exp2_f64(-e);
    long long bits;
    memcpy(&bits, &real, sizeof bits);
    atomicMax(&s->peak, bits);
    atomicMax(&s->low, LGR_EXP2_MAX - e);
    atomicMax(&s->high, LGR_EXP2_MAX + e);
}
__global__ void finish(lgr_stats state, lgr_cat_params p, float *scale_now, float *moves,
                       const seen *s)
{
    double peak;
    memcpy(&peak, &s->peak, sizeof peak);
    const lgr_cat_operands in = {LGR_EXP2_MAX - s->low, s->high - LGR_EXP2_MAX, s->nan,
                                 (float)peak};
    *scale_now = lgr_exp2_scale(lgr_cat_step(&state, &p, &in, moves));
}
} // namespace

extern "C" lgr_status lgr_rescale_cuda(const void *x, int64_t n, const struct lgr_rescale_params *p,
                                       const float *x_scale, const float *scale,
                                       const struct lgr_quantize_out *out, void *stream)
{
    if (p == NULL || out == NULL || x_scale == NULL || scale == NULL || (n > 0 && x == NULL))
        return LGR_E_NULL;
    if (n < 0 || p->bits < 2 || p->bits > 32 || (p->bytes != 1 && p->bytes != 4) ||
        p->rounding < LGR_FLOOR || p->rounding > LGR_CEIL)
        return LGR_E_RANGE;
    return lgr::flat_mask(rescaled{x, *p, x_scale, scale, *out}, n, out->mask, stream);
}

extern "C" lgr_status lgr_cat_begin_cuda(void *scratch, void *stream)
{
    if (scratch == NULL) return LGR_E_NULL;
    return lgr::clear(scratch, sizeof(seen), stream);
}
extern "C" lgr_status lgr_cat_operand_cuda(const void *x, int32_t bytes, int64_t n,
                                           const float *x_scale, void *scratch, void *stream)
{
    if (x_scale == NULL || scratch == NULL || (n > 0 && x == NULL)) return LGR_E_NULL;
    if (n < 0 || (bytes != 1 && bytes != 4)) return LGR_E_RANGE;
    return lgr::launch(operand, n > 0 ? lgr::blocks_for(n, lgr::FLAT) : 1, lgr::FLAT, stream, x,
                       bytes, n, x_scale, (seen *)scratch);
}
extern "C" lgr_status lgr_cat_end_cuda(const lgr_stats *state, const lgr_cat_params *p,
                                       float *scale_now, float *moves, void *scratch, void *stream)
{
    if (state == NULL || p == NULL || scale_now == NULL || moves == NULL || scratch == NULL)
        return LGR_E_NULL;
    if (p->bits < 2 || p->bits > 32 || p->left < 0 || p->left > 63) return LGR_E_RANGE;
    return lgr::launch(finish, 1, 1, stream, *state, *p, scale_now, moves, (const seen *)scratch);
}

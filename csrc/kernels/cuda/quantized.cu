/* quantized.cu - the steps between the passes of quantized.h. */
#include "kernels/cuda/quantized.h"
#include "kernels/quantize/quantize_one.h"

namespace {
enum { THREADS = 256 };

__device__ void make(const lgr_output_cuda &q, lgr::plan *d, int32_t exp2)
{
    const lgr_epilogue_spec spec = {d->acc, exp2, q.bits, q.rounding, q.relu, q.sat32, q.clamp};
    if (lgr_epilogue_make_one(&spec, &d->ep) != LGR_OK) d->nan = 1;
}
/* The exponent of the sums, LGR_EXP2_NAN where an operand is NaN. */
__device__ int32_t exponent(const lgr_output_cuda &q)
{
    const int32_t a = q.scale_a ? lgr_scale_exp2(*q.scale_a) : 0,
                  b = q.scale_b ? lgr_scale_exp2(*q.scale_b) : 0, sum = lgr_sum_exp2(a, b);
    if (sum == LGR_EXP2_NAN || (q.number && *q.number != *q.number)) return LGR_EXP2_NAN;
    if (q.watched && lgr_scale_exp2(*q.watched) == LGR_EXP2_NAN) return LGR_EXP2_NAN;
    const int32_t acc = sum + q.exp2;
    return acc < -LGR_EXP2_MAX && !q.fixed ? LGR_EXP2_NAN : acc;
}

/* One block. */
__global__ void begin(lgr_output_cuda q)
{
    LGR_SHARED(int32_t, nan);
    const int32_t acc = exponent(q);
    if (threadIdx.x == 0) nan = acc == LGR_EXP2_NAN;
    __syncthreads();
    for (int64_t i = threadIdx.x; q.bias && i < q.o; i += blockDim.x) {
        q.bias_codes[i] = lgr_bias_code(q.bias[i], acc);
        if (q.bias[i] != q.bias[i]) atomicMax(&nan, 1);
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    lgr::plan *d = lgr::plan_of(q);
    d->amax[0] = d->amax[1] = 0;
    d->nan = nan;
    d->acc = nan ? 0 : acc;
    d->done = d->flat = d->peak_only = 0;
    if (q.fixed) {
        if (q.scale_now) *q.scale_now = lgr_exp2_scale(nan ? LGR_EXP2_NAN : q.out_exp2);
        return make(q, d, q.out_exp2);
    }
    d->guess = lgr_stats_guess(&q.state, q.bits, d->acc);
    d->peak_only = d->guess == LGR_EXP2_NONE || d->guess == LGR_EXP2_NAN;
    d->flat = q.state.threshold && !lgr_threshold_moves(*q.state.threshold, q.bits, d->acc);
    make(q, d, !d->peak_only ? d->guess : d->acc < LGR_EXP2_MAX ? d->acc : LGR_EXP2_MAX);
}

__global__ void decide(lgr_output_cuda q)
{
    lgr::plan *d = lgr::plan_of(q);
    const float peak =
        d->nan ? lgr_exp2_scale(LGR_EXP2_NAN) : lgr_epilogue_peak_one(&d->ep, d->acc, d->amax);
    const int32_t cap = d->nan ? LGR_EXP2_MAX : d->acc,
                  now = lgr_stats_step(&q.state, q.bits, cap, q.observe, peak);
    *q.scale_now = lgr_exp2_scale(now);
    d->done = d->nan || (now == d->guess && !d->peak_only);
    if (now == LGR_EXP2_NAN) d->nan = 1;
    else if (!d->done) make(q, d, now);
}
} // namespace

extern "C" lgr_status lgr_output_cuda_check(const lgr_output_cuda *q)
{
    if (q == NULL || q->scratch == NULL || (q->bias && !q->bias_codes)) return LGR_E_NULL;
    if (q->o < 0 || q->bits < 2 || q->bits > 32 || !(q->clamp >= 0.0)) return LGR_E_RANGE;
    if (q->rounding < LGR_FLOOR || q->rounding > LGR_CEIL) return LGR_E_RANGE;
    if (q->fixed) {
        const lgr_epilogue_spec spec = {q->exp2, q->out_exp2, q->bits, q->rounding,
                                        q->relu, q->sat32,    q->clamp};
        lgr_epilogue ep;
        return lgr_epilogue_make_one(&spec, &ep);
    }
    return q->scale_now && q->state.is_init && q->state.scale && q->state.running ? LGR_OK
                                                                                  : LGR_E_NULL;
}
extern "C" lgr_status lgr_output_cuda_begin(const lgr_output_cuda *q, void *stream)
{
    return lgr::launch(begin, 1, THREADS, stream, *q);
}
extern "C" lgr_status lgr_output_cuda_decide(const lgr_output_cuda *q, void *stream)
{
    return lgr::launch(decide, 1, 1, stream, *q);
}

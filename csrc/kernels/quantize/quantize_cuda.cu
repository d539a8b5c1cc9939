/* quantize_cuda.cu - range, state and codes on the device: three launches, no host read. */
#include "kernels/cuda/device.h"
#include "kernels/quantize/quantize_one.h"
#include "lgr/mask.h"
#include "lgr/quantize_cuda.h"

namespace {
constexpr int kThreads = 256;

struct decided { /* the scratch: zeroed before the first launch */
    int32_t abs, max;
    int32_t exp2, no_slope;
};
static_assert(sizeof(decided) == LGR_QUANTIZE_CUDA_SCRATCH, "scratch size is part of the contract");

unsigned grid(int64_t n) { return lgr::blocks_for(n, kThreads); }

__global__ void find_range(const float *LGR_RESTRICT x, int64_t n, decided *to)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    int32_t abs = 0, max = 0;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        const int32_t bits = __float_as_int(x[i]), magnitude = bits & 0x7fffffff;
        abs = abs > magnitude ? abs : magnitude;
        max = max > bits ? max : bits;
    }
    abs = lgr::warp_max(abs);
    max = lgr::warp_max(max);
    if ((threadIdx.x & 31) == 0) {
        atomicMax(&to->abs, abs);
        atomicMax(&to->max, max);
    }
}

__global__ void decide(lgr_stats state, int32_t bits, int32_t relu, float clamp, int observe,
                       decided *d, float *scale)
{
    lgr_range range;
    range.abs = d->abs;
    range.max = d->max;
    d->exp2 =
        lgr_stats_step(&state, bits, LGR_EXP2_MAX, observe, lgr_range_peak(range, relu, clamp));
    d->no_slope = state.threshold && !lgr_threshold_moves(*state.threshold, bits, LGR_EXP2_MAX);
    *scale = lgr_exp2_scale(d->exp2);
}

__global__ void quantize(const float *LGR_RESTRICT x, int64_t n, lgr_quantize_params p,
                         lgr_quantize_out out, const decided *LGR_RESTRICT d)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x,
                  whole = (n + 31) / 32 * 32; /* full warps vote */
    p.exp2 = d->exp2;
    p.no_slope = d->no_slope;
    const bool nothing = p.exp2 == LGR_EXP2_NAN, wide = p.bits > 16;
    lgr_quantize_consts c = {};
    if (!nothing && !wide) c = lgr_quantize_make_consts(&p);
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < whole; i += step) {
        lgr_quantized q = lgr_quantize_nothing();
        if (i < n && !nothing)
            q = wide ? lgr_quantize_one_f64(x[i], &p) : lgr_quantize_one_f32(x[i], &c);
        const unsigned votes = __ballot_sync(~0u, q.pass);
        if (i >= n) continue;
        if (out.value) out.value[i] = q.value;
        if (out.codes && p.bits <= 8) ((int8_t *)out.codes)[i] = (int8_t)q.code;
        if (out.codes && p.bits > 8) ((int32_t *)out.codes)[i] = q.code;
        if (out.slope) out.slope[i] = q.slope;
        if (out.mask && (threadIdx.x & 7) == 0)
            out.mask[i >> 3] = (uint8_t)(votes >> (threadIdx.x & 31));
    }
}

__global__ void mask_grad(const float *LGR_RESTRICT grad, const uint8_t *LGR_RESTRICT mask,
                          int64_t n, int64_t row, int64_t row_bytes, float *out)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        const int64_t c = row ? i % row : i, at = row ? i / row * row_bytes : 0;
        out[i] = mask[at + (c >> 3)] >> (c & 7) & 1 ? grad[i] : 0.0f;
    }
}

/* One block of eight threads per part: the CPU's eight sums, in the CPU's order. */
__global__ void sum_parts(const float *LGR_RESTRICT grad, const float *LGR_RESTRICT slope,
                          int64_t n, double *parts)
{
    using eight = double[8];
    LGR_SHARED(eight, v);
    const int64_t from = (int64_t)blockIdx.x * LGR_SUM_BLOCK;
    const int64_t to = from + LGR_SUM_BLOCK < n ? from + LGR_SUM_BLOCK : n;
    double sum = 0.0;
    for (int64_t i = from + threadIdx.x; i < to; i += 8) sum += (double)grad[i] * (double)slope[i];
    v[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0)
        parts[blockIdx.x] = ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

__global__ void add_parts(const double *parts, int64_t n_parts, const float *scale, float *out)
{
    const int32_t e = lgr_scale_exp2(*scale);
    double sum = 0.0;
    for (int64_t i = 0; i < n_parts; ++i) sum += parts[i];
    *out = e == LGR_EXP2_NAN ? 0.0f : lgr_threshold_slope(sum, e);
}

} // namespace

extern "C" lgr_status lgr_quantize_state_f32_cuda(const float *x, int64_t n, const lgr_stats *state,
                                                  const struct lgr_quantize_params *p, int observe,
                                                  const struct lgr_quantize_out *out, float *scale,
                                                  void *scratch, void *stream)
{
    if (state == NULL || p == NULL || out == NULL || scale == NULL || scratch == NULL)
        return LGR_E_NULL;
    if (n < 0 || p->bits < 2 || p->bits > 32 || p->rounding < LGR_FLOOR || p->rounding > LGR_CEIL)
        return LGR_E_RANGE;
    if (n > 0 && x == NULL) return LGR_E_NULL;
    const cudaStream_t s = (cudaStream_t)stream;
    decided *const d = (decided *)scratch;
    if (cudaMemsetAsync(d, 0, sizeof *d, s) != cudaSuccess) return LGR_E_DEVICE;
    lgr_status r = n > 0 ? lgr::launch(find_range, grid(n), kThreads, stream, x, n, d) : LGR_OK;
    if (r == LGR_OK)
        r = lgr::launch(decide, 1, 1, stream, *state, p->bits, p->relu, p->clamp, observe && n > 0,
                        d, scale);
    if (r == LGR_OK && n > 0)
        r = lgr::launch(quantize, grid(n), kThreads, stream, x, n, *p, *out, d);
    return r;
}

extern "C" lgr_status lgr_mask_grad_f32_cuda(const float *grad, const uint8_t *mask, int64_t n,
                                             int64_t row, float *out, void *stream)
{
    if (n < 0 || row < 0 || (row > 0 && n % row != 0)) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (grad == NULL || mask == NULL || out == NULL) return LGR_E_NULL;
    return lgr::launch(mask_grad, grid(n), kThreads, stream, grad, mask, n, row,
                       lgr_mask_row_bytes(row), out);
}

extern "C" lgr_status lgr_threshold_grad_f32_cuda(const float *grad, const float *slope, int64_t n,
                                                  const float *scale, double *parts, float *out,
                                                  void *stream)
{
    if (n < 0 || n > (int64_t)LGR_SUM_BLOCK * 0x7fffffff) return LGR_E_RANGE;
    if (scale == NULL || out == NULL || (n > 0 && (grad == NULL || slope == NULL || parts == NULL)))
        return LGR_E_NULL;
    const int64_t blocks = (n + LGR_SUM_BLOCK - 1) / LGR_SUM_BLOCK;
    const lgr_status r =
        blocks > 0 ? lgr::launch(sum_parts, (unsigned)blocks, 8, stream, grad, slope, n, parts)
                   : LGR_OK;
    return r == LGR_OK ? lgr::launch(add_parts, 1, 1, stream, parts, blocks, scale, out) : r;
}

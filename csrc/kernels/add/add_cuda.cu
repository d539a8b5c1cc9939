/* add_cuda.cu - the guess, a pass with it, the state, and a second pass where the guess was wrong. */
#include "kernels/add/add_one.h"
#include "kernels/cuda/flat.h"
#include "kernels/quantize/quantize_one.h"
#include "lgr/add_cuda.h"

namespace {
struct plan { /* the scratch */
    struct lgr_add_consts c;
    lgr_range range;
    int32_t guess, nan, known, done;
};
static_assert(sizeof(plan) <= LGR_ADD_CUDA_SCRATCH, "scratch size is part of the contract");

__device__ int32_t cap_of(const struct lgr_add_params &p)
{
    return p.exp2_x < p.exp2_y ? p.exp2_x : p.exp2_y;
}
__device__ struct lgr_add_params with_scales(const lgr_add_cuda_job &j)
{
    struct lgr_add_params p = j.p;
    p.exp2_x = lgr_scale_exp2(*j.x_scale);
    p.exp2_y = lgr_scale_exp2(*j.y_scale);
    p.no_slope = j.state.threshold && !lgr_threshold_moves(*j.state.threshold, p.bits, cap_of(p));
    return p;
}
__global__ void begin(lgr_add_cuda_job j)
{
    plan *d = (plan *)j.scratch;
    struct lgr_add_params p = with_scales(j);
    d->range.abs = d->range.max = 0;
    d->nan = lgr_sum_exp2(p.exp2_x, p.exp2_y) == LGR_EXP2_NAN;
    d->done = 0;
    d->guess = d->nan ? LGR_EXP2_NONE : lgr_stats_guess(&j.state, p.bits, cap_of(p));
    d->known = d->guess != LGR_EXP2_NONE && d->guess != LGR_EXP2_NAN;
    p.exp2 = d->known ? d->guess : cap_of(p); /* else for the maximum alone */
    if (!d->nan) d->c = lgr_add_make_consts(&p);
}
__global__ void decide(lgr_add_cuda_job j)
{
    plan *d = (plan *)j.scratch;
    struct lgr_add_params p = with_scales(j);
    const float peak =
        d->nan ? lgr_exp2_scale(LGR_EXP2_NAN) : lgr_range_peak(d->range, p.relu, p.clamp);
    p.exp2 = lgr_stats_step(&j.state, p.bits, d->nan ? LGR_EXP2_MAX : cap_of(p), j.observe, peak);
    *j.scale_now = lgr_exp2_scale(p.exp2);
    d->done = d->nan || (d->known && p.exp2 == d->guess);
    if (p.exp2 == LGR_EXP2_NAN) d->nan = 1;
    else if (!d->done) d->c = lgr_add_make_consts(&p);
}

template <class P>
__device__ int put(const P &j, const struct lgr_add_consts &c, int64_t i, bool nan)
{
    const int64_t x = nan ? 0 : lgr_code_at(j.x, j.p.bytes, i),
                  y = nan ? 0 : lgr_code_at(j.y, j.p.bytes, i), t = nan ? 0 : lgr_add_sum(x, y, &c),
                  code = nan ? 0 : lgr_add_code(t, &c);
    if (j.out.value) j.out.value[i] = nan ? lgr_exp2_scale(LGR_EXP2_NAN) : (float)code * c.inv;
    if (j.out.codes) lgr_put_code(j.out.codes, j.p.bits > 8, i, code);
    if (j.out.slope) j.out.slope[i] = nan ? 0.0f : lgr_add_slope(t, lgr_add_exact(x, y, &c), &c);
    return !nan && lgr_add_passes(t, &c);
}
__global__ void __launch_bounds__(lgr::FLAT) pass(lgr_add_cuda_job j, int again)
{
    plan *d = (plan *)j.scratch;
    if (again && d->done) return;
    const bool nan = d->nan != 0, write = again || d->known || nan;
    const struct lgr_add_consts c = d->c;
    const int64_t step = (int64_t)gridDim.x * lgr::FLAT, whole = (j.n + 31) / 32 * 32;
    lgr_range r = {0, 0};
    for (int64_t i = (int64_t)blockIdx.x * lgr::FLAT + threadIdx.x; i < whole; i += step) {
        if (!again && !nan && i < j.n) {
            const int32_t bits = __float_as_int(
                lgr_add_exact(lgr_code_at(j.x, j.p.bytes, i), lgr_code_at(j.y, j.p.bytes, i), &c));
            const lgr_range one = {bits & 0x7fffffff, bits};
            r = lgr_range_merge(r, one);
        }
        const int vote = write && i < j.n && put(j, c, i, nan);
        const unsigned votes = __ballot_sync(~0u, vote);
        if (write && j.out.mask && i < j.n && (threadIdx.x & 7) == 0)
            j.out.mask[i >> 3] = (uint8_t)(votes >> (threadIdx.x & 31));
    }
    if (again) return;
    r.abs = lgr::warp_max(r.abs);
    r.max = lgr::warp_max(r.max);
    if ((threadIdx.x & 31) == 0) {
        atomicMax(&d->range.abs, r.abs);
        atomicMax(&d->range.max, r.max);
    }
}

struct codes_alone {
    const void *x, *y;
    struct lgr_add_params p;
    struct lgr_add_consts c;
    struct lgr_quantize_out out;
    __device__ lgr::nothing_kept start() const { return {}; }
    __device__ void operator()(lgr::nothing_kept, int64_t i) const { put(*this, c, i, false); }
};
struct requantized {
    const void *x;
    int32_t bytes, shift, bits;
    void *out;
    __device__ lgr::nothing_kept start() const { return {}; }
    __device__ void operator()(lgr::nothing_kept, int64_t i) const
    {
        lgr_put_code(out, bits > 8, i,
                     lgr_sat(lgr_shift_s64(lgr_code_at(x, bytes, i), shift), bits));
    }
};
bool bad(int64_t n, int32_t bits, int32_t bytes)
{
    return n < 0 || bits < 2 || bits > 32 || (bytes != 1 && bytes != 4);
}
} // namespace

extern "C" lgr_status lgr_add_cuda(const lgr_add_cuda_job *job, void *stream)
{
    if (job == NULL || job->x_scale == NULL || job->y_scale == NULL || job->scale_now == NULL ||
        job->scratch == NULL || (job->n > 0 && (job->x == NULL || job->y == NULL)))
        return LGR_E_NULL;
    if (bad(job->n, job->p.bits, job->p.bytes) || job->p.rounding < LGR_FLOOR ||
        job->p.rounding > LGR_CEIL)
        return LGR_E_RANGE;
    lgr_add_cuda_job j = *job;
    j.observe = j.observe && j.n > 0;
    const unsigned blocks = lgr::blocks_for(j.n, lgr::FLAT);
    lgr_status s = lgr::launch(begin, 1, 1, stream, j);
    if (s == LGR_OK && j.n > 0) s = lgr::launch(pass, blocks, lgr::FLAT, stream, j, 0);
    if (s == LGR_OK) s = lgr::launch(decide, 1, 1, stream, j);
    return s == LGR_OK && j.n > 0 ? lgr::launch(pass, blocks, lgr::FLAT, stream, j, 1) : s;
}

extern "C" lgr_status lgr_add_codes_cuda(const void *x, const void *y, int32_t bytes, int64_t n,
                                         int32_t shift_x, int32_t shift_y, int32_t bits,
                                         int32_t minus, void *out, void *stream)
{
    if (bad(n, bits, bytes) || shift_x < 0 || shift_x > 63 || shift_y < 0 || shift_y > 63)
        return LGR_E_RANGE;
    if (n > 0 && (x == NULL || y == NULL || out == NULL)) return LGR_E_NULL;
    codes_alone f = {};
    f.x = x;
    f.y = y;
    f.p.exp2_x = shift_x;
    f.p.exp2_y = shift_y;
    f.p.bits = bits;
    f.p.bytes = bytes;
    f.p.rounding = LGR_FLOOR_ADD;
    f.p.minus = minus;
    f.c = lgr_add_make_consts(&f.p);
    f.out.codes = out;
    return lgr::flat(f, n, stream);
}

extern "C" lgr_status lgr_requant_cuda(const void *x, int32_t bytes, int64_t n, int32_t shift,
                                       int32_t bits, void *out, void *stream)
{
    if (bad(n, bits, bytes) || shift < -63 || shift > 63) return LGR_E_RANGE;
    if (n > 0 && (x == NULL || out == NULL)) return LGR_E_NULL;
    return lgr::flat(requantized{x, bytes, shift, bits, out}, n, stream);
}

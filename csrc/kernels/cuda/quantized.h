/* quantized.h - how an operator's kernels meet its output quantizer: begin - pass - decide - pass.
 *
 * A pass computes exact sums and hands them, 32 neighbours a warp, to output_row. The first pass quantizes with the guessed
 * exponent and finds the extremes; decide moves the state; the second pass returns at once where the guess held.
 */
#ifndef LGR_KERNELS_CUDA_QUANTIZED_H
#define LGR_KERNELS_CUDA_QUANTIZED_H
#include "kernels/cuda/flat.h"
#include "kernels/epilogue/epilogue_one.h"
#include "lgr/output_cuda.h"

namespace lgr {
struct plan { /* the scratch */
    lgr_epilogue ep;
    int64_t amax[2];
    int32_t acc, guess;
    int32_t nan;       /* operands are NaN */
    int32_t peak_only; /* nothing to quantize with yet */
    int32_t flat;      /* the slope is 0 everywhere */
    int32_t done;      /* the second pass has nothing to do */
};
static_assert(sizeof(plan) <= LGR_OUTPUT_CUDA_SCRATCH, "scratch size is part of the contract");

__device__ inline plan *plan_of(const lgr_output_cuda &q) { return (plan *)q.scratch; }
/* Whether this pass writes results, or looks for the extremes alone. */
__device__ inline bool writes(const plan *d, int again) { return again || !d->peak_only || d->nan; }

/* Results of one sum. Returns the mask bit. */
__device__ inline int put(const lgr_output_cuda &q, const plan *d, int64_t a, int64_t at)
{
    lgr_outputs out = q.out;
    if (out.slope && (d->flat || d->nan)) {
        out.slope[at] = 0.0f;
        out.slope = NULL;
    }
    if (!d->nan) return lgr_epilogue_put(&d->ep, a, at, &out);
    if (out.value) out.value[at] = lgr_exp2_scale(LGR_EXP2_NAN);
    if (out.code8) out.code8[at] = 0;
    if (out.code32) out.code32[at] = 0;
    return 0;
}

/* Outputs [first, first + 32) of one row, one per lane, those below `end`; first is a multiple of 16. All lanes call it. */
__device__ inline void output_row(const lgr_output_cuda &q, bool write, int64_t row, int64_t first,
                                  int64_t end, int64_t a, int64_t seen[2])
{
    const int lane = threadIdx.x & 31;
    const int64_t o = first + lane;
    int pass = 0;
    if (o < end) {
        if (q.bias_codes) a += q.bias_codes[o];
        seen[0] = a > seen[0] ? a : seen[0];
        seen[1] = -a > seen[1] ? -a : seen[1];
        if (write) pass = put(q, plan_of(q), a, row * q.o + o);
    }
    const unsigned votes = __ballot_sync(~0u, pass);
    if (write && q.out.mask && (lane & 15) == 0 && o < end) { /* what is behind is another's */
        uint8_t *to = q.out.mask + row * lgr_mask_row_bytes(q.o) + o / 8;
        to[0] = (uint8_t)(votes >> lane);
        to[1] = (uint8_t)(votes >> lane >> 8);
    }
}
/* At the end of the first pass. */
__device__ inline void merge(plan *d, int again, const int64_t seen[2])
{
    for (int i = 0; i < 2 && !again; ++i) {
        const long long most = warp_max((long long)seen[i]);
        if ((threadIdx.x & 31) == 0) atomicMax((long long *)&d->amax[i], most);
    }
}

/* pass(again) -> lgr_status queues the kernels of one pass. */
template <class Pass> lgr_status quantized(const lgr_output_cuda &q, void *stream, Pass pass)
{
    lgr_status s = lgr_output_cuda_begin(&q, stream);
    if (s == LGR_OK) s = pass(0);
    if (s != LGR_OK || q.fixed) return s;
    s = lgr_output_cuda_decide(&q, stream);
    return s == LGR_OK ? pass(1) : s;
}

/* One row of q.o results. F as in flat.h: f(kept, i) is the exact sum of element i. */
template <class F>
__global__ void __launch_bounds__(FLAT) flat_quantized_walk(lgr_output_cuda q, F f, int again)
{
    const plan *d = plan_of(q);
    if (again && d->done) return;
    const bool write = writes(d, again), nan = d->nan != 0;
    const int64_t step = (int64_t)gridDim.x * FLAT, whole = (q.o + 31) / 32 * 32;
    const auto kept = f.start();
    int64_t seen[2] = {0, 0};
    for (int64_t i = (int64_t)blockIdx.x * FLAT + threadIdx.x; i < whole; i += step)
        output_row(q, write, 0, i - (threadIdx.x & 31), q.o, i < q.o && !nan ? f(kept, i) : 0,
                   seen);
    merge(plan_of(q), again, seen);
}
template <class F> lgr_status flat_quantized(const lgr_output_cuda &q, const F &f, void *stream)
{
    const lgr_status bad = lgr_output_cuda_check(&q);
    if (bad != LGR_OK) return bad;
    lgr_output_cuda one = q;
    one.observe = q.observe && q.o > 0;
    return quantized(one, stream, [&](int again) {
        return q.o > 0 ? launch(flat_quantized_walk<F>, blocks_for(q.o, FLAT), FLAT, stream, one, f,
                                again)
                       : LGR_OK;
    });
}
} // namespace lgr
#endif

/* rows.h - a warp per row: f.row(r) is called by all lanes of one warp, and may use warp operations. */
#ifndef LGR_KERNELS_CUDA_ROWS_H
#define LGR_KERNELS_CUDA_ROWS_H
#include "kernels/cuda/quantized.h"

namespace lgr {
enum { ROW_WARPS = 4, ROWS = 32 * ROW_WARPS };
__device__ inline int64_t first_row()
{
    return (int64_t)blockIdx.x * ROW_WARPS + (threadIdx.x >> 5);
}

template <class F> __global__ void __launch_bounds__(ROWS) rows_walk(F f, int64_t rows)
{
    for (int64_t r = first_row(); r < rows; r += (int64_t)gridDim.x * ROW_WARPS) f.row(r);
}
template <class F> lgr_status rows(const F &f, int64_t rows, void *stream)
{
    return rows > 0 ? launch(rows_walk<F>, blocks_for(rows, ROW_WARPS), ROWS, stream, f, rows)
                    : LGR_OK;
}

/* Rows of q.o results: f.row(r) returns what the lanes keep, f(kept, r, i) is the exact sum of element i. */
template <class F>
__global__ void __launch_bounds__(ROWS)
    rows_quantized_walk(lgr_output_cuda q, F f, int64_t rows, int again)
{
    const plan *d = plan_of(q);
    if (again && d->done) return;
    const bool write = writes(d, again), nan = d->nan != 0;
    const int lane = threadIdx.x & 31;
    using kept = decltype(f.row(0));
    int64_t seen[2] = {0, 0};
    for (int64_t r = first_row(); r < rows; r += (int64_t)gridDim.x * ROW_WARPS) {
        const kept k = nan ? kept{} : f.row(r);
        for (int64_t i = 0; i < q.o; i += 32)
            output_row(q, write, r, i, q.o, i + lane < q.o && !nan ? f(k, r, i + lane) : 0, seen);
    }
    merge(plan_of(q), again, seen);
}
template <class F>
lgr_status rows_quantized(const lgr_output_cuda &q, const F &f, int64_t rows, void *stream)
{
    const lgr_status bad = lgr_output_cuda_check(&q);
    if (bad != LGR_OK) return bad;
    lgr_output_cuda one = q;
    one.observe = q.observe && rows > 0 && q.o > 0;
    return quantized(one, stream, [&](int again) {
        return rows > 0 ? launch(rows_quantized_walk<F>, blocks_for(rows, ROW_WARPS), ROWS, stream,
                                 one, f, rows, again)
                        : LGR_OK;
    });
}
} // namespace lgr
#endif

/* flat.h - element i by itself: the walk over a tensor of any size, masks by ballot, tables in shared memory.
 *
 * A functor F is copied to every thread. start() is called once by all threads of a block, may fill shared memory, and returns what
 * the thread keeps; f(kept, i) does element i, and under a mask returns its bit.
 */
#ifndef LGR_KERNELS_CUDA_FLAT_H
#define LGR_KERNELS_CUDA_FLAT_H
#include "kernels/cuda/device.h"
#include "lgr/qmath.h"

namespace lgr {
enum { FLAT = 256 };
struct nothing_kept {};

template <class F> __global__ void __launch_bounds__(FLAT) flat_walk(F f, int64_t n)
{
    const auto kept = f.start();
    const int64_t step = (int64_t)gridDim.x * FLAT;
    for (int64_t i = (int64_t)blockIdx.x * FLAT + threadIdx.x; i < n; i += step) f(kept, i);
}
template <class F> lgr_status flat(const F &f, int64_t n, void *stream)
{
    return n > 0 ? launch(flat_walk<F>, blocks_for(n, FLAT), FLAT, stream, f, n) : LGR_OK;
}

template <class F>
__global__ void __launch_bounds__(FLAT) flat_mask_walk(F f, int64_t n, uint8_t *mask)
{
    const auto kept = f.start();
    const int64_t step = (int64_t)gridDim.x * FLAT,
                  whole = (n + 31) / 32 * 32; /* full warps vote */
    for (int64_t i = (int64_t)blockIdx.x * FLAT + threadIdx.x; i < whole; i += step) {
        const int pass = i < n && f(kept, i);
        const unsigned votes = __ballot_sync(~0u, pass);
        if (i < n && (threadIdx.x & 7) == 0) mask[i >> 3] = (uint8_t)(votes >> (threadIdx.x & 31));
    }
}
/* mask: [lgr_mask_bytes(n)], or NULL. */
template <class F> lgr_status flat_mask(const F &f, int64_t n, uint8_t *mask, void *stream)
{
    if (n == 0 || mask == NULL) return flat(f, n, stream);
    return launch(flat_mask_walk<F>, blocks_for(n, FLAT), FLAT, stream, f, n, mask);
}

/* Sums in float64 that have the bits of the CPU's: parts at fixed places, in each eight sums over i % 8. F as above: f(kept, i) is
 * the summand. parts: [lgr_sum_parts(n)]. */
enum { SUM_BLOCK = 1 << 14 };
inline int64_t sum_parts(int64_t n) { return (n + SUM_BLOCK - 1) / SUM_BLOCK; }
template <class F> __global__ void sum_walk(F f, int64_t n, double *parts)
{
    using eight = double[8];
    LGR_SHARED(eight, v);
    const auto kept = f.start();
    const int64_t from = (int64_t)blockIdx.x * SUM_BLOCK;
    const int64_t to = from + SUM_BLOCK < n ? from + SUM_BLOCK : n;
    double sum = 0.0;
    for (int64_t i = from + threadIdx.x; i < to; i += 8) sum += f(kept, i);
    v[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0)
        parts[blockIdx.x] = ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}
template <class F> lgr_status sums(const F &f, int64_t n, double *parts, void *stream)
{
    const int64_t blocks = sum_parts(n);
    if (blocks > 0x7fffffff) return LGR_E_RANGE;
    return n > 0 ? launch(sum_walk<F>, (unsigned)blocks, 8, stream, f, n, parts) : LGR_OK;
}
} // namespace lgr
#endif

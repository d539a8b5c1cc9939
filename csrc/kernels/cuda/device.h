/* device.h - what every .cu file includes: launches that report their own error, and the operations that are not plain C.
 *
 * <cuda_runtime.h> is NVIDIA's under nvcc. Under a C++ compiler with -Itests/c/cuda it is ours, and the kernels run on the CPU:
 * so no <<< >>>, no dynamic shared memory, and shared memory is declared with LGR_SHARED.
 */
#ifndef LGR_KERNELS_CUDA_DEVICE_H
#define LGR_KERNELS_CUDA_DEVICE_H
#include "lgr/status.h"
#include <cuda_runtime.h>
#ifndef LGR_SHARED
#define LGR_SHARED(type, name) __shared__ type name
#endif

namespace lgr {
/* LGR_E_DEVICE with the runtime's own words; its error is told once, here. */
inline lgr_status device_status(cudaError_t e)
{
    if (e == cudaSuccess) return LGR_OK;
    (void)cudaGetLastError();
    lgr_device_refused(cudaGetErrorString(e));
    return LGR_E_DEVICE;
}
inline lgr_status clear(void *p, int64_t bytes, void *stream)
{
    return bytes > 0 ? device_status(cudaMemsetAsync(p, 0, (size_t)bytes, (cudaStream_t)stream))
                     : LGR_OK;
}

/* Queues one kernel; arguments are converted to the kernel's parameters. The status is this launch's, nobody else's. */
template <class... P, class... A>
lgr_status launch(void (*kernel)(P...), dim3 grid, dim3 block, void *stream, A... args)
{
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.stream = (cudaStream_t)stream;
    return device_status(cudaLaunchKernelEx(&config, kernel, args...));
}

/* Blocks of `threads` for a loop over n elements with the stride of the grid; n > 0. */
inline unsigned blocks_for(int64_t n, int threads, int64_t most = 4096)
{
    const int64_t b = (n + threads - 1) / threads;
    return (unsigned)(b < most ? b : most);
}

template <class T> __device__ inline T warp_max(T v)
{
    for (int d = 16; d > 0; d /= 2) {
        const T other = __shfl_xor_sync(~0u, v, d);
        v = v > other ? v : other;
    }
    return v;
}

template <class T> __device__ inline T warp_sum(T v)
{
    for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(~0u, v, d);
    return v;
}

/* *to = the sum over the threads of a block, whole warps, in an order of its own. All threads. */
__device__ inline void block_sum(double v, double *to)
{
    using warps = double[32];
    LGR_SHARED(warps, part);
    v = warp_sum(v);
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (unsigned i = 1; i < blockDim.x / 32; ++i) v += part[i];
    *to = v;
}

/* c (16 x 8) += a (16 x 32) * b (32 x 8) of signed bytes by one warp, sums modulo 2^32. lane = 4 * group + member:
 * a[r]: row group + 8 * (r & 1), columns 4 * member + 16 * (r >> 1) + 0..3;  b[r]: column group, rows 4 * member + 16 * r + 0..3;
 * c[i]: row group + 8 * (i >> 1), column 2 * member + (i & 1). */
__device__ inline void mma_s8(int32_t c[4], const uint32_t a[4], const uint32_t b[2])
{
#if defined(LGR_EMULATED)
    emulated::mma_m16n8k32_s8(c, a, b, __LINE__);
#elif __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else /* Turing: its 8 x 8 x 16 has the same layout, four of them are one of the above */
    for (int r = 0; r < 4; ++r)
        asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
            : "+r"(c[2 * (r & 1)]), "+r"(c[2 * (r & 1) + 1])
            : "r"(a[r]), "r"(b[r >> 1]));
#endif
}
} // namespace lgr
#endif

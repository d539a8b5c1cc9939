/* layer_norm_cuda.cu - a warp per row: its sums, its root, its elements. */
#include "kernels/cuda/rows.h"
#include "kernels/layer_norm/layer_norm_one.h"
#include "lgr/layer_norm_cuda.h"

namespace {
struct normalised {
    const int8_t *x;
    const void *gamma;
    const float *x_scale;
    int64_t n;
    int32_t gamma_bytes, bits, eps_exp2;
    struct kept {
        int64_t sum;
        struct lgr_norm_root root;
    };
    __device__ kept row(int64_t r) const
    {
        const int32_t e = x_scale ? lgr_sum_exp2(lgr_scale_exp2(*x_scale), eps_exp2) : eps_exp2;
        int64_t sum = 0, squares = 0;
        for (int64_t i = threadIdx.x & 31; i < n; i += 32) {
            const int32_t v = x[r * n + i];
            sum += v;
            squares += v * v;
        }
        kept k;
        k.sum = lgr::warp_sum(sum);
        k.root = lgr_norm_root(n, k.sum, lgr::warp_sum(squares), lgr_norm_eps(e, n));
        return k;
    }
    __device__ int64_t operator()(const kept &k, int64_t r, int64_t i) const
    {
        return lgr_norm_one(x[r * n + i], n, k.sum, k.root.factor, k.root.shift, bits,
                            (int32_t)lgr_code_at(gamma, gamma_bytes, i));
    }
};
} // namespace

extern "C" lgr_status lgr_layer_norm_cuda(const lgr_layer_norm_cuda_job *job, void *stream)
{
    if (job == NULL || job->gamma == NULL || (job->rows > 0 && job->x == NULL)) return LGR_E_NULL;
    if (job->rows < 0 || job->q.o < 1 || job->q.o > LGR_LAYER_NORM_MAX ||
        (job->gamma_bytes != 1 && job->gamma_bytes != 4) || (job->bits != 16 && job->bits != 32))
        return LGR_E_RANGE;
    const normalised f = {job->x,           job->gamma, job->x_scale, job->q.o,
                          job->gamma_bytes, job->bits,  job->eps_exp2};
    return lgr::rows_quantized(job->q, f, job->rows, stream);
}

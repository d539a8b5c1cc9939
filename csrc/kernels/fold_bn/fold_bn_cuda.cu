/* fold_bn_cuda.cu - one warp per channel. The absolute sum, which decides a clamp, keeps the CPU's order: one thread adds, 32 at a
 * time, what its warp has computed. */
#include "kernels/cuda/device.h"
#include "kernels/fold_bn/fold_bn_one.h"
#include "lgr/fold_bn_cuda.h"

namespace {
enum { THREADS = 256, WARPS = THREADS / 32 };
using held = double[WARPS][32];

__global__ void __launch_bounds__(THREADS)
    fold(lgr_fold_bn_params p, lgr_fold_bn_in in, float *w_folded, float *b_folded, double *abs_sum)
{
    LGR_SHARED(held, part);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int64_t channels = p.groups * p.per_group, step = (int64_t)gridDim.x * WARPS;
    for (int64_t o = (int64_t)blockIdx.x * WARPS + warp; o < channels; o += step) {
        const double f = lgr_fold_factor(&p, &in, o);
        double sum = 0.0;
        for (int64_t i = 0; i < p.n_in; ++i) {
            const int64_t at = lgr_fold_row(&p, o, i);
            for (int64_t k = 0; k < p.inner; k += 32) {
                float v = 0.0f;
                if (k + lane < p.inner) {
                    v = lgr_fold_weight(in.w[at + k + lane], f);
                    w_folded[at + k + lane] = v;
                }
                if (abs_sum == NULL) continue;
                part[warp][lane] = (double)fabsf(v);
                __syncwarp();
                for (int j = 0; lane == 0 && j < 32 && k + j < p.inner; ++j) sum += part[warp][j];
                __syncwarp();
            }
        }
        if (lane != 0) continue;
        b_folded[o] = lgr_fold_bias(&in, o, f);
        if (abs_sum) abs_sum[o] = sum;
    }
}

__global__ void __launch_bounds__(THREADS)
    unfold(lgr_fold_bn_params p, lgr_fold_bn_in in, lgr_fold_bn_grad g)
{
    const int lane = threadIdx.x & 31;
    const int64_t channels = p.groups * p.per_group, step = (int64_t)gridDim.x * WARPS;
    for (int64_t o = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5); o < channels; o += step) {
        lgr_fold_back b = lgr_fold_back_begin(&p, &in, &g, o);
        double sum = 0.0;
        for (int64_t i = 0; i < p.n_in; ++i) {
            const int64_t at = lgr_fold_row(&p, o, i);
            for (int64_t k = at + lane; k < at + p.inner; k += 32)
                sum += lgr_fold_back_weight(&b, &in, &g, k);
        }
        b.gf += lgr::warp_sum(sum);
        if (lane == 0) lgr_fold_back_end(&b, &g, o);
    }
}
bool bad(const lgr_fold_bn_params *p)
{
    return p->groups < 0 || p->n_in < 0 || p->per_group < 0 || p->inner < 0 || !(p->eps >= 0.0);
}
} // namespace

extern "C" lgr_status lgr_fold_bn_f32_cuda(const struct lgr_fold_bn_params *p,
                                           const struct lgr_fold_bn_in *in, float *w_folded,
                                           float *b_folded, double *abs_sum, void *stream)
{
    if (p == NULL || in == NULL) return LGR_E_NULL;
    if (bad(p)) return LGR_E_RANGE;
    const int64_t channels = p->groups * p->per_group;
    if (channels == 0) return LGR_OK;
    if (!in->w || !in->mean || !in->var || !w_folded || !b_folded) return LGR_E_NULL;
    return lgr::launch(fold, lgr::blocks_for(channels, WARPS), THREADS, stream, *p, *in, w_folded,
                       b_folded, abs_sum);
}
extern "C" lgr_status lgr_fold_bn_backward_f32_cuda(const struct lgr_fold_bn_params *p,
                                                    const struct lgr_fold_bn_in *in,
                                                    const struct lgr_fold_bn_grad *g, void *stream)
{
    if (p == NULL || in == NULL || g == NULL) return LGR_E_NULL;
    if (bad(p)) return LGR_E_RANGE;
    const int64_t channels = p->groups * p->per_group;
    if (channels == 0) return LGR_OK;
    if (!in->w || !in->mean || !in->var || !g->gw || !g->gb) return LGR_E_NULL;
    return lgr::launch(unfold, lgr::blocks_for(channels, WARPS), THREADS, stream, *p, *in, *g);
}

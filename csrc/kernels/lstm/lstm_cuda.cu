/* lstm_cuda.cu - the walk of an LSTM layer: a block for 16 entries, a warp for 8 units at a time. */
#include "kernels/lstm/lstm_one.h"
#include "kernels/recurrent/recurrent_cuda.h"

namespace {
struct tables {
    lgr_pwl v[2];
};
__global__ void __launch_bounds__(lgr::WALKERS)
    walk(lgr_recurrent_cuda_job j, lgr::recurrent_parts s, tables t)
{
    lgr::recurrent_plan *d = lgr::plan_of(j);
    if (d->nan) return;
    const lgr_recurrent p = lgr::geometry(j);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, venus = p.chip == LGR_VENUS;
    const int64_t first = (int64_t)blockIdx.x * lgr::ENTRIES, h = p.h, blocks = lgr_blocks(h),
                  block = lgr_saved_block(p.chip, 4);
    int32_t peak = 0, saturated = 0;
    for (int32_t i = 0; i < p.steps; ++i) {
        const lgr::moment m = lgr::moment_of(p, i);
        const int8_t *now = s.state[i & 1];
        int8_t *next = s.state[~i & 1];
        for (int64_t u0 = warp * lgr::TILE_UNITS; u0 < s.units;
             u0 += lgr::WALKERS / 32 * lgr::TILE_UNITS) {
            int32_t sum[4][4] = {};
            for (int g = 0; g < 4; ++g)
                lgr::gate_product(sum[g], now + first * s.k, s.w + (g * s.units + u0) * s.k, s.k);
            for (int e = 0; e < 4; ++e) {
                const int64_t entry = first + (lane >> 2) + 8 * (e >> 1),
                              u = u0 + 2 * (lane & 3) + (e & 1), at = entry * s.k + u,
                              row = lgr::row_of(p, m, entry);
                if (entry >= p.batch || u >= h) continue;
                if (row < 0) { /* the state stays */
                    next[at] = now[at];
                    continue;
                }
                int32_t pre[4];
                for (int g = 0; g < 4; ++g) {
                    const int64_t o = g * h + u;
                    pre[g] =
                        lgr_lstm_pre(venus, lgr::with_bias(s.sums[row * 4 * h + o], s.bias_ih[o]),
                                     lgr::with_bias(sum[g][e], s.bias_hh[o]), p.exp2_ih, p.exp2_hh);
                }
                lgr_lstm_unit unit = {};
                unit.c = j.c_codes[entry * h + u];
                const int32_t out = lgr_lstm_one(p.chip, t.v, pre, p.q_h, &unit);
                j.c_codes[entry * h + u] = unit.c;
                next[at] = j.y[row * h + u] = (int8_t)unit.h;
                j.value[row * h + u] = (float)unit.h * lgr_exp2_scale(-p.q_h);
                peak = out > peak ? out : -out > peak ? -out : peak;
                saturated += unit.saturated;
                if (j.saved)
                    lgr_lstm_save((char *)j.saved + (row * blocks + u / LGR_UNITS) * block, venus,
                                  u, pre, &unit);
            }
        }
        __syncthreads();
    }
    for (int64_t i = threadIdx.x; i < lgr::ENTRIES * h; i += lgr::WALKERS) {
        const int64_t entry = first + i / h, u = i % h;
        if (entry < p.batch) j.h_codes[entry * h + u] = s.state[p.steps & 1][entry * s.k + u];
    }
    peak = lgr::warp_max(peak);
    saturated = lgr::warp_sum(saturated);
    if (lane != 0) return;
    atomicMax(&d->peak, peak);
    atomicAdd(&d->saturated, (unsigned long long)saturated);
}
} // namespace

extern "C" lgr_status lgr_lstm_cuda(const lgr_recurrent_cuda_job *job, void *stream)
{
    lgr_status r = lgr::recurrent_begin(job, 4, stream);
    if (r != LGR_OK) return r;
    const lgr_recurrent &p = job->p;
    const lgr_pwl *of = lgr_chip_tables + 2 * p.chip;
    const unsigned blocks = (unsigned)((p.batch + lgr::ENTRIES - 1) / lgr::ENTRIES);
    r = lgr::launch(walk, blocks, lgr::WALKERS, stream, *job, lgr::parts_of(&p, 4, job->scratch),
                    tables{{of[0], of[1]}});
    return r == LGR_OK ? lgr::recurrent_end(job, 4, stream) : r;
}

/* gru_cuda.cu - the walk of a GRU layer: a block for 16 entries, a warp for 8 units at a time. */
#include "kernels/gru/gru_isa.h"
#include "kernels/gru/gru_one.h"
#include "kernels/recurrent/recurrent_cuda.h"

namespace {
struct tables {
    lgr_pwl v[2];
};
struct call {
    lgr_recurrent_cuda_job j;
    lgr::recurrent_parts s;
    tables t;
};
struct place { /* of one unit */
    int64_t entry, u, at, row;
};
/* Whether the lane's e-th sum is a unit of this step; `place` says which. A state that has no step stays. */
__device__ bool find(const call &c, const lgr_recurrent &p, const lgr::moment &m, int64_t first,
                     int64_t u0, int e, const int8_t *now, int8_t *next, place *o)
{
    const int lane = threadIdx.x & 31;
    o->entry = first + (lane >> 2) + 8 * (e >> 1);
    o->u = u0 + 2 * (lane & 3) + (e & 1);
    o->at = o->entry * c.s.k + o->u;
    if (o->entry >= p.batch || o->u >= p.h) return false;
    o->row = lgr::row_of(p, m, o->entry);
    if (o->row < 0 && next) next[o->at] = now[o->at];
    return o->row >= 0;
}
__device__ int32_t input(const call &c, const lgr_recurrent &p, int base, int g, const place &o)
{
    const int64_t i = (int64_t)g * p.h + o.u;
    return lgr_fit_ref(lgr::with_bias(c.s.sums[o.row * 3 * p.h + i], c.s.bias_ih[i]), p.exp2_ih,
                       base);
}
__device__ int32_t state(const call &c, const lgr_recurrent &p, int base, int g, int32_t product,
                         const place &o)
{
    const int32_t sum = lgr::with_bias(product, c.s.bias_hh[(int64_t)g * p.h + o.u]);
    return lgr_fit_ref(sum, p.exp2_hh, base);
}
__device__ void put(const call &c, const lgr_recurrent &p, const place &o, const int32_t pre[4],
                    int8_t code)
{
    const lgr_recurrent_cuda_job &j = c.j;
    const int64_t to = o.row * p.h + o.u, block = o.row * lgr_blocks(p.h) + o.u / LGR_UNITS;
    j.y[to] = code;
    j.value[to] = (float)code * lgr_exp2_scale(-p.q_h);
    if (j.saved)
        lgr_gru_save((char *)j.saved + block * lgr_saved_block(p.chip, 3), p.chip, o.u, pre);
}

__global__ void __launch_bounds__(lgr::WALKERS) walk(call c)
{
    lgr::recurrent_plan *d = lgr::plan_of(c.j);
    if (d->nan) return;
    const lgr_recurrent p = lgr::geometry(c.j);
    const lgr::recurrent_parts &s = c.s;
    const int warp = threadIdx.x >> 5, base = lgr_gru_base(&p), arcs = p.chip == LGR_ARCS;
    const int64_t first = (int64_t)blockIdx.x * lgr::ENTRIES, h = p.h;
    const int64_t stride = lgr::WALKERS / 32 * lgr::TILE_UNITS;
    int32_t peak = 0;
    for (int32_t i = 0; i < p.steps; ++i) {
        const lgr::moment m = lgr::moment_of(p, i);
        const int8_t *now = s.state[i & 1];
        int8_t *next = s.state[~i & 1];
        for (int64_t u0 = warp * lgr::TILE_UNITS; u0 < s.units; u0 += stride) {
            int32_t sum[3][4] = {};
            for (int g = 0; g < (arcs ? 2 : 3); ++g)
                lgr::gate_product(sum[g], now + first * s.k, s.w + (g * s.units + u0) * s.k, s.k);
            for (int e = 0; e < 4; ++e) {
                place o;
                if (!find(c, p, m, first, u0, e, now, next, &o)) continue;
                int32_t in[3] = {}, st[3] = {}, pre[4];
                for (int g = 0; g < (arcs ? 2 : 3); ++g) {
                    in[g] = input(c, p, base, g, o);
                    st[g] = state(c, p, base, g, sum[g][e], o);
                }
                if (arcs) { /* the candidate needs r * h of all units */
                    s.reset[o.at] =
                        lgr_gru_reset(c.t.v, in, st, now[o.at], s.pre + (o.entry * h + o.u) * 4);
                    continue;
                }
                const int32_t most =
                    lgr_gru_one(p.chip, c.t.v, base, in, st, now[o.at], p.q_h, pre, next + o.at);
                peak = most > peak ? most : peak;
                put(c, p, o, pre, next[o.at]);
            }
        }
        __syncthreads();
        for (int64_t u0 = warp * lgr::TILE_UNITS; arcs && u0 < s.units; u0 += stride) {
            int32_t sum[4] = {};
            lgr::gate_product(sum, s.reset + first * s.k, s.w + (2 * s.units + u0) * s.k, s.k);
            for (int e = 0; e < 4; ++e) {
                place o;
                if (!find(c, p, m, first, u0, e, now, NULL, &o)) continue;
                int32_t *pre = s.pre + (o.entry * h + o.u) * 4;
                const int32_t most =
                    lgr_gru_arcs(c.t.v, input(c, p, base, 2, o), state(c, p, base, 2, sum[e], o),
                                 now[o.at], p.q_h, pre, next + o.at);
                peak = most > peak ? most : peak;
                put(c, p, o, pre, next[o.at]);
            }
        }
        __syncthreads();
    }
    for (int64_t i = threadIdx.x; i < lgr::ENTRIES * h; i += lgr::WALKERS) {
        const int64_t entry = first + i / h, u = i % h;
        if (entry < p.batch) c.j.h_codes[entry * h + u] = s.state[p.steps & 1][entry * s.k + u];
    }
    peak = lgr::warp_max(peak);
    if ((threadIdx.x & 31) == 0) atomicMax(&d->peak, peak);
}
} // namespace

extern "C" lgr_status lgr_gru_cuda(const lgr_recurrent_cuda_job *job, void *stream)
{
    lgr_status r = lgr::recurrent_begin(job, 3, stream);
    if (r != LGR_OK) return r;
    const lgr_recurrent &p = job->p;
    const lgr_pwl *of = lgr_chip_tables + 2 * p.chip;
    const unsigned blocks = (unsigned)((p.batch + lgr::ENTRIES - 1) / lgr::ENTRIES);
    r = lgr::launch(walk, blocks, lgr::WALKERS, stream,
                    call{*job, lgr::parts_of(&p, 3, job->scratch), {{of[0], of[1]}}});
    return r == LGR_OK ? lgr::recurrent_end(job, 3, stream) : r;
}

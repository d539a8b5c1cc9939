/* backward_cuda.h - the walk of a block of 16 entries back through time; built after grad_lanes_cuda.h and a layer's gradients.
 *
 * A layer says, as a class: what of a step comes first (`unit`), and the recurrent products that follow (`step`).
 */
#ifndef LGR_BACKWARD_CUDA_H
#define LGR_BACKWARD_CUDA_H
#include "kernels/recurrent/recurrent_cuda.h"

namespace {
enum { PLANES = 4 };

/* One entry of a block in one step. */
struct spot {
    int64_t entry, row, prev; /* row of x; of the step that its state came from, or -1 */
    const int8_t *before; /* the codes that it read, NULL: zeros */
};
struct back {
    lgr_recurrent_cuda_grad j;
    int64_t hp;
    float *dh, *dc; /* [batch][hp] */
    grad_tables t;
};
back back_of(const lgr_recurrent_cuda_grad &j)
{
    back b = {};
    b.j = j;
    b.hp = lgr_padded(j.p.h, LGR_UNITS);
    b.dh = (float *)j.scratch;
    b.dc = b.dh + j.p.batch * b.hp;
    b.t = {{lgr_chip_tables[2 * j.p.chip], lgr_chip_tables[2 * j.p.chip + 1]}};
    return b;
}
__device__ bool has_nan(const lgr_recurrent_cuda_grad &j)
{
    return lgr_sum_exp2(lgr_sum_exp2(lgr_scale_exp2(*j.x_scale), lgr_scale_exp2(*j.ih_scale)),
                        lgr_sum_exp2(lgr_scale_exp2(*j.hh_scale), lgr_scale_exp2(*j.h_scale))) ==
           LGR_EXP2_NAN;
}
/* false: the entry does not have step i, counted from the one that ran last. */
__device__ bool spot_of(const lgr_recurrent_cuda_grad &j, int32_t i, int64_t entry, spot *s)
{
    const lgr_recurrent &p = j.p;
    const int32_t t = p.reverse ? i : p.steps - 1 - i, last = p.reverse ? t + 1 : t - 1;
    s->entry = entry;
    s->row = entry < p.batch ? lgr::row_of(p, {p.n[t], p.off[t]}, entry) : -1;
    s->prev = last >= 0 && last < p.steps ? lgr::row_of(p, {p.n[last], p.off[last]}, entry) : -1;
    s->before = s->prev >= 0 ? j.y + s->prev * p.h : j.h0 ? j.h0 + entry * p.h : NULL;
    return s->row >= 0;
}
/* The plan of the gradients of one row: its gate gradients lie [plane][hp] at dg + row * PLANES * hp. */
__device__ plan plan_of_row(const back &b, const spot &s)
{
    const int32_t q = lgr_scale_exp2(*b.j.h_scale);
    plan w = {};
    w.h = b.j.p.h;
    w.hp = w.hn = w.plane = b.hp;
    w.blocks = b.hp / LGR_UNITS;
    w.cap = 1;
    w.dg = b.j.dg + s.row * PLANES * b.hp;
    w.dh = b.dh + s.entry * b.hp;
    w.dc = b.dc + s.entry * b.hp;
    w.q_h = q;
    w.inv_h = lgr_exp2_scale(-q);
    w.to_code = lgr_exp2_scale(q);
    return w;
}
/* sum over planes [from, to) and units of dg * W_hh at column k; gate[plane]: the rows of W_hh */
__device__ float recurrent(const back &b, const spot &s, int from, int to, const int gate[3],
                           int64_t k)
{
    const int64_t h = b.j.p.h;
    float sum = 0.0f;
    for (int plane = from; plane < to; ++plane) {
        const float *dg = b.j.dg + (s.row * PLANES + plane) * b.hp;
        const int8_t *w = b.j.w_hh + gate[plane] * h * h + k;
        for (int64_t u = 0; u < h; ++u) sum += dg[u] * (float)w[u * h];
    }
    return sum * lgr_exp2_scale(-lgr_scale_exp2(*b.j.hh_scale));
}

/* f(spot, u) for every unit, padding too, of every entry of the block that has step i. All threads; a barrier behind it. */
template <class F> __device__ void each_unit(const back &b, int32_t i, int64_t units, F &&f)
{
    const int64_t first = (int64_t)blockIdx.x * lgr::ENTRIES;
    for (int64_t at = threadIdx.x; at < lgr::ENTRIES * units; at += lgr::WALKERS) {
        spot s;
        if (spot_of(b.j, i, first + at / units, &s)) f(s, at % units);
    }
    __syncthreads();
}

template <class Layer> __global__ void __launch_bounds__(lgr::WALKERS) back_walk(back b)
{
    const lgr_recurrent &p = b.j.p;
    const int64_t first = (int64_t)blockIdx.x * lgr::ENTRIES, h = p.h;
    const bool nan = has_nan(b.j);
    double slope = 0.0;
    grad_tables_begin(b.t);
    for (int64_t at = threadIdx.x; at < lgr::ENTRIES * b.hp; at += lgr::WALKERS) {
        const int64_t entry = first + at / b.hp, u = at % b.hp, to = entry * b.hp + u;
        if (entry >= p.batch) continue;
        b.dh[to] = b.j.dhn && u < h ? b.j.dhn[entry * h + u] : 0.0f;
        b.dc[to] = b.j.dcn && u < h ? b.j.dcn[entry * h + u] : 0.0f;
    }
    __syncthreads();
    for (int32_t i = 0; i < p.steps && !nan; ++i) {
        each_unit(b, i, b.hp, [&](const spot &s, int64_t u) {
            const plan w = plan_of_row(b, s);
            if (u < h) b.j.h_before[s.row * h + u] = s.before ? (float)s.before[u] * w.inv_h : 0.0f;
            Layer::unit(b, w, s, u, b.j.slope ? &slope : NULL);
        });
        Layer::step(b, i);
    }
    for (int64_t at = threadIdx.x; at < lgr::ENTRIES * h; at += lgr::WALKERS) {
        const int64_t entry = first + at / h, u = at % h;
        if (entry >= p.batch) continue;
        b.j.dh0[entry * h + u] = nan ? 0.0f : b.dh[entry * b.hp + u];
        if (b.j.dc0) b.j.dc0[entry * h + u] = nan ? 0.0f : b.dc[entry * b.hp + u];
    }
    if (b.j.slope) lgr::block_sum(slope, b.j.slope_parts + blockIdx.x);
}
/* The sum over blocks, in their order. */
__global__ void add_slopes(const double *parts, int64_t blocks, float *slope)
{
    double sum = 0.0;
    for (int64_t i = 0; i < blocks; ++i) sum += parts[i];
    *slope = (float)sum;
}

template <class Layer> lgr_status backward(const lgr_recurrent_cuda_grad *j, void *stream)
{
    if (j == NULL || !j->x_scale || !j->ih_scale || !j->hh_scale || !j->h_scale || !j->w_hh ||
        !j->y || !j->saved || !j->dg || !j->h_before || !j->dh0 || !j->scratch || !j->p.off ||
        !j->p.n)
        return LGR_E_NULL;
    const lgr_recurrent &p = j->p;
    if (p.chip < LGR_ARCS || p.chip > LGR_VENUS || p.h < 1 || p.batch < 1 || p.steps < 1)
        return LGR_E_RANGE;
    const back b = back_of(*j);
    const int64_t gates = p.rows * PLANES * b.hp * (int64_t)sizeof(float),
                  states = p.rows * p.h * (int64_t)sizeof(float);
    lgr_status r = lgr::clear(j->dg, gates, stream);
    if (r == LGR_OK) r = lgr::clear(j->h_before, states, stream);
    if (r == LGR_OK && j->reset) r = lgr::clear(j->reset, states, stream);
    if (r != LGR_OK) return r;
    const int64_t blocks = (p.batch + lgr::ENTRIES - 1) / lgr::ENTRIES;
    r = lgr::launch(back_walk<Layer>, (unsigned)blocks, lgr::WALKERS, stream, b);
    if (r != LGR_OK || j->slope == NULL) return r;
    return lgr::launch(add_slopes, 1, 1, stream, j->slope_parts, blocks, j->slope);
}
} // namespace
#endif

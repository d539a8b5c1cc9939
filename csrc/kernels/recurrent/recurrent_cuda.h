/* recurrent_cuda.h - what the LSTM and GRU kernels share: the plan, the parts of the scratch, products of states, the walk. */
#ifndef LGR_KERNELS_RECURRENT_CUDA_H
#define LGR_KERNELS_RECURRENT_CUDA_H
#include "kernels/cuda/flat.h"
#include "kernels/recurrent/recurrent_ref.h"
#include "lgr/recurrent_cuda.h"

namespace lgr {
enum { ENTRIES = 16 /* of a block */, WALKERS = 256, TILE_UNITS = 8 };

struct recurrent_plan { /* at the start of the scratch */
    int32_t exp2_ih, exp2_hh, q_h;
    int32_t nan;
    int32_t peak; /* largest state of all, as the cell counts it */
    int32_t pad;
    unsigned long long saturated;
};
/* The scratch behind it. */
struct recurrent_parts {
    int32_t *bias_ih, *bias_hh; /* [gates * h] */
    int32_t *sums; /* [rows][gates * h] products of the input */
    int32_t *pre; /* GRU on arcs: [batch][h][4] */
    int8_t *w; /* [gates][h padded to 8][k]: W_hh, k = h padded to 32 */
    int8_t *state[2]; /* [batch padded to 16][k] */
    int8_t *reset; /* GRU on arcs: the same */
    int64_t k, units;
    int64_t bytes;
};
LGR_INLINE recurrent_parts parts_of(const lgr_recurrent *p, int gates, void *scratch)
{
    recurrent_parts s;
    char *at = (char *)scratch + 64;
    s.k = lgr_padded(p->h, 32);
    s.units = lgr_padded(p->h, TILE_UNITS);
    const int64_t h = p->h, state = lgr_padded(p->batch, ENTRIES) * s.k;
    s.bias_ih = (int32_t *)at;
    s.bias_hh = s.bias_ih + gates * h;
    s.sums = s.bias_hh + gates * h;
    s.pre = s.sums + p->rows * gates * h;
    at = (char *)(s.pre + (gates == 3 && p->chip == LGR_ARCS ? p->batch * h * 4 : 0));
    s.w = (int8_t *)scratch + lgr_padded(at - (char *)scratch, 16);
    s.state[0] = s.w + gates * s.units * s.k;
    s.state[1] = s.state[0] + state;
    s.reset = s.state[1] + state;
    s.bytes = s.reset + state - (int8_t *)scratch;
    return s;
}
__device__ inline recurrent_plan *plan_of(const lgr_recurrent_cuda_job &j)
{
    return (recurrent_plan *)j.scratch;
}
/* The geometry with the exponents of this call. */
__device__ inline lgr_recurrent geometry(const lgr_recurrent_cuda_job &j)
{
    lgr_recurrent p = j.p;
    p.exp2_ih = plan_of(j)->exp2_ih;
    p.exp2_hh = plan_of(j)->exp2_hh;
    p.q_h = plan_of(j)->q_h;
    return p;
}

/* One step of the entries of a block. */
struct moment {
    int32_t entries; /* that have this step */
    int64_t offset;
};
__device__ inline moment moment_of(const lgr_recurrent &p, int32_t i)
{
    const int32_t t = p.reverse ? p.steps - 1 - i : i;
    return {p.n[t], p.off[t]};
}
/* Row of x, or -1: the entry does not have this step. */
__device__ inline int64_t row_of(const lgr_recurrent &p, const moment &m, int64_t entry)
{
    const int64_t row = m.offset + entry * p.row_stride;
    return entry < m.entries && row >= 0 && row < p.rows ? row : -1;
}

/* c: sums over k of 16 entries from `state` on times 8 units of one gate from `w` on. The lane's c[i] is entry group + 8 * (i >> 1),
 * unit 2 * member + (i & 1); lane = 4 * group + member. */
__device__ inline void gate_product(int32_t c[4], const int8_t *state, const int8_t *w, int64_t k)
{
    const int lane = threadIdx.x & 31, group = lane >> 2, word = (lane & 3) * 4;
    for (int64_t at = 0; at < k; at += 32) {
        uint32_t a[4], b[2];
        for (int r = 0; r < 4; ++r)
            a[r] =
                *(const uint32_t *)(state + (group + 8 * (r & 1)) * k + at + word + 16 * (r >> 1));
        for (int r = 0; r < 2; ++r) b[r] = *(const uint32_t *)(w + group * k + at + word + 16 * r);
        mma_s8(c, a, b);
    }
}
/* sat_32(product + bias) of both sides. */
__device__ inline int32_t with_bias(int32_t product, int32_t bias)
{
    return lgr_sat_s32((int64_t)product + bias);
}

/* Everything before the walk: exponents, biases, states, padded weights, the input product. base_least: lgr_recurrent_check. */
lgr_status recurrent_begin(const lgr_recurrent_cuda_job *job, int gates, void *stream);
/* And behind it: the states in real units, the peak. unit: of plan.peak, where it is an integer; else it has float bits. */
lgr_status recurrent_end(const lgr_recurrent_cuda_job *job, int gates, void *stream);
} // namespace lgr
#endif

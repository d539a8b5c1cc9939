/* recurrent_cuda.cu - what happens before and after the walk of an LSTM or GRU layer. */
#include "kernels/recurrent/recurrent_cuda.h"
#include "kernels/gru/gru_isa.h"
#include "kernels/lstm/lstm_isa.h"
#include "kernels/quantize/quantize_one.h"
#include "lgr/conv_cuda.h"

namespace {
using lgr::parts_of;
using lgr::plan_of;
using lgr::recurrent_parts;
using lgr::recurrent_plan;

/* lgr_recurrent_check's limits of the exponents. */
__device__ bool outside(const lgr_recurrent_cuda_job &j, int gates, const recurrent_plan &d)
{
    const bool venus = j.p.chip == LGR_VENUS;
    const int32_t least = venus ? -19 : -3, most = !venus ? 23 : gates == 4 ? 14 : 15;
    return d.q_h < 0 || d.q_h > most || d.exp2_ih < least || d.exp2_hh < least || d.exp2_ih > 252 ||
           d.exp2_hh > 252;
}
__global__ void exponents(lgr_recurrent_cuda_job j, int gates)
{
    const int32_t ex = lgr_scale_exp2(*j.x_scale), ei = lgr_scale_exp2(*j.ih_scale),
                  eh = lgr_scale_exp2(*j.hh_scale), q = lgr_scale_exp2(*j.h_scale);
    recurrent_plan d = {};
    d.exp2_ih = lgr_sum_exp2(ex, ei);
    d.exp2_hh = lgr_sum_exp2(q, eh);
    d.q_h = q;
    d.nan = d.exp2_ih == LGR_EXP2_NAN || d.exp2_hh == LGR_EXP2_NAN || outside(j, gates, d);
    if (d.nan) {
        d.exp2_ih = d.exp2_hh = 0;
        d.q_h = 7;
    }
    *plan_of(j) = d;
}

/* Codes of the biases. */
struct biases {
    lgr_recurrent_cuda_job j;
    recurrent_parts s;
    int64_t n;
    __device__ lgr::nothing_kept start() const { return {}; }
    __device__ void one(const lgr_real_or_codes &b, int32_t exp2, int64_t i, int32_t *to) const
    {
        to[i] = b.codes  ? ((const int32_t *)b.codes)[i]
                : b.real ? lgr_bias_code(b.real[i], exp2)
                         : 0;
        if (b.real && b.real[i] != b.real[i]) atomicMax(&plan_of(j)->nan, 1);
    }
    __device__ void operator()(lgr::nothing_kept, int64_t i) const
    {
        if (i < n) one(j.b_ih, plan_of(j)->exp2_ih, i, s.bias_ih);
        else one(j.b_hh, plan_of(j)->exp2_hh, i - n, s.bias_hh);
    }
};
/* Codes of the given states; states of no entry are 0. */
struct states {
    lgr_recurrent_cuda_job j;
    recurrent_parts s;
    int gates;
    __device__ lgr::nothing_kept start() const { return {}; }
    __device__ int32_t code(const lgr_real_or_codes &v, int32_t exp2, int32_t bits, int64_t i) const
    {
        if (v.codes) return (int32_t)lgr_code_at(v.codes, bits <= 8 ? 1 : 4, i);
        if (!v.real) return 0;
        lgr_quantize_params how = {};
        how.exp2 = exp2;
        how.bits = bits;
        how.rounding = LGR_FLOOR_ADD;
        const lgr_quantize_consts c =
            bits <= 16 ? lgr_quantize_make_consts(&how) : lgr_quantize_consts();
        if (v.real[i] != v.real[i]) atomicMax(&plan_of(j)->nan, 1);
        return bits <= 16 ? lgr_quantize_one_f32(v.real[i], &c).code
                          : lgr_quantize_one_f64(v.real[i], &how).code;
    }
    __device__ void operator()(lgr::nothing_kept, int64_t at) const
    {
        const int64_t entry = at / s.k, u = at % s.k, i = entry * j.p.h + u;
        const bool is = entry < j.p.batch && u < j.p.h, venus = j.p.chip == LGR_VENUS;
        const int8_t h = is ? (int8_t)code(j.h0, plan_of(j)->q_h, 8, i) : 0;
        s.state[0][at] = h;
        s.state[1][at] = s.reset[at] = 0;
        if (!is) return;
        if (j.h0_codes) j.h0_codes[i] = h;
        if (gates != 4) return;
        const int32_t c = code(j.c0, venus ? 7 : 15, venus ? 16 : 32, i);
        j.c_codes[i] = c;
        if (j.c0_codes) j.c0_codes[i] = c;
    }
};
struct padded_weights {
    const int8_t *w;
    recurrent_parts s;
    int64_t h;
    __device__ lgr::nothing_kept start() const { return {}; }
    __device__ void operator()(lgr::nothing_kept, int64_t at) const
    {
        const int64_t u = at / s.k % s.units, g = at / s.k / s.units, k = at % s.k;
        s.w[at] = u < h && k < h ? w[(g * h + u) * h + k] : 0;
    }
};
/* States in real units; behind a NaN they are NaN, and so is every row. */
struct results {
    lgr_recurrent_cuda_job j;
    int gates;
    __device__ lgr::nothing_kept start() const { return {}; }
    __device__ void operator()(lgr::nothing_kept, int64_t i) const
    {
        const recurrent_plan *d = plan_of(j);
        const float nan = lgr_exp2_scale(LGR_EXP2_NAN);
        const int64_t n = (int64_t)j.p.batch * j.p.h;
        if (i < n) {
            j.h_value[i] = d->nan ? nan : (float)j.h_codes[i] * lgr_exp2_scale(-d->q_h);
            if (gates == 4)
                j.c_value[i] =
                    d->nan ? nan
                           : (float)j.c_codes[i] * lgr_exp2_scale(j.p.chip == LGR_VENUS ? -7 : -15);
            if (d->nan) j.h_codes[i] = 0;
            if (d->nan && gates == 4) j.c_codes[i] = 0;
        }
        if (d->nan && i < j.p.rows * j.p.h) j.value[i] = nan;
        if (i != 0) return;
        *j.scale = d->nan ? nan : lgr_exp2_scale(d->q_h);
        lgr_recurrent p = j.p;
        p.q_h = d->q_h;
        lgr_recurrent_seen seen = {0, 0};
        if (gates == 4) lgr_lstm_seen(&p, d->peak, &seen);
        else lgr_gru_seen(&p, d->peak, &seen);
        *j.peak = d->nan ? nan : lgr_float_from_bits(seen.peak);
        if (j.saturated) *j.saturated = d->nan ? 0 : (int64_t)d->saturated;
    }
};
bool bad(const lgr_recurrent &p)
{
    enum { MOST = 1 << 16 };
    return p.chip < LGR_ARCS || p.chip > LGR_VENUS || p.d < 1 || p.h < 1 || p.d >= MOST ||
           p.h >= MOST || p.batch < 1 || p.steps < 1 || p.rows < p.batch || p.row_stride < 1 ||
           p.row_stride > p.rows;
}
} // namespace

extern "C" int64_t lgr_recurrent_cuda_bytes(const lgr_recurrent *p, int gates)
{
    return parts_of(p, gates, NULL).bytes;
}

lgr_status lgr::recurrent_begin(const lgr_recurrent_cuda_job *job, int gates, void *stream)
{
    if (job == NULL || job->scratch == NULL || !job->x_scale || !job->ih_scale || !job->hh_scale ||
        !job->h_scale || !job->x || !job->w_ih || !job->w_hh || !job->y || !job->value ||
        !job->h_codes || !job->h_value || !job->scale || !job->peak || !job->p.off || !job->p.n)
        return LGR_E_NULL;
    if (gates == 4 && (!job->c_codes || !job->c_value || !job->saturated)) return LGR_E_NULL;
    if (bad(job->p)) return LGR_E_RANGE;
    const lgr_recurrent &p = job->p;
    const recurrent_parts s = parts_of(&p, gates, job->scratch);
    const int64_t cells = p.rows * p.h, n = (int64_t)gates * p.h;
    lgr_status r = clear(job->y, cells, stream);
    if (r == LGR_OK) r = clear(job->value, cells * (int64_t)sizeof(float), stream);
    if (r == LGR_OK && job->saved) /* units that pad, rows of no step */
        r = clear(job->saved, lgr_recurrent_saved_bytes(&p, gates), stream);
    if (r == LGR_OK) r = launch(exponents, 1, 1, stream, *job, gates);
    if (r == LGR_OK) r = flat(biases{*job, s, n}, 2 * n, stream);
    if (r == LGR_OK) r = flat(states{*job, s, gates}, lgr_padded(p.batch, ENTRIES) * s.k, stream);
    if (r == LGR_OK) r = flat(padded_weights{job->w_hh, s, p.h}, gates * s.units * s.k, stream);
    if (r == LGR_OK) r = lgr_product_cuda(job->x, job->w_ih, p.rows, p.d, n, s.sums, stream);
    return r;
}
lgr_status lgr::recurrent_end(const lgr_recurrent_cuda_job *job, int gates, void *stream)
{
    const int64_t rows = job->p.rows * job->p.h; /* at least as many as states */
    return flat(results{*job, gates}, rows, stream);
}

/* gru_backward_cuda.cu - gru_gradients.h, a unit per thread, and the recurrent products of a step. */
#include "kernels/recurrent/grad_lanes_cuda.h"

#include "kernels/gru/gru_gradients.h"
#include "kernels/gru/gru_isa.h"
#include "kernels/recurrent/backward_cuda.h"

namespace {
struct gru_layer {
    static __device__ lgr_gru_grad operands(const back &b, double *slope)
    {
        lgr_gru_grad g = {};
        g.y = b.j.y;
        g.saved = b.j.saved;
        g.dy = b.j.dy;
        g.slope = slope;
        return g;
    }
    static __device__ void unit(const back &b, const plan &w, const spot &s, int64_t u,
                                double *slope)
    {
        lgr_recurrent p = b.j.p;
        p.exp2_ih = lgr_scale_exp2(*b.j.x_scale) + lgr_scale_exp2(*b.j.ih_scale);
        p.exp2_hh = lgr_scale_exp2(*b.j.h_scale) + lgr_scale_exp2(*b.j.hh_scale);
        const lgr_gru_grad g = operands(b, slope);
        some_gradients(p.chip, &w, &g, s.row, s.before, lgr_exp2_scale(-lgr_gru_base(&p)), 0, 0, u);
    }
    static __device__ void step(const back &b, int32_t i)
    {
        const int gate[4] = {2, 0, 1, 2}; /* of the planes, in W_hh */
        const int64_t h = b.j.p.h;
        if (b.j.p.chip != LGR_ARCS) {
            each_unit(b, i, h, [&](const spot &s, int64_t k) {
                b.dh[s.entry * b.hp + k] += recurrent(b, s, 0, 3, gate, k);
            });
            return;
        }
        each_unit(b, i, h, [&](const spot &s, int64_t k) {
            b.dc[s.entry * b.hp + k] = recurrent(b, s, 0, 1, gate, k);
        });
        each_unit(b, i, b.hp, [&](const spot &s, int64_t u) {
            const plan w = plan_of_row(b, s);
            const lgr_gru_grad g = operands(b, NULL);
            const float code = some_reset(&w, &g, s.row, s.before, 0, 0, u);
            if (u < h && b.j.reset) b.j.reset[s.row * h + u] = code * w.inv_h;
        });
        each_unit(b, i, h, [&](const spot &s, int64_t k) {
            b.dh[s.entry * b.hp + k] += recurrent(b, s, 1, 3, gate, k);
        });
    }
};
} // namespace

extern "C" lgr_status lgr_gru_backward_cuda(const lgr_recurrent_cuda_grad *job, void *stream)
{
    return backward<gru_layer>(job, stream);
}

/* lstm_backward_cuda.cu - lstm_gradients.h, a unit per thread, and the recurrent product of a step. */
#include "kernels/recurrent/grad_lanes_cuda.h"

#include "kernels/lstm/lstm_gradients.h"
#include "kernels/recurrent/backward_cuda.h"

namespace {
struct lstm_layer {
    static __device__ void unit(const back &b, const plan &w, const spot &s, int64_t u,
                                double *slope)
    {
        lgr_lstm_grad g = {};
        g.y = b.j.y;
        g.c0 = b.j.c0;
        g.saved = b.j.saved;
        g.dy = b.j.dy;
        g.slope = slope;
        some_gradients(b.j.p.chip, &w, &g, s.row, s.prev, s.entry, 0, 0, u);
    }
    static __device__ void step(const back &b, int32_t i)
    {
        const int gate[4] = {0, 1, 2, 3};
        each_unit(b, i, b.j.p.h, [&](const spot &s, int64_t k) {
            b.dh[s.entry * b.hp + k] = recurrent(b, s, 0, 4, gate, k);
        });
    }
};
} // namespace

extern "C" lgr_status lgr_lstm_backward_cuda(const lgr_recurrent_cuda_grad *job, void *stream)
{
    return backward<lstm_layer>(job, stream);
}
extern "C" int64_t lgr_recurrent_cuda_grad_bytes(const lgr_recurrent *p, int gates)
{
    (void)gates;
    return 2 * (int64_t)p->batch * lgr_padded(p->h, LGR_UNITS) * (int64_t)sizeof(float);
}

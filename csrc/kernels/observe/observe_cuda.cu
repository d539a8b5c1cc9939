/* observe_cuda.cu - one thread each: the rules are those of observe.h. */
#include "kernels/cuda/device.h"
#include "lgr/observe_cuda.h"

namespace {
__global__ void known(lgr_stats state, int32_t bits, int32_t cap, float *now)
{
    *now = lgr_exp2_scale(lgr_stats_known(&state, bits, cap));
}
__global__ void step(lgr_stats state, int32_t bits, int32_t cap, const float *peak)
{
    lgr_stats_step(&state, bits, cap, 1, *peak);
}
} // namespace

extern "C" lgr_status lgr_hidden_scale_cuda(const lgr_stats *state, int32_t bits, int32_t cap,
                                            float *now, void *stream)
{
    if (state == NULL || now == NULL) return LGR_E_NULL;
    if (bits < 2 || bits > 32) return LGR_E_RANGE;
    return lgr::launch(known, 1, 1, stream, *state, bits, cap, now);
}
extern "C" lgr_status lgr_hidden_observe_cuda(const lgr_stats *state, int32_t bits, int32_t cap,
                                              const float *peak, void *stream)
{
    if (state == NULL || peak == NULL) return LGR_E_NULL;
    if (bits < 2 || bits > 32) return LGR_E_RANGE;
    return lgr::launch(step, 1, 1, stream, *state, bits, cap, peak);
}

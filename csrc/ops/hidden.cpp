// hidden.cpp - the scale of a state that feeds back: known before the pass, its statistics moved after it. No arithmetic here.
#include "ops/state.h"

namespace {
using lgr::OptTensor;
using lgr::Tensor;

// The scale for the whole pass: the threshold's or the stored one, 2^(bits - 1) before any data.
Tensor hidden_scale(const Tensor &running, const Tensor &is_init, const Tensor &scale,
                    const OptTensor &threshold, int64_t bits, int64_t cap) {
    STD_TORCH_CHECK(running.numel() == 1 && is_init.numel() == 1 && scale.numel() == 1 &&
                        running.is_cpu() && is_init.is_cpu() && scale.is_cpu() &&
                        (!threshold || threshold->numel() == 1),
                    "hidden_scale: every state tensor must have one element, on the CPU");
    lgr_stats s = {};
    float largest = *running.const_data_ptr<float>(), stored = *scale.const_data_ptr<float>();
    s.running = &largest;
    uint8_t known = *lgr::flag("hidden_scale", is_init);
    s.is_init = &known;
    s.scale = &stored;
    s.threshold = threshold ? threshold->const_data_ptr<float>() : nullptr;
    const int32_t b = lgr::to_bits(bits, "hidden_scale"), most = lgr::to_i32(cap, "cap");
    return lgr::scale_of(lgr_stats_known(&s, b, most));
}

// Shows the largest state of a pass to the statistics.
void hidden_observe(const Tensor &peak, const lgr::State &state, int64_t bits, int64_t cap) {
    STD_TORCH_CHECK(peak.numel() == 1 && peak.is_cpu(),
                    "hidden_observe: peak must be one float32 on the CPU");
    const lgr_stats s = lgr::pointers("hidden_observe", state, peak);
    lgr_stats_step(&s, lgr::to_bits(bits, "hidden_observe"), lgr::to_i32(cap, "cap"), 1,
                   *peak.const_data_ptr<float>());
}
} // namespace

LGR_OPERATORS({"hidden_scale(Tensor running, Tensor is_init, Tensor scale, Tensor? threshold, "
               "int bits, int cap) -> Tensor",
               LGR_BOX(hidden_scale)},
              {"hidden_observe(Tensor peak, " LGR_STATE ", int bits, int cap) -> ()",
               LGR_BOX(hidden_observe)});

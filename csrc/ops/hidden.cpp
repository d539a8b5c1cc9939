// hidden.cpp - the scale of a state that feeds back: known before the pass, its statistics moved after it. No arithmetic here.
#include "lgr/observe_cuda.h"
#include "ops/device.h"

namespace {
using lgr::OptTensor;
using lgr::Tensor;

// The scale for the whole pass: the threshold's or the stored one, 2^(bits - 1) before any data.
Tensor hidden_scale(const Tensor &running, const Tensor &is_init, const Tensor &scale,
                    const OptTensor &threshold, int64_t bits, int64_t cap) {
    const char *op = "hidden_scale";
    const int32_t b = lgr::to_bits(bits, op), most = lgr::to_i32(cap, "cap");
    lgr::same_device(op, scale,
                     {{"running", running}, {"is_init", is_init}, {"threshold", threshold}});
    STD_TORCH_CHECK(running.numel() == 1 && is_init.numel() == 1 && scale.numel() == 1 &&
                        (!threshold || threshold->numel() == 1),
                    op, ": every state tensor must have one element");
    lgr_stats s = {}; // read alone
    s.running = const_cast<float *>(running.const_data_ptr<float>());
    s.is_init = lgr::flag(op, is_init);
    s.scale = const_cast<float *>(scale.const_data_ptr<float>());
    s.threshold = threshold ? threshold->const_data_ptr<float>() : nullptr;
    LGR_ON_GPU(scale) {
        const Tensor now = lgr::scalar_at(scale, aoti_torch_dtype_float32());
        const lgr::DeviceQueue queue(scale);
        lgr::check(
            lgr_hidden_scale_cuda(&s, b, most, now.mutable_data_ptr<float>(), queue.stream()), op);
        return now;
    }
    return lgr::scale_of(lgr_stats_known(&s, b, most));
}

// Shows the largest state of a pass to the statistics.
void hidden_observe(const Tensor &peak, const lgr::State &state, int64_t bits, int64_t cap) {
    STD_TORCH_CHECK(peak.numel() == 1, "hidden_observe: peak must be one float32");
    const lgr_stats s = lgr::pointers("hidden_observe", state, peak);
    const int32_t b = lgr::to_bits(bits, "hidden_observe"), most = lgr::to_i32(cap, "cap");
    const float *at = peak.const_data_ptr<float>();
    LGR_ON_GPU(peak) {
        const lgr::DeviceQueue queue(peak);
        return lgr::check(lgr_hidden_observe_cuda(&s, b, most, at, queue.stream()),
                          "hidden_observe");
    }
    lgr_stats_step(&s, b, most, 1, *at);
}
} // namespace

LGR_OPERATORS({"hidden_scale(Tensor running, Tensor is_init, Tensor scale, Tensor? threshold, "
               "int bits, int cap) -> Tensor",
               LGR_BOX(hidden_scale)},
              {"hidden_observe(Tensor peak, " LGR_STATE ", int bits, int cap) -> ()",
               LGR_BOX(hidden_observe)});

// state.h - the five state tensors (and the threshold) of a quantizer, as pointers; and a range that threads merge.
//
// Use in an operator with a fused output quantizer:
//   const lgr_stats st = lgr::state("conv", running, is_init, scale, n_batches, n_skipped, threshold);
//   int32_t e = lgr_stats_guess(&st, bits, cap);      // LGR_EXP2_NONE: nothing known, find the maximum first
//   ... run with e, merge the range ...
//   const int32_t now = lgr_stats_step(&st, bits, cap, flags & LGR_OBSERVE, peak);   // exactly once per call
//   if (now != e) ... run again with now; LGR_EXP2_NAN: value NaN, codes 0, mask 0, slope 0
//   return scale_of(now);
#pragma once
#include "ops/tensor.h"

// The schema text of STATE and what follows it.
#define LGR_STATISTICS_SCHEMA                                                                      \
    "Tensor(a!) running, Tensor(b!) is_init, Tensor(c!) scale, Tensor(d!) n_batches, "             \
    "Tensor(e!) n_skipped"
#define LGR_STATE_SCHEMA LGR_STATISTICS_SCHEMA ", Tensor? threshold"

namespace lgr {
// A flag is uint8, so that averages of models can average it, or bool.
inline uint8_t *flag(const char *op, const Tensor &t) {
    const auto type = t.scalar_type();
    STD_TORCH_CHECK(type == torch::headeronly::ScalarType::Byte ||
                        type == torch::headeronly::ScalarType::Bool,
                    op, ": is_init must be uint8 or bool");
    return static_cast<uint8_t *>(t.mutable_data_ptr());
}

inline lgr_stats state(const char *op, const Tensor &running, const Tensor &is_init,
                       const Tensor &scale, const Tensor &n_batches, const Tensor &n_skipped,
                       const std::optional<Tensor> &threshold) {
    STD_TORCH_CHECK(running.numel() == 1 && is_init.numel() == 1 && scale.numel() == 1 &&
                        n_batches.numel() == 1 && n_skipped.numel() == 1 &&
                        (!threshold || threshold->numel() == 1),
                    op, ": every state tensor must have one element");
    STD_TORCH_CHECK(running.is_cpu() && is_init.is_cpu() && scale.is_cpu() && n_batches.is_cpu() &&
                        n_skipped.is_cpu() && (!threshold || threshold->is_cpu()),
                    op, ": every state tensor must be on the CPU, where x is");
    lgr_stats s;
    s.running = running.mutable_data_ptr<float>();
    s.is_init = flag(op, is_init);
    s.scale = scale.mutable_data_ptr<float>();
    s.n_batches = n_batches.mutable_data_ptr<int64_t>();
    s.n_skipped = n_skipped.mutable_data_ptr<int64_t>();
    s.threshold = threshold ? threshold->const_data_ptr<float>() : nullptr;
    return s;
}

// One integer instead of three: an argument costs a call 0.2 us. Packed by linger/ops/spec.py.
struct Settings {
    int32_t bits, rounding;
    bool observe, relu;
};
inline Settings unpack(int64_t settings, const char *op) {
    const int64_t flags = settings >> 16;
    return {to_bits(settings & 255, op), to_rounding(settings >> 8 & 255, op),
            (flags & LGR_OBSERVE) != 0, (flags & LGR_RELU) != 0};
}

// What `quantize` can make; its three operators return what was asked for: a result costs a call 0.5 us.
struct Made {
    Tensor value, codes, scale;
    std::optional<Tensor> mask, slope;
};
using Three = std::tuple<Tensor, Tensor, Tensor>;
using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using Five = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

// The operators quantize, quantize_mask and quantize_slope of one device: what the caller reads of what `make` made.
template <auto make> struct QuantizeForms {
    static Three plain(const Tensor &x, const Tensor &running, const Tensor &is_init,
                       const Tensor &scale, const Tensor &n_batches, const Tensor &n_skipped,
                       int64_t settings, const std::optional<Tensor> &threshold, double clamp) {
        auto q = make(x, running, is_init, scale, n_batches, n_skipped, settings, threshold, clamp,
                      false);
        return {q.value, q.codes, q.scale};
    }
    static Four mask(const Tensor &x, const Tensor &running, const Tensor &is_init,
                     const Tensor &scale, const Tensor &n_batches, const Tensor &n_skipped,
                     int64_t settings, double clamp) {
        auto q = make(x, running, is_init, scale, n_batches, n_skipped, settings, std::nullopt,
                      clamp, true);
        return {q.value, q.codes, q.scale, *q.mask};
    }
    static Five slope(const Tensor &x, const Tensor &running, const Tensor &is_init,
                      const Tensor &scale, const Tensor &n_batches, const Tensor &n_skipped,
                      int64_t settings, const Tensor &threshold, double clamp) {
        auto q = make(x, running, is_init, scale, n_batches, n_skipped, settings, threshold, clamp,
                      true);
        return {q.value, q.codes, q.scale, *q.mask, *q.slope};
    }
};

// Whether the slope of a TQT quantizer is zero everywhere: its exponent was clipped, or lowered by cap.
inline bool slope_is_zero(const lgr_stats &s, int32_t bits, int32_t cap) {
    return s.threshold && !lgr_threshold_moves(*s.threshold, bits, cap);
}

// The range of a tensor whose blocks are seen by several threads.
class Range {
  public:
    void merge(lgr_range r) {
        raise(abs_, r.abs);
        raise(max_, r.max);
    }
    lgr_range get() const { return {abs_.load(), max_.load()}; }
    float peak(bool relu, double clamp) const {
        return lgr_range_peak(get(), relu, static_cast<float>(clamp));
    }

  private:
    static void raise(std::atomic<int32_t> &to, int32_t v) {
        int32_t cur = to.load(std::memory_order_relaxed);
        while (v > cur && !to.compare_exchange_weak(cur, v)) {}
    }
    std::atomic<int32_t> abs_{0}, max_{0};
};
} // namespace lgr

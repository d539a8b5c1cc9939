// state.h - the state of a quantizer as pointers, and the exponent of a call: guessed, and settled by what the call has seen.
#pragma once
#include "ops/box.h"

namespace lgr {
// A flag is uint8, so that averages of models can average it, or bool.
inline uint8_t *flag(const char *op, const Tensor &t) {
    const auto type = t.scalar_type();
    STD_TORCH_CHECK(type == ScalarType::Byte || type == ScalarType::Bool, op,
                    ": is_init must be uint8 or bool");
    return static_cast<uint8_t *>(t.mutable_data_ptr());
}

// The pointers behind s, every tensor of which must be where `like` is.
inline lgr_stats pointers(const char *op, const State &s, const Tensor &like) {
    const Tensor *const all[] = {&s.running,   &s.is_init,   &s.scale,
                                 &s.n_batches, &s.n_skipped, s.threshold ? &*s.threshold : nullptr};
    const bool cpu = like.is_cpu();
    const int32_t index = cpu ? 0 : like.get_device_index();
    for (const Tensor *t : all) {
        STD_TORCH_CHECK(!t || t->numel() == 1, op, ": every state tensor must have one element");
        STD_TORCH_CHECK(!t || (t->is_cpu() == cpu && (cpu || t->get_device_index() == index)), op,
                        ": every state tensor must be on the ", cpu ? "CPU" : "GPU",
                        ", where x is");
    }
    return {s.running.mutable_data_ptr<float>(),
            flag(op, s.is_init),
            s.scale.mutable_data_ptr<float>(),
            s.n_batches.mutable_data_ptr<int64_t>(),
            s.n_skipped.mutable_data_ptr<int64_t>(),
            s.threshold ? s.threshold->const_data_ptr<float>() : nullptr};
}

// Whether the slope of a TQT quantizer is zero everywhere: its exponent was clipped, or lowered by cap.
inline bool slope_is_zero(const lgr_stats &s, int32_t bits, int32_t cap) {
    return s.threshold && !lgr_threshold_moves(*s.threshold, bits, cap);
}

// The exponent of a call on the host, and the state moved by it, once. pass(exp2, look) computes everything with exp2 and,
// where it shall look, returns the largest value before rounding; LGR_EXP2_NONE: it only looks. The first pass runs with the
// guessed exponent; a stale guess costs a second one. LGR_EXP2_NAN: the result is NaN, and no pass has written it.
template <class Pass>
int32_t settle(const lgr_stats &s, int32_t bits, int32_t cap, bool observe, Pass &&pass) {
    int32_t guess = lgr_stats_guess(&s, bits, cap);
    if (guess == LGR_EXP2_NAN) guess = LGR_EXP2_NONE;
    const int32_t now = lgr_stats_step(&s, bits, cap, observe, pass(guess, true));
    if (now != LGR_EXP2_NAN && now != guess) pass(now, false);
    return now;
}
// The same where an operand is NaN.
inline int32_t settle_nan(const lgr_stats &s, int32_t bits, bool observe) {
    return lgr_stats_step(&s, bits, LGR_EXP2_MAX, observe, lgr_exp2_scale(LGR_EXP2_NAN));
}

// The largest of what several threads have seen.
template <class T> class Largest {
  public:
    void raise(T v) {
        T cur = v_.load(std::memory_order_relaxed);
        while (v > cur && !v_.compare_exchange_weak(cur, v)) {}
    }
    T get() const { return v_.load(); }

  private:
    std::atomic<T> v_{0};
};

// The range of a float tensor.
class Range {
  public:
    void merge(lgr_range r) {
        abs_.raise(r.abs);
        max_.raise(r.max);
    }
    float peak(bool relu, double clamp) const {
        return lgr_range_peak({abs_.get(), max_.get()}, relu, static_cast<float>(clamp));
    }

  private:
    Largest<int32_t> abs_, max_;
};
} // namespace lgr

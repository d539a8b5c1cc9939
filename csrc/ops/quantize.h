// quantize.h - quantizing a float tensor and moving the state, for activations and weights. No arithmetic here.
#pragma once
#include "ops/output.h"

namespace lgr {
inline void check_float(const Tensor &x, const char *op, const char *name) {
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, op, ": ", name, " must be float32");
}

inline void quantize_pass(const Tensor &x, const lgr_quantize_params &p,
                          const lgr_quantize_out &out, Range *range, const char *op) {
    const float *src = x.const_data_ptr<float>();
    for_blocks(x.numel(), op, [=](int64_t at, int64_t n) {
        const lgr_quantize_out to = lgr_quantize_out_at(out, at, p.bits);
        lgr_range seen = {0, 0};
        const lgr_status s = lgr_quantize_f32(src + at, n, &p, &to, range ? &seen : nullptr);
        if (range) range->merge(seen);
        return s;
    });
}

inline void observe_all(const Tensor &x, Range *range, const char *op) {
    const float *src = x.const_data_ptr<float>();
    for_blocks(x.numel(), op, [=](int64_t at, int64_t n) {
        lgr_range seen = {0, 0};
        const lgr_status s = lgr_observe_f32(src + at, n, &seen);
        range->merge(seen);
        return s;
    });
}

// Moves the state and writes every result with the exponent that follows.
inline int32_t with_state(const Tensor &x, const lgr_stats &state, lgr_quantize_params p,
                          int32_t cap, bool observe, const lgr_quantize_out &out, const char *op) {
    const bool moves = observe && x.numel() > 0; // an empty batch says nothing
    p.no_slope = slope_is_zero(state, p.bits, cap);
    return settle(state, p.bits, cap, moves, [&](int32_t exp2, bool look) {
        Range range;
        p.exp2 = exp2;
        if (exp2 == LGR_EXP2_NONE) observe_all(x, &range, op);
        else quantize_pass(x, p, out, look ? &range : nullptr, op);
        return range.peak(p.relu, p.clamp);
    });
}

// The cap that keeps the bias inside 32 bits, and whether the bias holds a NaN.
struct BiasLimit {
    int32_t cap = LGR_EXP2_MAX;
    bool nan = false;
};
inline BiasLimit bias_limit(const OptTensor &bias, const OptTensor &x_scale) {
    BiasLimit limit;
    if (!bias) return limit;
    check_float(*bias, "quantize_weight", "bias");
    const Tensor b = lgr::contiguous(*bias);
    lgr_range range = {0, 0};
    check(lgr_observe_f32(b.const_data_ptr<float>(), b.numel(), &range), "quantize_weight");
    const float peak = lgr_range_peak(range, 0, 0.0f);
    limit.nan = peak != peak;
    if (x_scale) limit.cap = lgr_bias_cap(peak, exp2_of(*x_scale, "quantize_weight"));
    return limit;
}
} // namespace lgr

// cat.cpp - the common scale of concatenated tensors, and each tensor brought to it. No arithmetic here.
#include "lgr/rescale.h"
#include "ops/output.h"
#include <cmath>
#include <vector>

namespace {
using lgr::Tensor;

// Largest |x| of all operands in real units.
float peak_of(const std::vector<Tensor> &codes, const std::vector<int32_t> &exp2) {
    double peak = 0.0;
    for (size_t i = 0; i < codes.size(); ++i) {
        const Tensor in = lgr::dense(codes[i]);
        const int64_t top =
            lgr_peak_codes(in.const_data_ptr(), lgr::code_bytes(in, "cat_scale"), in.numel());
        peak = std::fmax(peak, static_cast<double>(top) * lgr_exp2_f64(-exp2[i]));
    }
    return static_cast<float>(peak);
}

// widest: the result takes the largest scale of the operands (a chip that shifts left only), whatever the statistics
// say; else it is at most `left` bits finer than the coarsest operand.
std::tuple<Tensor, Tensor> cat_scale(const std::vector<Tensor> &codes,
                                     const std::vector<Tensor> &scales, const lgr::State &state,
                                     int64_t bits, int64_t left, bool widest, int64_t flags) {
    STD_TORCH_CHECK(!codes.empty() && codes.size() == scales.size(),
                    "cat_scale: one scale per operand, at least one operand");
    const lgr_stats st = lgr::pointers("cat_scale", state, codes[0]);
    const int32_t b = lgr::to_bits(bits, "cat_scale");
    STD_TORCH_CHECK(left >= 0 && left <= 63, "cat_scale: left must be in [0, 63], got ", left);
    std::vector<int32_t> exp2;
    int32_t low = LGR_EXP2_MAX, high = -LGR_EXP2_MAX;
    int64_t n = 0;
    bool nan = false;
    for (size_t i = 0; i < codes.size(); ++i) {
        exp2.push_back(lgr::exp2_of(scales[i], "cat_scale"));
        n += codes[i].numel();
        nan = nan || exp2[i] == LGR_EXP2_NAN;
        low = exp2[i] < low ? exp2[i] : low;
        high = exp2[i] > high ? exp2[i] : high;
    }
    const bool observe = (flags & LGR_OBSERVE) && n > 0;
    const int32_t reach = nan ? 0 : low + static_cast<int32_t>(left);
    const int32_t cap = nan || widest || reach > LGR_EXP2_MAX ? LGR_EXP2_MAX : reach;
    const bool blind = !nan && lgr_stats_guess(&st, b, cap) == LGR_EXP2_NONE;
    float peak = nan ? lgr_exp2_scale(LGR_EXP2_NAN) : 0.0f;
    if (!nan && !st.threshold && (observe || blind)) peak = peak_of(codes, exp2);
    int32_t now = lgr_stats_step(&st, b, cap, observe, peak);
    if (widest && now != LGR_EXP2_NAN) {
        now = high;
        if (observe && peak < INFINITY) *st.scale = lgr_exp2_scale(now);
    }
    const Tensor moves = lgr::fresh(nullptr, 0, aoti_torch_dtype_float32());
    const bool follows = st.threshold && !widest && !lgr::slope_is_zero(st, b, cap);
    *moves.mutable_data_ptr<float>() = follows ? 1.0f : 0.0f;
    return {lgr::scale_of(now), moves};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> rescale(const Tensor &x, const Tensor &x_scale,
                                                   const Tensor &scale, int64_t bits,
                                                   int64_t rounding, int64_t flags, bool tqt) {
    const Tensor in = lgr::dense(x);
    lgr_rescale_params p = {};
    p.exp2_x = lgr::exp2_of(x_scale, "rescale");
    p.exp2 = p.exp2_x == LGR_EXP2_NAN ? p.exp2_x : lgr::exp2_of(scale, "rescale");
    p.bits = lgr::to_bits(bits, "rescale");
    p.bytes = lgr::code_bytes(in, "rescale");
    p.rounding = lgr::to_rounding(rounding, "rescale");
    const int64_t n = in.numel();
    const lgr::Results results(p.bits, (flags & LGR_GRAD) != 0, tqt, lgr_mask_bytes(n),
                               [&](int32_t dtype) { return lgr::fresh_like(in, dtype); });
    const lgr_quantize_out out = results.flat();
    const char *src = static_cast<const char *>(in.const_data_ptr());
    lgr::for_blocks(n, "rescale", [=](int64_t at, int64_t count) {
        const lgr_quantize_out to = lgr_quantize_out_at(out, at, p.bits);
        return lgr_rescale(src + at * p.bytes, count, &p, &to);
    });
    return {*results.value, results.codes, results.mask_or_absent(), results.slope_or_absent()};
}
} // namespace

LGR_OPERATORS({"cat_scale(Tensor[] codes, Tensor[] scales, " LGR_STATE
               ", int bits, int left, bool widest, int flags) -> (Tensor scale_now, Tensor moves)",
               LGR_BOX(cat_scale)},
              {"rescale(Tensor x, Tensor x_scale, Tensor to_scale, int bits, int rounding, "
               "int flags, bool tqt) -> (Tensor value, Tensor codes, Tensor mask, Tensor slope)",
               LGR_BOX(rescale)});

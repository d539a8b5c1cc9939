// fake_quantize.cpp - float tensors to 8-bit values in one pass, with a range that moves. No arithmetic here.
#include "lgr/fake_quantize.h"
#include "ops/errors.h"

namespace {
using lgr::ScalarType;
using lgr::Tensor;

void check_float(const Tensor &x, const char *op, const char *name) {
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, op, ": ", name, " must be float32");
}

// x, and what its quantization fills.
struct Pass {
    Tensor x, value, mask;
    const char *op;
    lgr_quantize_params p = {};

    Pass(const Tensor &from, bool grad, int32_t rounding, const char *name)
        : x(lgr::dense(from)), value(lgr::fresh_like(x, aoti_torch_dtype_float32())),
          mask(lgr::fresh_1d(grad ? lgr_mask_bytes(x.numel()) : 0, aoti_torch_dtype_uint8())),
          op(name) {
        p.bits = LGR_RANGE_BITS;
        p.rounding = rounding;
        p.stream = x.numel() >= lgr::kStream;
    }
    void quantize(int32_t exp2, lgr::Range *range) {
        p.exp2 = exp2;
        lgr_quantize_out out = {};
        out.value = value.mutable_data_ptr<float>();
        if (mask.numel()) out.mask = mask.mutable_data_ptr<uint8_t>();
        const float *src = x.const_data_ptr<float>();
        const lgr_quantize_params how = p;
        lgr::for_blocks(x.numel(), op, [=](int64_t at, int64_t n) {
            const lgr_quantize_out to = lgr_quantize_out_at(out, at, how.bits);
            lgr_range seen = {0, 0};
            const lgr_status s = lgr_quantize_f32(src + at, n, &how, &to, range ? &seen : nullptr);
            if (range) range->merge(seen);
            return s;
        });
    }
};

std::tuple<Tensor, Tensor> fake_quantize(const Tensor &x, const Tensor &state, int64_t flags) {
    const char *const op = "fake_quantize";
    check_float(x, op, "x");
    check_float(state, op, "state");
    STD_TORCH_CHECK(state.is_cpu() && state.is_contiguous() && state.numel() == LGR_RANGE_STATE, op,
                    ": state must have ", int{LGR_RANGE_STATE}, " elements on the CPU, got ",
                    state.numel());
    Pass pass(x, (flags & LGR_GRAD) != 0, LGR_FLOOR_ADD, op);
    if (pass.x.numel() == 0) return {pass.value, pass.mask}; // an empty batch says nothing
    float *range = state.mutable_data_ptr<float>();
    if (flags & LGR_CALIBRATE) {
        double error[LGR_RANGE_EXPS] = {0};
        lgr::add_errors(pass.x, lgr_range_errors(), error, op);
        pass.quantize(lgr_range_calibrate(range, lgr::peak_of(pass.x, op), error), nullptr);
        return {pass.value, pass.mask};
    }
    const int32_t guess = lgr_range_guess(range);
    lgr::Range seen;
    if (guess != LGR_EXP2_NONE) pass.quantize(guess, &seen);
    const float peak = guess == LGR_EXP2_NONE ? lgr::peak_of(pass.x, op) : seen.peak(false, 0.0);
    const int32_t now = lgr_range_step(range, (flags & LGR_OBSERVE) != 0, peak);
    if (now != guess) pass.quantize(now, nullptr);
    return {pass.value, pass.mask};
}

std::tuple<Tensor, Tensor, Tensor> fake_quantize_weight(const Tensor &w, int64_t flags) {
    const char *const op = "fake_quantize_weight";
    check_float(w, op, "w");
    Pass pass(w, (flags & LGR_GRAD) != 0, LGR_HALF_EVEN, op);
    const float peak = lgr::peak_of(pass.x, op);
    int32_t e = LGR_EXP2_NAN;
    if (peak == peak) {
        const lgr_squared_error_params how = lgr_range_weight_errors(peak);
        double error[2] = {0};
        lgr::add_errors(pass.x, how, error, op);
        e = lgr_range_weight_exp2(how.exp2, error);
    }
    pass.quantize(e, nullptr);
    return {pass.value, pass.mask, lgr::scale_of(e)};
}
} // namespace

LGR_OPERATORS(
    {"fake_quantize(Tensor x, Tensor(a!) state, int flags) -> (Tensor value, Tensor mask)",
     LGR_BOX(fake_quantize), lgr::Devices::CPU},
    {"fake_quantize_weight(Tensor w, int flags) -> "
     "(Tensor value, Tensor mask, Tensor scale)",
     LGR_BOX(fake_quantize_weight), lgr::Devices::CPU});

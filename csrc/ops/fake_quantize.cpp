// fake_quantize.cpp - float tensors to 8-bit values in one pass, with a range that moves. No arithmetic here.
#include "lgr/fake_quantize.h"
#include "ops/state.h"
#include <vector>

namespace {
using lgr::ScalarType;
using lgr::Tensor;

void check_float(const Tensor &x, const char *op, const char *name) {
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, op, ": ", name, " must be float32");
}

static_assert(lgr::kBlock == LGR_ERROR_BLOCK, "sums are split where threads are");

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
    float peak() const {
        lgr::Range range;
        const float *src = x.const_data_ptr<float>();
        lgr::for_blocks(x.numel(), op, [&range, src](int64_t at, int64_t n) {
            lgr_range seen = {0, 0};
            const lgr_status s = lgr_observe_f32(src + at, n, &seen);
            range.merge(seen);
            return s;
        });
        return range.peak(false, 0.0);
    }
    // Blocks in parallel, their sums added in order.
    void errors(const lgr_squared_error_params &how, double *sum) const {
        const int64_t n = x.numel(), blocks = (n + lgr::kBlock - 1) / lgr::kBlock;
        const int32_t k = how.n_exp2;
        std::vector<double> parts(static_cast<size_t>(blocks * k));
        const float *src = x.const_data_ptr<float>();
        double *part = parts.data();
        lgr::for_range(blocks, 1, op, [=, &how](int64_t b, int64_t e) {
            lgr_status bad = LGR_OK;
            for (; b < e; ++b) {
                const int64_t at = b * lgr::kBlock;
                const int64_t count = n - at < lgr::kBlock ? n - at : lgr::kBlock;
                if (const lgr_status r = lgr_squared_error_f32(src + at, count, &how, part + b * k))
                    bad = r;
            }
            return bad;
        });
        for (int64_t i = 0; i < blocks * k; ++i) sum[i % k] += part[i];
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
        pass.errors(lgr_range_errors(), error);
        pass.quantize(lgr_range_calibrate(range, pass.peak(), error), nullptr);
        return {pass.value, pass.mask};
    }
    const int32_t guess = lgr_range_guess(range);
    lgr::Range seen;
    if (guess != LGR_EXP2_NONE) pass.quantize(guess, &seen);
    const float peak = guess == LGR_EXP2_NONE ? pass.peak() : seen.peak(false, 0.0);
    const int32_t now = lgr_range_step(range, (flags & LGR_OBSERVE) != 0, peak);
    if (now != guess) pass.quantize(now, nullptr);
    return {pass.value, pass.mask};
}

std::tuple<Tensor, Tensor, Tensor> fake_quantize_weight(const Tensor &w, int64_t flags) {
    const char *const op = "fake_quantize_weight";
    check_float(w, op, "w");
    Pass pass(w, (flags & LGR_GRAD) != 0, LGR_HALF_EVEN, op);
    const float peak = pass.peak();
    int32_t e = LGR_EXP2_NAN;
    if (peak == peak) {
        const lgr_squared_error_params how = lgr_range_weight_errors(peak);
        double error[2] = {0};
        pass.errors(how, error);
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

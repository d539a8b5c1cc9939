// add.cpp - sum and difference of two quantized tensors; shifts of codes. No arithmetic here.
#include "lgr/add.h"
#include "ops/pair.h"
#include "ops/state.h"

namespace {
using lgr::Tensor;

void pass(const lgr::Pair &in, const lgr_add_params &p, const lgr_quantize_out &out,
          lgr::Range *range) {
    const char *xp = in.at_x(0), *yp = in.at_y(0);
    lgr::for_blocks(in.x.numel(), "add", [=](int64_t at, int64_t n) {
        const lgr_quantize_out to = lgr_quantize_out_at(out, at, p.bits);
        lgr_range seen = {0, 0};
        const lgr_status s =
            lgr_add(xp + at * p.bytes, yp + at * p.bytes, n, &p, &to, range ? &seen : nullptr);
        if (range) range->merge(seen);
        return s;
    });
}

using Result = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

Result run(bool minus, const Tensor &x, const Tensor &x_scale, const Tensor &y,
           const Tensor &y_scale, const Tensor &running, const Tensor &is_init, const Tensor &scale,
           const Tensor &n_batches, const Tensor &n_skipped, const std::optional<Tensor> &threshold,
           int64_t bits, double clamp, int64_t rounding, int64_t flags) {
    const lgr_stats st =
        lgr::state("add", running, is_init, scale, n_batches, n_skipped, threshold);
    const lgr::Pair in(x, y, "add");
    const int64_t n = in.x.numel();
    lgr_add_params p = {};
    p.exp2_x = lgr::exp2_of(x_scale, "add");
    p.exp2_y = lgr::exp2_of(y_scale, "add");
    const bool nan = p.exp2_x == LGR_EXP2_NAN || p.exp2_y == LGR_EXP2_NAN;
    const int32_t cap = p.exp2_x < p.exp2_y ? p.exp2_x : p.exp2_y;
    p.bits = lgr::to_bits(bits, "add");
    p.bytes = in.bytes;
    p.rounding = lgr::to_rounding(rounding, "add");
    p.relu = (flags & LGR_RELU) != 0;
    p.stream = n >= lgr::kStreamValues;
    p.minus = minus;
    p.no_slope = lgr::slope_is_zero(st, p.bits, cap);
    p.clamp = static_cast<float>(clamp);
    const bool grad = (flags & LGR_GRAD) != 0, slope = grad && threshold,
               observe = (flags & LGR_OBSERVE) && n > 0;
    const Tensor value = lgr::fresh_like(in.x, aoti_torch_dtype_float32());
    const Tensor codes = lgr::fresh_like(in.x, lgr::code_dtype(p.bits));
    const Tensor mask = lgr::fresh_1d(grad ? lgr_mask_bytes(n) : 0, aoti_torch_dtype_uint8());
    const Tensor slopes = slope ? lgr::fresh_like(in.x, aoti_torch_dtype_float32())
                                : lgr::absent(aoti_torch_dtype_float32());
    lgr_quantize_out out = {};
    out.value = value.mutable_data_ptr<float>();
    out.codes = codes.mutable_data_ptr();
    if (grad) out.mask = mask.mutable_data_ptr<uint8_t>();
    if (slope) out.slope = slopes.mutable_data_ptr<float>();

    lgr::Range range;
    int32_t now = LGR_EXP2_NAN;
    p.exp2 = nan ? LGR_EXP2_NONE : lgr_stats_guess(&st, p.bits, cap);
    if (nan) {
        now = lgr_stats_step(&st, p.bits, LGR_EXP2_MAX, observe, lgr_exp2_scale(LGR_EXP2_NAN));
    } else {
        const bool known = p.exp2 != LGR_EXP2_NONE && p.exp2 != LGR_EXP2_NAN;
        if (!known) p.exp2 = cap; // for the maximum alone
        pass(in, p, known ? out : lgr_quantize_out{}, observe || !known ? &range : nullptr);
        now = lgr_stats_step(&st, p.bits, cap, observe, range.peak(p.relu, clamp));
        if (!known) p.exp2 = LGR_EXP2_NONE;
    }
    if (now != p.exp2) {
        p.exp2 = now;
        pass(in, p, out, nullptr);
    }
    return {value, codes, lgr::scale_of(now), mask, slopes};
}

Result add(const Tensor &x, const Tensor &x_scale, const Tensor &y, const Tensor &y_scale,
           const Tensor &running, const Tensor &is_init, const Tensor &scale,
           const Tensor &n_batches, const Tensor &n_skipped, const std::optional<Tensor> &threshold,
           int64_t bits, double clamp, int64_t rounding, int64_t flags) {
    return run(false, x, x_scale, y, y_scale, running, is_init, scale, n_batches, n_skipped,
               threshold, bits, clamp, rounding, flags);
}

Result sub(const Tensor &x, const Tensor &x_scale, const Tensor &y, const Tensor &y_scale,
           const Tensor &running, const Tensor &is_init, const Tensor &scale,
           const Tensor &n_batches, const Tensor &n_skipped, const std::optional<Tensor> &threshold,
           int64_t bits, double clamp, int64_t rounding, int64_t flags) {
    return run(true, x, x_scale, y, y_scale, running, is_init, scale, n_batches, n_skipped,
               threshold, bits, clamp, rounding, flags);
}

Tensor run_codes(int32_t minus, const Tensor &x, const Tensor &y, int64_t shift_x, int64_t shift_y,
                 int64_t bits) {
    const lgr::Pair in(x, y, "add_codes");
    const int32_t b = lgr::to_bits(bits, "add_codes"), sx = lgr::to_i32(shift_x, "shift_x"),
                  sy = lgr::to_i32(shift_y, "shift_y");
    const Tensor out = lgr::fresh_like(in.x, lgr::code_dtype(b));
    char *dst = static_cast<char *>(out.mutable_data_ptr());
    const char *xp = in.at_x(0), *yp = in.at_y(0);
    const int32_t bytes = in.bytes;
    lgr::for_blocks(in.x.numel(), "add_codes", [=](int64_t at, int64_t n) {
        return lgr_add_codes(xp + at * bytes, yp + at * bytes, bytes, n, sx, sy, b, minus,
                             dst + at * (b <= 8 ? 1 : 4));
    });
    return out;
}

Tensor add_codes(const Tensor &x, const Tensor &y, int64_t shift_x, int64_t shift_y, int64_t bits) {
    return run_codes(0, x, y, shift_x, shift_y, bits);
}

Tensor sub_codes(const Tensor &x, const Tensor &y, int64_t shift_x, int64_t shift_y, int64_t bits) {
    return run_codes(1, x, y, shift_x, shift_y, bits);
}

Tensor requant_codes(const Tensor &x, int64_t shift, int64_t bits) {
    const int32_t bytes = lgr::code_bytes(x, "requant_codes"),
                  b = lgr::to_bits(bits, "requant_codes"), s = lgr::to_i32(shift, "shift");
    const Tensor in = lgr::dense(x), out = lgr::fresh_like(in, lgr::code_dtype(b));
    const char *src = static_cast<const char *>(in.const_data_ptr());
    char *dst = static_cast<char *>(out.mutable_data_ptr());
    lgr::for_blocks(in.numel(), "requant_codes", [=](int64_t at, int64_t n) {
        return lgr_requant(src + at * bytes, bytes, n, s, b, dst + at * (b <= 8 ? 1 : 4));
    });
    return out;
}
} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(linger, m) {
    m.def("add(Tensor x, Tensor x_scale, Tensor y, Tensor y_scale, " LGR_STATE_SCHEMA
          ", int bits, float clamp, int rounding, int flags) -> "
          "(Tensor value, Tensor codes, Tensor scale_now, Tensor mask, Tensor slope)");
    m.def("add_codes(Tensor x, Tensor y, int shift_x, int shift_y, int bits) -> Tensor");
    m.def("sub(Tensor x, Tensor x_scale, Tensor y, Tensor y_scale, " LGR_STATE_SCHEMA
          ", int bits, float clamp, int rounding, int flags) -> "
          "(Tensor value, Tensor codes, Tensor scale_now, Tensor mask, Tensor slope)");
    m.def("sub_codes(Tensor x, Tensor y, int shift_x, int shift_y, int bits) -> Tensor");
    m.def("requant_codes(Tensor x, int shift, int bits) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(linger, CPU, m) {
    m.impl("add", TORCH_BOX(&add));
    m.impl("add_codes", TORCH_BOX(&add_codes));
    m.impl("sub", TORCH_BOX(&sub));
    m.impl("sub_codes", TORCH_BOX(&sub_codes));
    m.impl("requant_codes", TORCH_BOX(&requant_codes));
}

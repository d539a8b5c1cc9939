// mul.cpp - element-wise product of two quantized tensors of one shape. No arithmetic here.
#include "lgr/mul.h"
#include "ops/convolution.h"
#include "ops/pair.h"

namespace {
using lgr::Tensor;

void products(const lgr::Pair &in, const lgr_epilogue &ep, const lgr_outputs &out,
              lgr::Extremes *extremes) {
    const char *xp = in.at_x(0), *yp = in.at_y(0);
    const int32_t bytes = in.bytes;
    const int64_t total = in.x.numel();
    lgr::for_blocks(total, "mul", [=](int64_t at, int64_t n) {
        int64_t seen[2] = {0, 0};
        const lgr_status s =
            lgr_mul(xp + at * bytes, yp + at * bytes, bytes, n, at, total, &ep, &out, seen);
        if (extremes) extremes->merge(seen);
        return s;
    });
}

lgr_epilogue epilogue(const char *op, const lgr_epilogue_spec &spec) {
    lgr_epilogue ep;
    lgr::check(lgr_epilogue_make(&spec, &ep), op);
    return ep;
}

void code_pointer(lgr_outputs &out, const Tensor &codes, int32_t bits) {
    if (bits <= 8) out.code8 = codes.mutable_data_ptr<int8_t>();
    else out.code32 = codes.mutable_data_ptr<int32_t>();
}

lgr::Coded mul(const Tensor &x, const Tensor &x_scale, const Tensor &y, const Tensor &y_scale,
               const Tensor &running, const Tensor &is_init, const Tensor &scale,
               const Tensor &n_batches, const Tensor &n_skipped,
               const std::optional<Tensor> &threshold, int64_t bits, double clamp, int64_t rounding,
               int64_t flags) {
    const lgr_stats st =
        lgr::state("mul", running, is_init, scale, n_batches, n_skipped, threshold);
    const lgr::Pair in(x, y, "mul");
    const int64_t n = in.x.numel();
    const int32_t ex = lgr::exp2_of(x_scale, "mul"), ey = lgr::exp2_of(y_scale, "mul");
    const bool nan = ex == LGR_EXP2_NAN || ey == LGR_EXP2_NAN;
    const int32_t acc = nan ? 0 : ex + ey, b = lgr::to_bits(bits, "mul");
    const int32_t rule = lgr::to_rounding(rounding, "mul");
    STD_TORCH_CHECK(acc >= -126, "mul: the scales of x and y are too small: their product is 2^",
                    acc);
    const bool grad = (flags & LGR_GRAD) != 0, slope = grad && threshold,
               observe = (flags & LGR_OBSERVE) && n > 0;
    const Tensor value = lgr::fresh_like(in.x, aoti_torch_dtype_float32());
    const Tensor codes = lgr::fresh_like(in.x, lgr::code_dtype(b));
    const Tensor mask = lgr::fresh_1d(grad ? lgr_mask_row_bytes(n) : 0, aoti_torch_dtype_uint8());
    const Tensor slopes = slope ? lgr::fresh_like(in.x, aoti_torch_dtype_float32())
                                : lgr::absent(aoti_torch_dtype_float32());
    lgr_outputs out = {};
    out.value = value.mutable_data_ptr<float>();
    code_pointer(out, codes, b);
    if (grad) out.mask = mask.mutable_data_ptr<uint8_t>();
    if (slope) out.slope = slopes.mutable_data_ptr<float>();
    if (out.mask && n > 0) out.mask[mask.numel() - 1] = 0; // spare bits of the row

    int32_t now = LGR_EXP2_NAN;
    if (nan) {
        lgr_stats_step(&st, b, LGR_EXP2_MAX, observe, lgr_exp2_scale(LGR_EXP2_NAN));
    } else {
        if (slope && lgr::slope_is_zero(st, b, acc)) {
            memset(out.slope, 0, static_cast<size_t>(n) * sizeof(float));
            out.slope = nullptr;
        }
        lgr_epilogue_spec spec = {acc, acc, b, rule, (flags & LGR_RELU) != 0, false, clamp};
        const int32_t guess = lgr_stats_guess(&st, b, acc);
        const bool known = guess != LGR_EXP2_NONE && guess != LGR_EXP2_NAN;
        spec.out_exp2 = known ? guess : acc < LGR_EXP2_MAX ? acc : LGR_EXP2_MAX;
        const lgr_epilogue ep = epilogue("mul", spec);
        lgr::Extremes extremes;
        products(in, ep, known ? out : lgr_outputs{}, &extremes);
        now = lgr_stats_step(&st, b, acc, observe, extremes.peak(ep, acc));
        if (now != LGR_EXP2_NAN && (!known || now != guess)) {
            spec.out_exp2 = now;
            products(in, epilogue("mul", spec), out, nullptr);
        }
    }
    if (now == LGR_EXP2_NAN) {
        const lgr_quantize_params none = {LGR_EXP2_NAN, b, rule, 0, 0, 0, 0.0f};
        lgr_quantize_out nothing = {};
        nothing.value = value.mutable_data_ptr<float>();
        nothing.codes = codes.mutable_data_ptr();
        if (grad) nothing.mask = mask.mutable_data_ptr<uint8_t>();
        if (slope) nothing.slope = slopes.mutable_data_ptr<float>();
        lgr::check(lgr_quantize_f32(nothing.value, n, &none, &nothing, nullptr), "mul");
    }
    return {value, codes, lgr::scale_of(now), mask, slopes};
}

Tensor mul_codes(const Tensor &x, const Tensor &y, int64_t shift, int64_t bits) {
    const lgr::Pair in(x, y, "mul_codes");
    const int32_t b = lgr::to_bits(bits, "mul_codes"), s = lgr::to_i32(shift, "shift");
    STD_TORCH_CHECK(s >= 0 && s <= 63, "mul_codes: shift must be in [0, 63], got ", s);
    const Tensor codes = lgr::fresh_like(in.x, lgr::code_dtype(b));
    lgr_outputs out = {};
    code_pointer(out, codes, b);
    products(in, epilogue("mul_codes", {s, 0, b, LGR_FLOOR_ADD, false, false, 0.0}), out, nullptr);
    return codes;
}
} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(linger, m) {
    m.def("mul(Tensor x, Tensor x_scale, Tensor y, Tensor y_scale, " LGR_STATE_SCHEMA
          ", int bits, float clamp, int rounding, int flags) -> "
          "(Tensor value, Tensor codes, Tensor scale_now, Tensor mask, Tensor slope)");
    m.def("mul_codes(Tensor x, Tensor y, int shift, int bits) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(linger, CPU, m) {
    m.impl("mul", TORCH_BOX(&mul));
    m.impl("mul_codes", TORCH_BOX(&mul_codes));
}

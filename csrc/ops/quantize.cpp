// quantize.cpp - float tensors to codes and back; state moved in the same call. No arithmetic here.
#include "lgr/fingerprint.h"
#include "lgr/quantize.h"
#include "ops/state.h"

namespace {
using lgr::ScalarType;
using lgr::Tensor;
using OptTensor = std::optional<Tensor>;

void check_float(const Tensor &x, const char *op, const char *name) {
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, op, ": ", name, " must be float32");
}

void pass(const Tensor &x, const lgr_quantize_params &p, const lgr_quantize_out &out,
          lgr::Range *range, const char *op) {
    const float *src = x.const_data_ptr<float>();
    lgr::for_blocks(x.numel(), op, [=](int64_t at, int64_t n) {
        const lgr_quantize_out to = lgr_quantize_out_at(out, at, p.bits);
        lgr_range seen = {0, 0};
        const lgr_status s = lgr_quantize_f32(src + at, n, &p, &to, range ? &seen : nullptr);
        if (range) range->merge(seen);
        return s;
    });
}

// With the guessed exponent while the maximum is found, and once more when the guess was stale.
int32_t with_state(const Tensor &x, const lgr_stats &st, lgr_quantize_params p, int32_t cap,
                   bool observe, const lgr_quantize_out &out, const char *op) {
    lgr::Range range;
    p.exp2 = lgr_stats_guess(&st, p.bits, cap);
    if (p.exp2 == LGR_EXP2_NONE) {
        const float *src = x.const_data_ptr<float>();
        lgr::for_blocks(x.numel(), op, [&range, src](int64_t at, int64_t n) {
            lgr_range seen = {0, 0};
            const lgr_status s = lgr_observe_f32(src + at, n, &seen);
            range.merge(seen);
            return s;
        });
    } else {
        pass(x, p, out, &range, op);
    }
    const bool moves = observe && x.numel() > 0; // an empty batch says nothing
    const int32_t now = lgr_stats_step(&st, p.bits, cap, moves, range.peak(p.relu, p.clamp));
    if (now != p.exp2) {
        p.exp2 = now;
        pass(x, p, out, nullptr, op);
    }
    return now;
}

lgr::Made make(const Tensor &x, const Tensor &running, const Tensor &is_init, const Tensor &scale,
               const Tensor &n_batches, const Tensor &n_skipped, int64_t settings,
               const OptTensor &threshold, double clamp, bool grad) {
    check_float(x, "quantize", "x");
    const lgr_stats st =
        lgr::state("quantize", running, is_init, scale, n_batches, n_skipped, threshold);
    const lgr::Settings how = lgr::unpack(settings, "quantize");
    const Tensor in = lgr::dense(x);
    const int64_t n = in.numel();
    lgr_quantize_params p = {};
    p.bits = how.bits;
    p.rounding = how.rounding;
    p.relu = how.relu;
    p.no_slope = lgr::slope_is_zero(st, p.bits, LGR_EXP2_MAX);
    p.stream = n >= lgr::kStream;
    p.clamp = static_cast<float>(clamp);
    const Tensor value = lgr::fresh_like(in, aoti_torch_dtype_float32());
    const Tensor codes = lgr::fresh_like(in, lgr::code_dtype(p.bits));
    OptTensor mask, slope;
    lgr_quantize_out out = {};
    out.value = value.mutable_data_ptr<float>();
    out.codes = codes.mutable_data_ptr();
    if (grad) {
        mask = lgr::fresh_1d(lgr_mask_bytes(n), aoti_torch_dtype_uint8());
        out.mask = mask->mutable_data_ptr<uint8_t>();
    }
    if (grad && threshold) {
        slope = lgr::fresh_like(in, aoti_torch_dtype_float32());
        out.slope = slope->mutable_data_ptr<float>();
    }
    const int32_t e = with_state(in, st, p, LGR_EXP2_MAX, how.observe, out, "quantize");
    return {value, codes, lgr::scale_of(e), mask, slope};
}

using Forms = lgr::QuantizeForms<make>;

// The cap that keeps the bias inside 32 bits, and whether the bias holds a NaN.
struct BiasLimit {
    int32_t cap = LGR_EXP2_MAX;
    bool nan = false;
};
BiasLimit bias_limit(const OptTensor &bias, const OptTensor &x_scale) {
    BiasLimit limit;
    if (!bias) return limit;
    check_float(*bias, "quantize_weight", "bias");
    const Tensor b = lgr::contiguous(*bias);
    lgr_range range = {0, 0};
    lgr::check(lgr_observe_f32(b.const_data_ptr<float>(), b.numel(), &range), "quantize_weight");
    const float peak = lgr_range_peak(range, 0, 0.0f);
    limit.nan = peak != peak;
    if (x_scale) limit.cap = lgr_bias_cap(peak, lgr::exp2_of(*x_scale, "quantize_weight"));
    return limit;
}

std::tuple<Tensor, Tensor, Tensor, Tensor>
quantize_weight(const Tensor &w, const Tensor &running, const Tensor &is_init, const Tensor &scale,
                const Tensor &n_batches, const Tensor &n_skipped, const OptTensor &threshold,
                const OptTensor &bias, const OptTensor &x_scale, int64_t bits, int64_t flags) {
    check_float(w, "quantize_weight", "w");
    const lgr_stats st =
        lgr::state("quantize_weight", running, is_init, scale, n_batches, n_skipped, threshold);
    const Tensor in = lgr::dense(w);
    const BiasLimit limit = bias_limit(bias, x_scale);
    lgr_quantize_params p = {};
    p.bits = lgr::to_bits(bits, "quantize_weight");
    p.rounding = LGR_HALF_EVEN;
    p.no_slope = lgr::slope_is_zero(st, p.bits, limit.cap);
    const bool grad = (flags & LGR_GRAD) != 0, slope = grad && threshold;
    const Tensor codes = lgr::fresh_like(in, lgr::code_dtype(p.bits));
    const Tensor mask =
        lgr::fresh_1d(grad ? lgr_mask_bytes(in.numel()) : 0, aoti_torch_dtype_uint8());
    const Tensor slopes = slope ? lgr::fresh_like(in, aoti_torch_dtype_float32())
                                : lgr::absent(aoti_torch_dtype_float32());
    lgr_quantize_out out = {};
    out.codes = codes.mutable_data_ptr();
    if (grad) out.mask = mask.mutable_data_ptr<uint8_t>();
    if (slope) out.slope = slopes.mutable_data_ptr<float>();
    const int32_t e =
        with_state(in, st, p, limit.cap, (flags & LGR_OBSERVE) != 0, out, "quantize_weight");
    return {codes, lgr::scale_of(limit.nan ? LGR_EXP2_NAN : e), mask, slopes};
}

// What decides codes and scale of an evaluation besides the weight itself, and a sample of that: four numbers to compare.
// As a tensor they would cost the call and the comparison two microseconds.
using Key = std::tuple<int64_t, int64_t, int64_t, bool>;
Key weight_key(const Tensor &w, const Tensor &running, const Tensor &is_init, const Tensor &scale,
               const Tensor &n_batches, const Tensor &n_skipped, const OptTensor &threshold,
               const OptTensor &bias, const OptTensor &x_scale, int64_t bits) {
    check_float(w, "weight_key", "w");
    const lgr_stats st =
        lgr::state("weight_key", running, is_init, scale, n_batches, n_skipped, threshold);
    const Tensor in = lgr::dense(w);
    const BiasLimit limit = bias_limit(bias, x_scale);
    const int32_t guess = lgr_stats_guess(&st, lgr::to_bits(bits, "weight_key"), limit.cap);
    uint64_t print = 0;
    lgr::check(lgr_fingerprint_f32(in.const_data_ptr<float>(), in.numel(), &print), "weight_key");
    int64_t bytes;
    memcpy(&bytes, &print, sizeof bytes);
    const bool own = guess == LGR_EXP2_NONE; // the weight's own range, up to cap
    return {bytes, guess, own ? limit.cap : 0, limit.nan};
}

Tensor quantize_bias(const Tensor &bias, const Tensor &x_scale, const Tensor &w_scale) {
    check_float(bias, "quantize_bias", "bias");
    const Tensor in = lgr::dense(bias), codes = lgr::fresh_like(in, aoti_torch_dtype_int32());
    const int32_t ex = lgr::exp2_of(x_scale, "quantize_bias"),
                  ew = lgr::exp2_of(w_scale, "quantize_bias");
    const float *src = in.const_data_ptr<float>();
    int32_t *dst = codes.mutable_data_ptr<int32_t>();
    lgr::check(lgr_quantize_bias_f32_s32(src, in.numel(), lgr_sum_exp2(ex, ew), dst),
               "quantize_bias");
    return codes;
}

Tensor dequantize(const Tensor &codes, const Tensor &scale, bool saved) {
    const bool narrow = codes.scalar_type() == ScalarType::Char;
    STD_TORCH_CHECK(narrow || codes.scalar_type() == ScalarType::Int,
                    "dequantize: codes must be int8 or int32");
    const Tensor in = lgr::dense(codes), value = lgr::fresh_like(in, aoti_torch_dtype_float32());
    const int32_t of = lgr::exp2_of(scale, "dequantize"),
                  e = saved && of == LGR_EXP2_NAN ? 0 : of; // the codes behind a NaN are 0
    float *dst = value.mutable_data_ptr<float>();
    const int8_t *s8 = narrow ? in.const_data_ptr<int8_t>() : nullptr;
    const int32_t *s32 = narrow ? nullptr : in.const_data_ptr<int32_t>();
    lgr::for_blocks(in.numel(), "dequantize", [=](int64_t at, int64_t n) {
        return s8 ? lgr_dequantize_s8_f32(s8 + at, n, e, dst + at)
                  : lgr_dequantize_s32_f32(s32 + at, n, e, dst + at);
    });
    return value;
}

Tensor codes_at(const Tensor &x, int32_t exp2, int64_t bits, int32_t rounding, const char *op) {
    check_float(x, op, "x");
    const Tensor in = lgr::dense(x);
    lgr_quantize_params p = {};
    p.exp2 = exp2;
    p.bits = lgr::to_bits(bits, op);
    p.rounding = rounding;
    const Tensor codes = lgr::fresh_like(in, lgr::code_dtype(p.bits));
    lgr_quantize_out out = {};
    out.codes = codes.mutable_data_ptr();
    pass(in, p, out, nullptr, op);
    return codes;
}
Tensor codes_of(const Tensor &value, const Tensor &scale, int64_t bits) {
    return codes_at(value, lgr::exp2_of(scale, "codes_of"), bits, LGR_HALF_EVEN, "codes_of");
}
Tensor quantize_codes(const Tensor &x, int64_t exp2, int64_t bits) {
    STD_TORCH_CHECK(exp2 >= -LGR_EXP2_MAX && exp2 <= LGR_EXP2_MAX,
                    "quantize_codes: exp2 must be in [-126, 126], got ", exp2);
    return codes_at(x, static_cast<int32_t>(exp2), bits, LGR_FLOOR_ADD, "quantize_codes");
}
} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(linger, m) {
    m.def("quantize(Tensor x, " LGR_STATISTICS_SCHEMA
          ", int settings, Tensor? threshold=None, float clamp=0.0) -> "
          "(Tensor value, Tensor codes, Tensor scale_now)");
    m.def("quantize_mask(Tensor x, " LGR_STATISTICS_SCHEMA ", int settings, float clamp=0.0) -> "
          "(Tensor value, Tensor codes, Tensor scale_now, Tensor mask)");
    m.def("quantize_slope(Tensor x, " LGR_STATISTICS_SCHEMA
          ", int settings, Tensor threshold, float clamp=0.0) -> "
          "(Tensor value, Tensor codes, Tensor scale_now, Tensor mask, Tensor slope)");
    m.def("quantize_weight(Tensor w, " LGR_STATE_SCHEMA
          ", Tensor? bias, Tensor? x_scale, int bits, int flags) -> "
          "(Tensor codes, Tensor scale_now, Tensor mask, Tensor slope)");
    m.def("weight_key(Tensor w, Tensor running, Tensor is_init, Tensor scale, Tensor n_batches, "
          "Tensor n_skipped, Tensor? threshold, Tensor? bias, Tensor? x_scale, int bits) -> "
          "(int fingerprint, int exp2, int cap, bool nan)");
    m.def("quantize_bias(Tensor bias, Tensor x_scale, Tensor w_scale) -> Tensor");
    m.def("dequantize(Tensor codes, Tensor scale, bool saved=False) -> Tensor");
    m.def("codes_of(Tensor value, Tensor scale, int bits) -> Tensor");
    m.def("quantize_codes(Tensor x, int exp2, int bits) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(linger, CPU, m) {
    m.impl("quantize", TORCH_BOX(&Forms::plain));
    m.impl("quantize_mask", TORCH_BOX(&Forms::mask));
    m.impl("quantize_slope", TORCH_BOX(&Forms::slope));
    m.impl("quantize_weight", TORCH_BOX(&quantize_weight));
    m.impl("weight_key", TORCH_BOX(&weight_key));
    m.impl("quantize_bias", TORCH_BOX(&quantize_bias));
    m.impl("dequantize", TORCH_BOX(&dequantize));
    m.impl("codes_of", TORCH_BOX(&codes_of));
    m.impl("quantize_codes", TORCH_BOX(&quantize_codes));
}

// quantize.cpp - float tensors to codes and back; state moved in the same call. No arithmetic here.
#include "lgr/fingerprint.h"
#include "lgr/quantize.h"
#include "lgr/quantize_cuda.h"
#include "ops/device.h"
#include "ops/quantize.h"

namespace {
using lgr::check_float;
using lgr::OptTensor;
using lgr::ScalarType;
using lgr::Tensor;

// The operators quantize, quantize_mask and quantize_slope return what was asked for: a result costs a call 0.5 us.
std::tuple<lgr::Results, Tensor> make(const Tensor &x, const lgr::State &state, int64_t settings,
                                      double clamp, bool grad) {
    check_float(x, "quantize", "x");
    const lgr::Format how = lgr::unpacked(settings, clamp).checked("quantize");
    const Tensor in = lgr::dense(x);
    const int64_t n = in.numel();
    const lgr_stats st = lgr::pointers("quantize", state, in);
    lgr_quantize_params p = {};
    p.bits = how.bits;
    p.rounding = how.rounding;
    p.relu = how.relu;
    p.stream = n >= lgr::kStream;
    p.clamp = static_cast<float>(clamp);
    lgr::Results results(p.bits, grad, st.threshold, lgr_mask_bytes(n),
                         [&](int32_t dtype) { return lgr::fresh_like(in, dtype); });
    LGR_ON_GPU(in) {
        const lgr_quantize_out out = results.flat();
        const Tensor now = lgr::fresh(nullptr, 0, aoti_torch_dtype_float32(), lgr::place_of(in)),
                     scratch = lgr::fresh_1d(LGR_QUANTIZE_CUDA_SCRATCH, aoti_torch_dtype_uint8(),
                                             lgr::place_of(in));
        const lgr::DeviceQueue queue(in);
        lgr::check(lgr_quantize_state_f32_cuda(in.const_data_ptr<float>(), n, &st, &p, how.observe,
                                               &out, now.mutable_data_ptr<float>(),
                                               scratch.mutable_data_ptr(), queue.stream()),
                   "quantize");
        return {std::move(results), now};
    }
    const Tensor now = results.tagged(
        lgr::with_state(in, st, p, LGR_EXP2_MAX, how.observe, results.flat(), "quantize"));
    return {std::move(results), now};
}
std::tuple<Tensor, Tensor, Tensor> quantize(const Tensor &x, const lgr::Statistics &statistics,
                                            int64_t settings, const OptTensor &threshold,
                                            double clamp) {
    const auto [r, now] = make(x, {statistics, threshold}, settings, clamp, false);
    return {*r.value, r.codes, now};
}
std::tuple<Tensor, Tensor, Tensor, Tensor>
quantize_mask(const Tensor &x, const lgr::Statistics &statistics, int64_t settings, double clamp) {
    const auto [r, now] = make(x, {statistics, std::nullopt}, settings, clamp, true);
    return {*r.value, r.codes, now, *r.mask};
}
lgr::Coded quantize_slope(const Tensor &x, const lgr::Statistics &statistics, int64_t settings,
                          const Tensor &threshold, double clamp) {
    const auto [r, now] = make(x, {statistics, threshold}, settings, clamp, true);
    return r.all(now);
}

// Returns the scale.
Tensor weight_on_gpu(const char *op, const Tensor &w, const lgr_stats &state, const OptTensor &bias,
                     const OptTensor &x_scale, int32_t bits, bool observe,
                     const lgr_quantize_out &out) {
    lgr::same_device(op, w, {{"bias", bias}});
    if (bias) check_float(*bias, op, "bias");
    OptTensor b;
    if (bias) b = lgr::contiguous(*bias);
    const Tensor now = lgr::scalar_at(w, aoti_torch_dtype_float32()),
                 scratch = lgr::scratch_at(w, LGR_QUANTIZE_CUDA_SCRATCH);
    const lgr::DeviceQueue queue(w);
    lgr::check(lgr_quantize_weight_f32_cuda(
                   w.const_data_ptr<float>(), w.numel(), lgr::data_at<float>(b), b ? b->numel() : 0,
                   x_scale ? lgr::scale_at(op, w, "x_scale", *x_scale) : nullptr, &state, bits,
                   observe, &out, now.mutable_data_ptr<float>(), scratch.mutable_data_ptr(),
                   queue.stream()),
               op);
    return now;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> quantize_weight(const Tensor &w, const lgr::State &state,
                                                           const OptTensor &bias,
                                                           const OptTensor &x_scale, int64_t bits,
                                                           int64_t flags) {
    check_float(w, "quantize_weight", "w");
    const Tensor in = lgr::dense(w);
    const lgr_stats st = lgr::pointers("quantize_weight", state, in);
    lgr_quantize_params p = {};
    p.bits = lgr::to_bits(bits, "quantize_weight");
    p.rounding = LGR_HALF_EVEN;
    const lgr::Results results(
        p.bits, (flags & LGR_GRAD) != 0, st.threshold, lgr_mask_bytes(in.numel()),
        [&](int32_t dtype) { return lgr::fresh_like(in, dtype); }, false);
    LGR_ON_GPU(in) {
        const char *op = "quantize_weight";
        const Tensor on_gpu = weight_on_gpu(op, in, st, bias, x_scale, p.bits,
                                            (flags & LGR_OBSERVE) != 0, results.flat());
        return {results.codes, on_gpu, results.mask_or_absent(), results.slope_or_absent()};
    }
    const lgr::BiasLimit limit = lgr::bias_limit(bias, x_scale);
    const Tensor now = results.tagged(lgr::with_state(
        in, st, p, limit.cap, (flags & LGR_OBSERVE) != 0, results.flat(), "quantize_weight"));
    return {results.codes, limit.nan ? lgr::scale_of(LGR_EXP2_NAN) : now, results.mask_or_absent(),
            results.slope_or_absent()};
}

// What decides codes and scale of an evaluation besides the weight itself, and a sample of that: four numbers to compare.
// As a tensor they would cost the call and the comparison two microseconds.
using Key = std::tuple<int64_t, int64_t, int64_t, bool>;
Key weight_key(const Tensor &w, const lgr::State &state, const OptTensor &bias,
               const OptTensor &x_scale, int64_t bits) {
    check_float(w, "weight_key", "w");
    const Tensor in = lgr::dense(w);
    const lgr_stats st = lgr::pointers("weight_key", state, in);
    const lgr::BiasLimit limit = lgr::bias_limit(bias, x_scale);
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
    LGR_ON_GPU(in) {
        const lgr::DeviceQueue queue(in);
        lgr::check(
            lgr_quantize_bias_f32_s32_cuda(in.const_data_ptr<float>(), in.numel(),
                                           lgr::scale_at("quantize_bias", in, "x_scale", x_scale),
                                           lgr::scale_at("quantize_bias", in, "w_scale", w_scale),
                                           codes.mutable_data_ptr<int32_t>(), queue.stream()),
            "quantize_bias");
        return codes;
    }
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
    LGR_ON_GPU(in) {
        const lgr::DeviceQueue queue(in);
        lgr::check(lgr_dequantize_f32_cuda(in.const_data_ptr(), narrow ? 1 : 4, in.numel(),
                                           lgr::scale_at("dequantize", in, "scale", scale), saved,
                                           value.mutable_data_ptr<float>(), queue.stream()),
                   "dequantize");
        return value;
    }
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

// Codes at the exponent of `scale`, or at exp2 where there is none.
Tensor codes_at(const Tensor &x, const Tensor *scale, int32_t exp2, int64_t bits, int32_t rounding,
                const char *op) {
    check_float(x, op, "x");
    const Tensor in = lgr::dense(x);
    lgr_quantize_params p = {};
    p.bits = lgr::to_bits(bits, op);
    p.rounding = rounding;
    p.exp2 = exp2;
    const Tensor codes = lgr::fresh_like(in, lgr::quantized_dtype(p.bits));
    LGR_ON_GPU(in) {
        const lgr::DeviceQueue queue(in);
        lgr::check(
            lgr_quantize_at_f32_cuda(in.const_data_ptr<float>(), in.numel(),
                                     scale ? lgr::scale_at(op, in, "scale", *scale) : nullptr, &p,
                                     codes.mutable_data_ptr(), queue.stream()),
            op);
        return codes;
    }
    if (scale) p.exp2 = lgr::exp2_of(*scale, op);
    lgr_quantize_out out = {};
    out.codes = codes.mutable_data_ptr();
    lgr::quantize_pass(in, p, out, nullptr, op);
    return codes;
}
Tensor codes_of(const Tensor &value, const Tensor &scale, int64_t bits) {
    return codes_at(value, &scale, 0, bits, LGR_HALF_EVEN, "codes_of");
}
Tensor quantize_codes(const Tensor &x, int64_t exp2, int64_t bits) {
    STD_TORCH_CHECK(exp2 >= -LGR_EXP2_MAX && exp2 <= LGR_EXP2_MAX,
                    "quantize_codes: exp2 must be in [-126, 126], got ", exp2);
    return codes_at(x, nullptr, static_cast<int32_t>(exp2), bits, LGR_FLOOR_ADD, "quantize_codes");
}
} // namespace

LGR_OPERATORS(
    {"quantize(Tensor x, " LGR_STATISTICS ", int settings, Tensor? threshold=None, float clamp=0.0)"
     " -> (Tensor value, Tensor codes, Tensor scale_now)",
     LGR_BOX(quantize)},
    {"quantize_mask(Tensor x, " LGR_STATISTICS ", int settings, float clamp=0.0) -> "
     "(Tensor value, Tensor codes, Tensor scale_now, Tensor mask)",
     LGR_BOX(quantize_mask)},
    {"quantize_slope(Tensor x, " LGR_STATISTICS
     ", int settings, Tensor threshold, float clamp=0.0) -> " LGR_CODED,
     LGR_BOX(quantize_slope)},
    {"quantize_weight(Tensor w, " LGR_STATE ", Tensor? bias, Tensor? x_scale, int bits, int flags)"
     " -> (Tensor codes, Tensor scale_now, Tensor mask, Tensor slope)",
     LGR_BOX(quantize_weight)},
    {"weight_key(Tensor w, Tensor running, Tensor is_init, Tensor scale, Tensor n_batches, "
     "Tensor n_skipped, Tensor? threshold, Tensor? bias, Tensor? x_scale, int bits) -> "
     "(int fingerprint, int exp2, int cap, bool nan)",
     LGR_BOX(weight_key), lgr::Devices::CPU},
    {"quantize_bias(Tensor bias, Tensor x_scale, Tensor w_scale) -> Tensor",
     LGR_BOX(quantize_bias)},
    {"dequantize(Tensor codes, Tensor scale, bool saved=False) -> Tensor", LGR_BOX(dequantize)},
    {"codes_of(Tensor value, Tensor scale, int bits) -> Tensor", LGR_BOX(codes_of)},
    {"quantize_codes(Tensor x, int exp2, int bits) -> Tensor", LGR_BOX(quantize_codes)});

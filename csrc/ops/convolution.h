// convolution.h - one call of the integer engine with its output quantizer, for convolution and linear. No arithmetic here.
#pragma once
#include "lgr/conv.h"
#include "lgr/quantize.h"
#include "ops/state.h"
#include <vector>

namespace lgr {
using Coded =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>; // value, codes, scale, mask, slope

constexpr int64_t kTaskProducts = 1 << 18; // products worth a task of their own
constexpr int64_t kTaskWeights = 1 << 16; // weights to reorder, the same

// Scratch of the calling thread, kept between calls.
inline void *thread_scratch(int64_t bytes) {
    static thread_local std::vector<uint8_t> kept;
    if (static_cast<int64_t>(kept.size()) < bytes) kept.resize(static_cast<size_t>(bytes));
    return kept.data();
}

// max(A) and max(-A), seen by several threads.
class Extremes {
  public:
    void merge(const int64_t seen[2]) {
        for (int i = 0; i < 2; ++i) {
            int64_t cur = v_[i].load(std::memory_order_relaxed);
            while (seen[i] > cur && !v_[i].compare_exchange_weak(cur, seen[i])) {}
        }
    }
    float peak(const lgr_epilogue &ep, int32_t acc_exp2) const {
        const int64_t seen[2] = {v_[0].load(), v_[1].load()};
        return lgr_epilogue_peak(&ep, acc_exp2, seen);
    }

  private:
    std::atomic<int64_t> v_[2] = {0, 0};
};

// Weights packed for one engine, as one tensor: what they were packed for, then the weights, then their sums.
struct Packed {
    struct Head {
        int64_t engine, o, c, kh, kw, groups, stride_w, bytes;
    };
    static_assert(sizeof(Head) == 64, "the packed weights stay aligned");
    static Head head(const lgr_conv_params &p, lgr_conv_engine engine) {
        return {engine, p.o,      p.c,        p.kh,
                p.kw,   p.groups, p.stride_w, lgr_conv_packed_bytes(&p, engine)};
    }
    static int64_t sums_at(const Head &h) { return 64 + (h.bytes + 63) / 64 * 64; }
    static int64_t size(const lgr_conv_params &p, const Head &h, lgr_conv_engine engine) {
        return sums_at(h) + 4 * lgr_conv_wsum_count(&p, engine);
    }
    static bool serves(const Tensor &t, const lgr_conv_params &p, lgr_conv_engine engine) {
        const Head h = head(p, engine);
        return t.scalar_type() == ScalarType::Byte && t.is_cpu() && t.is_contiguous() &&
               t.numel() == size(p, h, engine) && memcmp(t.const_data_ptr(), &h, sizeof h) == 0;
    }
    static Tensor make(const lgr_conv_params &p, lgr_conv_engine engine, const Tensor &w) {
        const Head h = head(p, engine);
        const Tensor weights = lgr::contiguous(w),
                     out = fresh_1d(size(p, h, engine), aoti_torch_dtype_uint8());
        uint8_t *to = out.mutable_data_ptr<uint8_t>();
        memcpy(to, &h, sizeof h);
        void *packed = to + 64;
        int32_t *wsum = reinterpret_cast<int32_t *>(to + sums_at(h));
        const int8_t *src = weights.const_data_ptr<int8_t>();
        const int64_t block = 16 * (p.c / p.groups) * p.kh * p.kw;
        torch::stable::parallel_for(
            0, lgr_conv_pack_blocks(&p, engine), (1 << 16) / block + 1,
            [&](int64_t b, int64_t e) { lgr_conv_pack(&p, engine, src, b, e, packed, wsum); });
        return out;
    }
};

// A convolution whose weights are packed for the engine that this processor and shape have; `ready`: from an earlier call.
class Bilinear {
  public:
    Bilinear(const char *op, const lgr_conv_params &p, const Tensor &x, const Tensor &w,
             const std::optional<Tensor> &ready = std::nullopt)
        : op_(op), x_(x), job_() {
        STD_TORCH_CHECK(x.scalar_type() == ScalarType::Char && w.scalar_type() == ScalarType::Char,
                        op, ": x and w must be int8 codes");
        check(lgr_conv_check(&p), op);
        job_.p = p;
        job_.engine = lgr_conv_pick(&p);
        packed_ = ready && Packed::serves(*ready, p, job_.engine) ? *ready
                                                                  : Packed::make(p, job_.engine, w);
        init_ = fresh_1d(lgr_conv_wsum_count(&p, job_.engine), aoti_torch_dtype_int32());
        const uint8_t *from = packed_.const_data_ptr<uint8_t>();
        job_.packed = from + 64;
        job_.wsum =
            reinterpret_cast<const int32_t *>(from + Packed::sums_at(Packed::head(p, job_.engine)));
        job_.init = init_.mutable_data_ptr<int32_t>();
        job_.x = x_.const_data_ptr<int8_t>();
    }
    void bias(const int32_t *bias) { job_.bias = bias; }
    const lgr_conv_params &params() const { return job_.p; }

    void run(const lgr_epilogue &ep, const lgr_outputs &out, Extremes *extremes) {
        job_.ep = &ep;
        job_.out = out;
        check(lgr_conv_begin(&job_), op_);
        const lgr_conv_params &p = job_.p;
        const int64_t pixels = p.n * job_.oh * job_.ow,
                      products = pixels * p.o * (p.c / p.groups) * p.kh * p.kw;
        const int64_t grain = job_.units * kTaskProducts / (products + 1) + 1,
                      bytes = lgr_conv_scratch_bytes(&job_);
        const lgr_conv_job *job = &job_;
        torch::stable::parallel_for(0, job_.units, grain, [=](int64_t b, int64_t e) {
            int64_t seen[2] = {0, 0};
            lgr_conv_run(job, b, e, thread_scratch(bytes), seen);
            if (extremes) extremes->merge(seen);
        });
    }

  private:
    const char *op_;
    Tensor x_;
    lgr_conv_job job_;
    Tensor packed_ = absent(aoti_torch_dtype_uint8()), init_ = packed_;
};

// The training form: exponent from the state, guessed and redone when the statistics move it.
// value and codes: fresh outputs with memory [pixels][o]. sat32: convolutions. The engine is a Bilinear, or another class
// with its bias(), run() and params().o: sums of int32 at exponent exp2_x + exp2_w.
struct Quantized {
    const char *op;
    Tensor value, codes;
    int64_t pixels;
    lgr_stats state;
    int32_t exp2_x, exp2_w;
    bool sat32, tqt;
    int64_t bits, rounding, flags;
    double clamp;

    template <class Engine> Coded run(Engine &engine, const std::optional<Tensor> &bias) const {
        const int64_t o = engine.params().o, n = pixels * o;
        const bool grad = (flags & LGR_GRAD) != 0, slope = grad && tqt,
                   observe = (flags & LGR_OBSERVE) && n > 0;
        const int32_t b = to_bits(bits, op), rule = to_rounding(rounding, op);
        const Tensor mask =
            fresh_1d(grad ? pixels * lgr_mask_row_bytes(o) : 0, aoti_torch_dtype_uint8());
        const Tensor slopes = slope ? fresh_like(value, aoti_torch_dtype_float32())
                                    : absent(aoti_torch_dtype_float32());
        lgr_outputs out = {};
        if (b <= 8) out.code8 = codes.mutable_data_ptr<int8_t>();
        else out.code32 = codes.mutable_data_ptr<int32_t>();
        out.value = value.mutable_data_ptr<float>();
        out.stream = n >= kStreamValues;
        if (grad) out.mask = mask.mutable_data_ptr<uint8_t>();
        if (slope) out.slope = slopes.mutable_data_ptr<float>();

        std::vector<int32_t> bias_codes(bias ? static_cast<size_t>(o) : 0);
        bool nan = exp2_x == LGR_EXP2_NAN || exp2_w == LGR_EXP2_NAN;
        const int32_t acc = nan ? 0 : exp2_x + exp2_w;
        STD_TORCH_CHECK(acc >= -126, op,
                        ": the scales of x and w are too small: their product is 2^", acc);
        if (bias) nan = set_bias(*bias, acc, bias_codes) || nan;
        if (bias) engine.bias(bias_codes.data());
        int32_t now = LGR_EXP2_NAN;
        if (nan) {
            lgr_stats_step(&state, b, LGR_EXP2_MAX, observe, lgr_exp2_scale(LGR_EXP2_NAN));
        } else {
            const bool flat = slope && slope_is_zero(state, b, acc);
            if (flat) {
                memset(out.slope, 0, static_cast<size_t>(n) * sizeof(float));
                out.slope = nullptr;
            }
            now = quantize(engine, out, acc, b, rule, observe);
        }
        if (now == LGR_EXP2_NAN)
            nothing(out, n, pixels * lgr_mask_row_bytes(o),
                    slope ? slopes.mutable_data_ptr<float>() : nullptr);
        return {value, codes, scale_of(now), mask, slopes};
    }

  private:
    lgr_epilogue epilogue(int32_t acc, int32_t out, int32_t b, int32_t rule) const {
        const lgr_epilogue_spec spec = {acc, out, b, rule, (flags & LGR_RELU) != 0, sat32, clamp};
        lgr_epilogue ep;
        check(lgr_epilogue_make(&spec, &ep), op);
        return ep;
    }
    template <class Engine>
    int32_t quantize(Engine &engine, const lgr_outputs &out, int32_t acc, int32_t b, int32_t rule,
                     bool observe) const {
        const int32_t guess = lgr_stats_guess(&state, b, acc);
        const bool known = guess != LGR_EXP2_NONE && guess != LGR_EXP2_NAN;
        lgr_epilogue ep = epilogue(acc, known ? guess : acc, b, rule);
        Extremes extremes;
        engine.run(ep, known ? out : lgr_outputs{}, &extremes);
        const int32_t now = lgr_stats_step(&state, b, acc, observe, extremes.peak(ep, acc));
        if (now != LGR_EXP2_NAN &&
            (!known || now != guess)) { // no guess, or a stale one: once more, exactly
            ep = epilogue(acc, now, b, rule);
            engine.run(ep, out, nullptr);
        }
        return now;
    }
    // int32 codes of the bias; whether it holds a NaN.
    bool set_bias(const Tensor &bias, int32_t acc, std::vector<int32_t> &codes_out) const {
        const Tensor in = lgr::contiguous(bias);
        const int64_t n = static_cast<int64_t>(codes_out.size());
        STD_TORCH_CHECK(in.scalar_type() == ScalarType::Float && in.numel() == n, op,
                        ": bias must be float32 with ", n, " elements");
        lgr_range seen = {0, 0};
        check(lgr_observe_f32(in.const_data_ptr<float>(), n, &seen), op);
        check(lgr_quantize_bias_f32_s32(in.const_data_ptr<float>(), n, acc, codes_out.data()), op);
        return seen.abs > 0x7f800000;
    }
    static void nothing(const lgr_outputs &out, int64_t n, int64_t mask_bytes, float *slope) {
        const size_t count = static_cast<size_t>(n);
        for (int64_t i = 0; i < n; ++i) out.value[i] = lgr_exp2_scale(LGR_EXP2_NAN);
        if (out.code8) memset(out.code8, 0, count);
        if (out.code32) memset(out.code32, 0, count * sizeof(int32_t));
        if (out.mask) memset(out.mask, 0, static_cast<size_t>(mask_bytes));
        if (slope) memset(slope, 0, count * sizeof(float));
    }
};

// The integer form of runner and chip functions: exact shift, half up, no state.
inline int32_t codes_dtype(int64_t bits) {
    return bits <= 8    ? aoti_torch_dtype_int8()
           : bits <= 16 ? aoti_torch_dtype_int16()
                        : aoti_torch_dtype_int32();
}
template <class Engine>
inline void run_codes(const char *op, Engine &engine, const std::optional<Tensor> &bias,
                      int64_t shift, int64_t bits, bool relu, bool sat32, const Tensor &codes) {
    const int32_t s = to_i32(shift, "shift"), b = to_bits(bits, op);
    STD_TORCH_CHECK(s <= 63 && (s >= 0 || (b == 32 && s >= -31)), op,
                    ": shift must be in [0, 63], or in [-31, -1] for 32 bits; got ", s, " with ", b,
                    " bits");
    const lgr_epilogue_spec spec = {s, 0, b, LGR_FLOOR_ADD, relu, sat32 || s < 0, 0.0};
    lgr_epilogue ep;
    check(lgr_epilogue_make(&spec, &ep), op);
    Tensor held = codes;
    if (bias) {
        STD_TORCH_CHECK(bias->scalar_type() == ScalarType::Int &&
                            bias->numel() == engine.params().o,
                        op, ": bias must be int32 with ", engine.params().o, " elements");
        held = lgr::contiguous(*bias);
        engine.bias(held.const_data_ptr<int32_t>());
    }
    lgr_outputs out = {};
    if (b <= 8) out.code8 = codes.mutable_data_ptr<int8_t>();
    else if (b <= 16) out.code16 = codes.mutable_data_ptr<int16_t>();
    else out.code32 = codes.mutable_data_ptr<int32_t>();
    engine.run(ep, out, nullptr);
}
} // namespace lgr

// quantized_test.h - an operator with its output quantizer on the device, and the same as csrc/ops/output.h runs it on the CPU.
#pragma once
#include "device_memory.h"
#include "lgr/output_cuda.h"
#include "lgr/quantize.h"
#include <initializer_list>
#include <memory>

inline int64_t pick(std::initializer_list<int64_t> v)
{
    return v.begin()[random_bits() % v.size()];
}
inline bool chance(unsigned n) { return random_bits() % n == 0; }
inline float not_a_number() { return lgr_exp2_scale(LGR_EXP2_NAN); }

struct held { // the state of a quantizer, and the scales of its operands
    float running, scale, threshold, scale_a, scale_b, number;
    int64_t n_batches, n_skipped;
    uint8_t is_init, pad[7];

    static held random()
    {
        held h = {};
        h.running = 3.0f;
        h.scale = lgr_exp2_scale((int32_t)(random_bits() % 8));
        h.threshold = 5.0f * random_unit() + 1.0f;
        h.scale_a = chance(12) ? not_a_number() : lgr_exp2_scale((int32_t)(random_bits() % 12));
        h.scale_b = chance(20) ? not_a_number() : lgr_exp2_scale((int32_t)(random_bits() % 12));
        h.is_init = (uint8_t)!chance(3);
        return h;
    }
    lgr_stats pointers(bool tqt)
    {
        lgr_stats s;
        s.running = &running;
        s.is_init = &is_init;
        s.scale = &scale;
        s.n_batches = &n_batches;
        s.n_skipped = &n_skipped;
        s.threshold = tqt ? &threshold : nullptr;
        return s;
    }
};

// Results of n elements and `mask_bytes` bytes, there and here.
struct results {
    int bits;
    host<float> value2, slope2, scale2{1};
    host<uint8_t> codes2, mask2;
    device<float> value, slope, scale{1};
    device<uint8_t> codes, mask;

    static int bytes(int bits, bool narrow) { return bits <= 8 ? 1 : narrow && bits <= 16 ? 2 : 4; }
    results(int64_t n, int64_t mask_bytes, int b, bool narrow = false)
        : bits(b), value2(n), slope2(n), codes2(n * bytes(b, narrow)), mask2(mask_bytes), value(n),
          slope(n), codes(n * bytes(b, narrow)), mask(mask_bytes)
    {
    }
    void same(bool grad, bool tqt) const
    {
        CHECK(value == value2);
        CHECK(codes == codes2);
        if (grad) CHECK(mask == mask2);
        if (grad && tqt) CHECK(slope == slope2);
    }
};

inline int64_t some_size() { return pick({0, 1, 7, 8, 31, 32, 33, 255, 257, 700}); }

// Codes of one operand, here and there.
struct operand {
    int32_t bytes;
    host<int8_t> s8;
    host<int32_t> s32;
    device<int8_t> d8;
    device<int32_t> d32;
    operand(int64_t n, int32_t b) : bytes(b), s8(n), s32(n), d8(n), d32(n)
    {
        fill_bytes(s8.data(), n);
        for (int64_t i = 0; i < n; ++i)
            s32[i] = chance(8) ? INT32_MIN : (int32_t)random_bits() >> (random_bits() % 28);
        d8.put(s8.data());
        d32.put(s32.data());
    }
    const void *here() const { return bytes == 1 ? (const void *)s8.data() : s32.data(); }
    const void *there() { return bytes == 1 ? (const void *)d8.data() : d32.data(); }
};

// One call of an operator with random settings; `rows` of `o` results.
class quantized_call {
  public:
    int64_t rows, o, n;
    bool fixed, tqt, grad;
    held here;
    device<held> there{1};
    lgr_output_cuda q = {};

    quantized_call(int64_t rows_, int64_t o_, bool with_bias, bool may_be_fixed = true)
        : rows(rows_), o(o_), n(rows_ * o_), fixed(may_be_fixed && chance(4)),
          tqt(random_bits() & 1), grad(random_bits() & 1), here(held::random()),
          scratch_(LGR_OUTPUT_CUDA_SCRATCH / 8), bias_(o), bias_codes_(o), bias2_(o)
    {
        q.bits = (int32_t)pick({4, 8, 8, 16, 32});
        q.rounding = (int32_t)(random_bits() % 4);
        q.relu = random_bits() & 1;
        q.sat32 = random_bits() & 1;
        q.observe = random_bits() & 1;
        q.clamp = chance(3) && (q.bits < 32 || tqt) ? 7.0 : 0.0;
        q.o = o;
        all_ = std::make_unique<results>(n, rows * lgr_mask_row_bytes(o), q.bits, fixed);
        if (fixed) {
            grad = tqt = false;
            q.fixed = 1;
            q.exp2 = q.bits == 32 && chance(4) ? -3 : (int32_t)(random_bits() % 20);
            q.sat32 = q.sat32 || q.exp2 < 0;
            q.rounding = LGR_FLOOR_ADD;
        }
        q.out =
            outputs(all_->codes.data(), all_->value.data(), all_->mask.data(), all_->slope.data());
        q.scale_now = all_->scale.data();
        q.scratch = scratch_.data();
        q.state = there.data()->pointers(tqt);
        if (with_bias && !chance(4)) {
            host<float> b(o);
            for (int64_t i = 0; i < o; ++i)
                b[i] = chance(20) ? 60000.0f * random_unit() : random_unit();
            if (chance(12) && o > 0 && !fixed) b[o / 2] = not_a_number();
            for (int64_t i = 0; i < o; ++i) bias2_[i] = b[i];
            bias_.put(b.data());
            q.bias_codes = bias_codes_.data();
            if (fixed) {
                host<int32_t> codes(o);
                for (int64_t i = 0; i < o; ++i)
                    codes[i] = (int32_t)(random_bits() >> 12) - (1 << 19);
                codes2_ = codes;
                bias_codes_.put(codes.data());
            } else {
                q.bias = bias_.data();
            }
        }
    }
    // With the operands' scales of `there`; watched: scale_a alone, as a NaN.
    void scales(bool a, bool b)
    {
        if (fixed) return;
        there_scale_a_ = a;
        there_scale_b_ = b;
        if (a) q.scale_a = &there.data()->scale_a;
        if (b) q.scale_b = &there.data()->scale_b;
    }
    void watched()
    {
        if (fixed) return;
        q.watched = &there.data()->scale_a;
        nan_ = lgr_scale_exp2(here.scale_a) == LGR_EXP2_NAN;
    }
    void upload() { there.put(&here); }

    // run(epilogue, outputs, bias codes or NULL, extremes): the C reference over all rows.
    template <class Run> void compare(Run &&run)
    {
        const int32_t ex = there_scale_a_ ? lgr_scale_exp2(here.scale_a) : 0,
                      ew = there_scale_b_ ? lgr_scale_exp2(here.scale_b) : 0;
        bool nan = nan_ || ex == LGR_EXP2_NAN || ew == LGR_EXP2_NAN || here.number != here.number;
        const int32_t acc = nan ? 0 : ex + ew + q.exp2;
        host<int32_t> codes(o);
        if (q.bias) {
            lgr_range r = {0, 0};
            lgr_observe_f32(bias2_.data(), o, &r);
            nan = nan || r.abs > 0x7f800000;
            lgr_quantize_bias_f32_s32(bias2_.data(), o, acc, codes.data());
        } else if (q.bias_codes) {
            codes = codes2_;
        }
        const int32_t *const bias = q.bias_codes ? codes.data() : nullptr;
        const auto epilogue = [&](int32_t from, int32_t to) {
            const lgr_epilogue_spec spec = {from, to, q.bits, q.rounding, q.relu, q.sat32, q.clamp};
            lgr_epilogue ep;
            CHECK(lgr_epilogue_make(&spec, &ep) == LGR_OK);
            return ep;
        };
        results &r = *all_;
        lgr_outputs out =
            outputs(r.codes2.data(), r.value2.data(), r.mask2.data(), r.slope2.data());
        int64_t amax[2] = {0, 0}, rest[2] = {0, 0};
        if (fixed) {
            run(epilogue(q.exp2, 0), out, bias, amax);
            r.same(false, false);
            return;
        }
        const lgr_stats mine = here.pointers(tqt);
        const bool observe = q.observe && n > 0;
        int32_t now;
        if (nan) {
            now = lgr_stats_step(&mine, q.bits, LGR_EXP2_MAX, observe, not_a_number());
        } else {
            const int32_t guess = lgr_stats_guess(&mine, q.bits, acc);
            const lgr_epilogue first = epilogue(acc, guess == LGR_EXP2_NONE ? acc : guess);
            run(first, lgr_outputs{}, bias, amax);
            now = lgr_stats_step(&mine, q.bits, acc, observe, lgr_epilogue_peak(&first, acc, amax));
            if (tqt && !lgr_threshold_moves(here.threshold, q.bits, acc)) out.slope = nullptr;
            run(epilogue(acc, now), out, bias, rest);
        }
        if (now == LGR_EXP2_NAN)
            for (int64_t i = 0; i < n; ++i) r.value2[i] = not_a_number();
        r.same(grad, tqt);
        CHECK(all_->scale == host<float>(1, lgr_exp2_scale(now)));
        CHECK(there == host<held>(1, here));
    }

  private:
    lgr_outputs outputs(uint8_t *codes, float *value, uint8_t *mask, float *slope) const
    {
        lgr_outputs to = {};
        to.value = value;
        if (q.bits <= 8) to.code8 = (int8_t *)codes;
        else if (fixed && q.bits <= 16) to.code16 = (int16_t *)(void *)codes;
        else to.code32 = (int32_t *)(void *)codes;
        if (grad) to.mask = mask;
        if (grad && tqt) to.slope = slope;
        return to;
    }
    std::unique_ptr<results> all_;
    device<int64_t> scratch_;
    device<float> bias_;
    device<int32_t> bias_codes_;
    host<float> bias2_;
    host<int32_t> codes2_{0};
    bool there_scale_a_ = false, there_scale_b_ = false, nan_ = false;
};

// Float gradients: the device's exp, tanh and erf, and its order of sums, differ in the last places.
inline bool nearly(const host<float> &got, const host<float> &want)
{
    double off = 0.0, all = 1e-12;
    for (size_t i = 0; i < want.size(); ++i) {
        const double a = got.data()[i], b = want.data()[i];
        off += (a - b) * (a - b);
        all += b * b;
    }
    return off <= 1e-10 * all; // float32 sums in another order: 1e-5
}
inline bool nearly(const device<float> &got, const host<float> &want)
{
    return nearly(got.get(), want);
}

// The number of random cases: LGR_CASES under race detection.
inline int cases_of(int all)
{
    const char *few = getenv("LGR_CASES"), *seed = getenv("LGR_EMULATED_SEED");
    random_state ^= (uint64_t)(seed ? atoi(seed) : 0) * 0x9e3779b97f4a7c15u;
    return few && *few && atoi(few) < all ? atoi(few) : all;
}

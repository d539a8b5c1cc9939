// output.h - the output quantizer of every operator: results, the exponent, the gradient's mask, the tag. No arithmetic here.
//
// An operator whose exact sums are integers is a class (below: Kernel) with
//
//     Sums sums() const                                        what its sums are
//     Tensor fresh(int32_t dtype) const                        a result: memory [rows][o], the device of its operands
//     void run(const lgr_epilogue &, const lgr_outputs &, Extremes *)   all rows, once, on the CPU
//     void bias(const int32_t *)                               codes of the bias, for the runs to come (or it is a NoBias)
//
// and its adapter is `return quantized("name", kernel, output);`. The same class serves the integer form (`integers`).
//
// CUDA. The device is chosen here, in `quantized`, and nowhere else: adapters, schemas and Python stay one. A twin is one more
// member of the operator's class, `lgr_status cuda(const lgr_output_cuda &, void *stream)`; `quantized` then fills the job from
// `Sums` (the pointers of its scales, exp2, bias), the state's device pointers (`pointers`) and `Results`, calls it, and
// returns `all(scale_now)`; the operator's row in LGR_OPERATORS says that CUDA has it. So nothing outside `run` may read a
// number from a tensor: a Kernel keeps scales as tensors (Exponent) until it runs on the CPU.
#pragma once
#include "lgr/epilogue.h"
#include "lgr/quantize.h"
#include "ops/state.h"
#include <cstring>
#include <vector>

namespace lgr {
using Coded =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>; // value, codes, scale, mask, slope

// An operand's exponent: given, or behind a scale that is read where it is needed.
class Exponent {
  public:
    Exponent(const Tensor &scale) : scale_(scale) {}
    Exponent(int64_t given, const char *name) : given_(to_i32(given, name)) {}
    const Tensor *scale() const { return scale_ ? &*scale_ : nullptr; }
    int32_t read(const char *op) const { return scale_ ? exp2_of(*scale_, op) : given_; }

  private:
    OptTensor scale_;
    int32_t given_ = 0;
};

// The exact integer sums of an operator: `rows` of `o`, at the exponent scale_a + scale_b + exp2 (no scale: 0).
struct Sums {
    int64_t rows, o;
    const Tensor *scale_a = nullptr, *scale_b = nullptr; // NaN in one: the result is NaN
    int32_t exp2 = 0; // added
    const Tensor *watched = nullptr; // a scale that is no part of the exponent: NaN in it, too
    const Tensor *number = nullptr; // one more operand in real units: NaN in it, too
    bool sat32 = false; // the accumulator saturates at 32 bits
    const OptTensor *bias = nullptr; // float32 [o], added at the exponent of the sums
    const char *operands = "x and w"; // whose scales they are, for messages
};

// A Kernel whose sums have no bias.
struct NoBias {
    void bias(const int32_t *) {}
};

// max(A) and max(-A).
class Extremes {
  public:
    void merge(const int64_t seen[2]) {
        for (int i = 0; i < 2; ++i) v_[i].raise(seen[i]);
    }
    float peak(const lgr_epilogue &ep, int32_t acc_exp2) const {
        const int64_t seen[2] = {v_[0].get(), v_[1].get()};
        return lgr_epilogue_peak(&ep, acc_exp2, seen);
    }

  private:
    Largest<int64_t> v_[2];
};

// f(at, count, seen) -> lgr_status on blocks of n elements, what they saw merged.
template <class F> void for_blocks(int64_t n, const char *op, Extremes *extremes, F &&f) {
    for_blocks(n, op, [&f, extremes](int64_t at, int64_t count) {
        int64_t seen[2] = {0, 0};
        const lgr_status s = f(at, count, seen);
        if (extremes) extremes->merge(seen);
        return s;
    });
}
// The same on rows of o elements, with scratch for each thread: f(from, to, scratch, seen).
template <class F>
void for_rows(int64_t rows, int64_t o, int64_t bytes, const char *op, Extremes *extremes, F &&f) {
    for_range(
        rows, kBlock / (o > 0 ? o : 1) + 1, op, [&f, bytes, extremes](int64_t from, int64_t to) {
            int64_t seen[2] = {0, 0};
            const lgr_status s = f(from, to, static_cast<int32_t *>(thread_scratch(bytes)), seen);
            if (extremes) extremes->merge(seen);
            return s;
        });
}

// What a quantizing operator returns, made by fresh(dtype) where its kernel writes it.
struct Results {
    Tensor codes;
    OptTensor value, mask, slope;
    int32_t bits;

    // grad: with a mask of mask_bytes; tqt: then also with a slope.
    template <class Fresh>
    Results(int32_t width, bool grad, bool tqt, int64_t mask_bytes, Fresh &&fresh, bool real = true)
        : codes(fresh(quantized_dtype(width))),
          value(made(real, [&] { return fresh(aoti_torch_dtype_float32()); })),
          mask(made(
              grad,
              [&] { return fresh_1d(mask_bytes, aoti_torch_dtype_uint8(), place_of(codes)); })),
          slope(made(grad && tqt, [&] { return fresh(aoti_torch_dtype_float32()); })), bits(width) {
    }
    int64_t numel() const { return codes.numel(); }

    lgr_quantize_out flat() const {
        return {data<float>(value), codes.mutable_data_ptr(), data<uint8_t>(mask),
                data<float>(slope)};
    }
    lgr_outputs rows() const {
        lgr_outputs out = {};
        if (bits <= 8) out.code8 = codes.mutable_data_ptr<int8_t>();
        else out.code32 = codes.mutable_data_ptr<int32_t>();
        out.value = data<float>(value);
        out.mask = data<uint8_t>(mask);
        out.slope = data<float>(slope);
        out.stream = numel() >= kStreamValues;
        return out;
    }
    // The scale of the results; behind a NaN they are written here: value NaN, everything else 0.
    Tensor tagged(int32_t exp2) const {
        if (exp2 == LGR_EXP2_NAN) {
            if (float *v = data<float>(value))
                for (int64_t i = 0, n = numel(); i < n; ++i) v[i] = lgr_exp2_scale(exp2);
            zero(codes, bits <= 8 ? 1 : 4);
            if (mask) zero(*mask, 1);
            if (slope) zero(*slope, 4);
        }
        return scale_of(exp2);
    }
    Tensor mask_or_absent() const {
        return mask ? *mask : absent(aoti_torch_dtype_uint8(), place_of(codes));
    }
    Tensor slope_or_absent() const {
        return slope ? *slope : absent(aoti_torch_dtype_float32(), place_of(codes));
    }
    Coded all(const Tensor &scale) const {
        return {*value, codes, scale, mask_or_absent(), slope_or_absent()};
    }

  private:
    template <class Make> static OptTensor made(bool wanted, Make &&make) {
        return wanted ? OptTensor(make()) : std::nullopt;
    }
    template <class T> static T *data(const OptTensor &t) {
        return t ? t->mutable_data_ptr<T>() : nullptr;
    }
    static void zero(const Tensor &t, size_t size) {
        if (const int64_t n = t.numel())
            memset(t.mutable_data_ptr(), 0, static_cast<size_t>(n) * size);
    }
};

// The gradient of codes from that of the result, in rows of n results and m codes: f(from, codes, bytes, rows, to).
template <class F>
Tensor gradient_in_rows(const char *op, const Tensor &grad, const Tensor &codes, int64_t n,
                        int64_t m, F &&f) {
    const Tensor g = lgr::contiguous(grad), in = lgr::contiguous(codes),
                 dx = fresh_like(in, aoti_torch_dtype_float32());
    STD_TORCH_CHECK(g.scalar_type() == ScalarType::Float && g.numel() * m == in.numel() * n, op,
                    ": grad must be float32 and fit the codes");
    if (g.numel() == 0) return dx;
    const int32_t bytes = code_bytes(in, op);
    const float *from = g.const_data_ptr<float>();
    const char *q = static_cast<const char *>(in.const_data_ptr());
    float *to = dx.mutable_data_ptr<float>();
    for_range(g.numel() / n, kBlock / n + 1, op, [&](int64_t b, int64_t e) {
        return f(from + b * n, q + b * m * bytes, bytes, e - b, to + b * m);
    });
    return dx;
}

inline lgr_epilogue epilogue(const char *op, const lgr_epilogue_spec &spec) {
    lgr_epilogue ep;
    check(lgr_epilogue_make(&spec, &ep), op);
    return ep;
}

// The exponent of the sums, LGR_EXP2_NAN behind a NaN.
inline int32_t sums_exp2(const char *op, const Sums &s) {
    int32_t sum = s.exp2;
    for (const Tensor *scale : {s.scale_a, s.scale_b}) {
        if (!scale) continue;
        const int32_t e = exp2_of(*scale, op);
        if (e == LGR_EXP2_NAN) return e;
        sum += e;
    }
    if (s.watched && exp2_of(*s.watched, op) == LGR_EXP2_NAN) return LGR_EXP2_NAN;
    if (s.number && *s.number->const_data_ptr<float>() != *s.number->const_data_ptr<float>())
        return LGR_EXP2_NAN;
    STD_TORCH_CHECK(sum >= -126, op, ": the scales of ", s.operands,
                    " are too small: their product is 2^", sum);
    return sum;
}

// int32 codes of a float bias; whether it holds a NaN.
inline bool bias_codes(const char *op, const Tensor &bias, int32_t exp2,
                       std::vector<int32_t> &codes) {
    const Tensor in = lgr::contiguous(bias);
    const int64_t n = static_cast<int64_t>(codes.size());
    STD_TORCH_CHECK(in.scalar_type() == ScalarType::Float && in.numel() == n, op,
                    ": bias must be float32 with ", n, " elements");
    lgr_range seen = {0, 0};
    check(lgr_observe_f32(in.const_data_ptr<float>(), n, &seen), op);
    check(lgr_quantize_bias_f32_s32(in.const_data_ptr<float>(), n, exp2, codes.data()), op);
    return seen.abs > 0x7f800000;
}

// The training form on the CPU: everything written into `results`; the exponent, LGR_EXP2_NAN where nothing was.
template <class Kernel>
int32_t quantized_on_cpu(const char *op, Kernel &kernel, const Sums &sums, const lgr_stats &state,
                         const Format &how, const Results &results) {
    const bool observe = how.observe && results.numel() > 0; // an empty batch says nothing
    const int32_t acc = sums_exp2(op, sums);
    bool nan = acc == LGR_EXP2_NAN;
    const bool biased = sums.bias && *sums.bias;
    std::vector<int32_t> codes(biased ? static_cast<size_t>(sums.o) : 0);
    if (biased) {
        nan = bias_codes(op, **sums.bias, nan ? 0 : acc, codes) || nan;
        kernel.bias(codes.data());
    }
    if (nan) return settle_nan(state, how.bits, observe);
    lgr_outputs out = results.rows();
    if (out.slope && slope_is_zero(state, how.bits, acc)) {
        memset(out.slope, 0, static_cast<size_t>(results.numel()) * sizeof(float));
        out.slope = nullptr;
    }
    if (out.mask && sums.rows == 1 && sums.o > 0) // spare bits of the one row
        out.mask[lgr_mask_row_bytes(sums.o) - 1] = 0;
    return settle(state, how.bits, acc, observe, [&](int32_t exp2, bool look) {
        const bool write = exp2 != LGR_EXP2_NONE;
        const int32_t to = write ? exp2 : acc < LGR_EXP2_MAX ? acc : LGR_EXP2_MAX;
        const lgr_epilogue ep =
            epilogue(op, {acc, to, how.bits, how.rounding, how.relu, sums.sat32, how.clamp});
        Extremes extremes;
        kernel.run(ep, write ? out : lgr_outputs{}, look ? &extremes : nullptr);
        return look ? extremes.peak(ep, acc) : 0.0f;
    });
}

// The training form.
template <class Kernel> Coded quantized(const char *op, Kernel &kernel, const Output &output) {
    const Format how = output.format.checked(op);
    const Sums sums = kernel.sums();
    const Results results(how.bits, how.grad, output.state.threshold.has_value(),
                          sums.rows * lgr_mask_row_bytes(sums.o),
                          [&kernel](int32_t dtype) { return kernel.fresh(dtype); });
    const lgr_stats state = pointers(op, output.state, results.codes);
    return results.all(results.tagged(quantized_on_cpu(op, kernel, sums, state, how, results)));
}

// The integer form of runner and chip functions: exact shift, half up, no state. bias: int32 codes.
template <class Kernel>
Tensor integers(const char *op, Kernel &kernel, int64_t shift, int64_t bits, bool relu = false,
                const OptTensor &bias = std::nullopt) {
    const int32_t s = to_i32(shift, "shift"), b = to_bits(bits, op);
    STD_TORCH_CHECK(s <= 63 && (s >= 0 || (b == 32 && s >= -31)), op,
                    ": shift must be in [0, 63], or in [-31, -1] for 32 bits; got ", s, " with ", b,
                    " bits");
    const Sums sums = kernel.sums();
    const lgr_epilogue ep = epilogue(op, {s, 0, b, LGR_FLOOR_ADD, relu, sums.sat32 || s < 0, 0.0});
    const Tensor codes = kernel.fresh(integer_form_dtype(b));
    OptTensor held;
    if (bias) {
        STD_TORCH_CHECK(bias->scalar_type() == ScalarType::Int && bias->numel() == sums.o, op,
                        ": bias must be int32 with ", sums.o, " elements");
        held = lgr::contiguous(*bias);
        kernel.bias(held->const_data_ptr<int32_t>());
    }
    lgr_outputs out = {};
    if (b <= 8) out.code8 = codes.mutable_data_ptr<int8_t>();
    else if (b <= 16) out.code16 = codes.mutable_data_ptr<int16_t>();
    else out.code32 = codes.mutable_data_ptr<int32_t>();
    kernel.run(ep, out, nullptr);
    return codes;
}
} // namespace lgr

// sums.h - what an operator tells its output quantizer (output.h), and the tensors that both write. No arithmetic here.
#pragma once
#include "lgr/epilogue.h"
#include "lgr/quantize.h"
#include "ops/device.h"
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
    const float *data() const { return scale_ ? scale_->const_data_ptr<float>() : nullptr; }
    int32_t given() const { return given_; } // where data() is NULL
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

// The gradient of codes from that of the result, in rows of n results and m codes:
// on_cpu(from, codes, bytes, exp2, rows, to), on_gpu(from, codes, bytes, scale, rows, to, stream).
template <class Cpu, class Gpu>
Tensor gradient_in_rows(const char *op, const Tensor &grad, const Tensor &codes,
                        const Tensor &scale, int64_t n, int64_t m, Cpu &&on_cpu, Gpu &&on_gpu) {
    const Tensor g = lgr::contiguous(grad), in = lgr::contiguous(codes),
                 dx = fresh_like(in, aoti_torch_dtype_float32());
    STD_TORCH_CHECK(g.scalar_type() == ScalarType::Float && g.numel() * m == in.numel() * n, op,
                    ": grad must be float32 and fit the codes");
    const int32_t bytes = code_bytes(in, op);
    const float *from = g.const_data_ptr<float>();
    const auto *q = static_cast<const int8_t *>(in.const_data_ptr());
    float *to = dx.mutable_data_ptr<float>();
    LGR_ON_GPU(g) {
        same_device(op, g, {{"codes", in}});
        const float *at = scale_at(op, g, "a scale", scale);
        const DeviceQueue queue(g);
        check(on_gpu(from, q, bytes, at, n > 0 ? g.numel() / n : 0, to, queue.stream()), op);
        return dx;
    }
    const int32_t exp2 = exp2_of(scale, op);
    if (g.numel() == 0) return dx;
    for_range(g.numel() / n, kBlock / n + 1, op, [&](int64_t b, int64_t e) {
        return on_cpu(from + b * n, q + b * m * bytes, bytes, exp2, e - b, to + b * m);
    });
    return dx;
}

} // namespace lgr

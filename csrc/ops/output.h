// output.h - the output quantizer of every operator: results, the exponent, the gradient's mask, the tag. No arithmetic here.
//
// An operator whose exact sums are integers is a class (below: Kernel; its words are in sums.h) with
//
//     Sums sums() const                                        what its sums are
//     Tensor fresh(int32_t dtype) const                        a result: memory [rows][o], the device of its operands
//     void run(const lgr_epilogue &, const lgr_outputs &, Extremes *)   all rows, once, on the CPU
//     void bias(const int32_t *)                               codes of the bias, for the runs to come (or it is a NoBias)
//
// and its adapter is `return quantized("name", TheClass(...), output);`. The same class serves the integer form (`integers`).
//
//     lgr_status cuda(const lgr_output_cuda &, void *stream)   the same on a GPU: queued, nothing is read back
//
// The device is chosen here, in `quantized` and `integers`: adapters, schemas and Python are one for all. So nothing outside `run`
// may read a number from a tensor: a Kernel keeps scales as tensors (Exponent) until it runs on the CPU.
#pragma once
#include "ops/output_gpu.h"

namespace lgr {
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
template <class Kernel> Coded quantized(const char *op, Kernel &&kernel, const Output &output) {
    const Format how = output.format.checked(op);
    const Sums sums = kernel.sums();
    const Results results(how.bits, how.grad, output.state.threshold.has_value(),
                          sums.rows * lgr_mask_row_bytes(sums.o),
                          [&kernel](int32_t dtype) { return kernel.fresh(dtype); });
    const lgr_stats state = pointers(op, output.state, results.codes);
    LGR_ON_GPU(results.codes)
    return results.all(quantized_on_gpu(op, kernel, sums, state, how, results));
    return results.all(results.tagged(quantized_on_cpu(op, kernel, sums, state, how, results)));
}

// The integer form of runner and chip functions: exact shift, half up, no state. bias: int32 codes.
template <class Kernel>
Tensor integers(const char *op, Kernel &&kernel, int64_t shift, int64_t bits, bool relu = false,
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
    }
    lgr_outputs out = {};
    if (b <= 8) out.code8 = codes.mutable_data_ptr<int8_t>();
    else if (b <= 16) out.code16 = codes.mutable_data_ptr<int16_t>();
    else out.code32 = codes.mutable_data_ptr<int32_t>();
    LGR_ON_GPU(codes) {
        GpuOutput to(op, codes, sums, false);
        to.fix(b, s, 0);
        to.q.relu = relu;
        to.q.sat32 = sums.sat32 || s < 0;
        to.q.out = out;
        if (held) {
            same_device(op, codes, {{"bias", held}});
            to.q.bias_codes = const_cast<int32_t *>(held->const_data_ptr<int32_t>()); // read alone
        }
        const DeviceQueue queue(codes);
        check(kernel.cuda(to.q, queue.stream()), op);
        return codes;
    }
    if (held) kernel.bias(held->const_data_ptr<int32_t>());
    kernel.run(ep, out, nullptr);
    return codes;
}
} // namespace lgr

// cat.cpp - the common scale of concatenated tensors, and each tensor brought to it. No arithmetic here.
#include "lgr/cat.h"
#include "lgr/rescale.h"
#include "lgr/rescale_cuda.h"
#include "ops/output.h"
#include <cmath>
#include <vector>

namespace {
using lgr::Tensor;

// Largest |x| of all operands in real units.
float peak_of(const std::vector<Tensor> &codes, const std::vector<int32_t> &exp2) {
    double peak = 0.0;
    for (size_t i = 0; i < codes.size(); ++i) {
        const Tensor in = lgr::dense(codes[i]);
        const int64_t top =
            lgr_peak_codes(in.const_data_ptr(), lgr::code_bytes(in, "cat_scale"), in.numel());
        peak = std::fmax(peak, static_cast<double>(top) * lgr_exp2_f64(-exp2[i]));
    }
    return static_cast<float>(peak);
}

Tensor cat_scale_on_gpu(const std::vector<Tensor> &codes, const std::vector<Tensor> &scales,
                        const lgr_stats &state, const lgr_cat_params &p, const Tensor &moves) {
    const char *op = "cat_scale";
    const Tensor &x = codes[0], now = lgr::scalar_at(x, aoti_torch_dtype_float32()),
                 scratch = lgr::scratch_at(x, LGR_CAT_CUDA_SCRATCH);
    const lgr::DeviceQueue queue(x);
    lgr::check(lgr_cat_begin_cuda(scratch.mutable_data_ptr(), queue.stream()), op);
    for (size_t i = 0; i < codes.size(); ++i) {
        lgr::same_device(op, x, {{"an operand", codes[i]}});
        const Tensor in = lgr::dense(codes[i]);
        lgr::check(lgr_cat_operand_cuda(in.const_data_ptr(), lgr::code_bytes(in, op), in.numel(),
                                        lgr::scale_at(op, x, "a scale", scales[i]),
                                        scratch.mutable_data_ptr(), queue.stream()),
                   op);
    }
    lgr::check(lgr_cat_end_cuda(&state, &p, now.mutable_data_ptr<float>(),
                                moves.mutable_data_ptr<float>(), scratch.mutable_data_ptr(),
                                queue.stream()),
               op);
    return now;
}

// widest: the result takes the largest scale of the operands (a chip that shifts left only), whatever the statistics
// say; else it is at most `left` bits finer than the coarsest operand.
std::tuple<Tensor, Tensor> cat_scale(const std::vector<Tensor> &codes,
                                     const std::vector<Tensor> &scales, const lgr::State &state,
                                     int64_t bits, int64_t left, bool widest, int64_t flags) {
    STD_TORCH_CHECK(!codes.empty() && codes.size() == scales.size(),
                    "cat_scale: one scale per operand, at least one operand");
    const lgr_stats st = lgr::pointers("cat_scale", state, codes[0]);
    const int32_t b = lgr::to_bits(bits, "cat_scale");
    STD_TORCH_CHECK(left >= 0 && left <= 63, "cat_scale: left must be in [0, 63], got ", left);
    int64_t n = 0;
    for (const Tensor &t : codes) n += t.numel();
    const lgr_cat_params p = {b, static_cast<int32_t>(left), widest,
                              (flags & LGR_OBSERVE) && n > 0};
    const Tensor moves = lgr::scalar_at(codes[0], aoti_torch_dtype_float32());
    LGR_ON_GPU(codes[0]) return {cat_scale_on_gpu(codes, scales, st, p, moves), moves};
    std::vector<int32_t> exp2;
    lgr_cat_operands in = {LGR_EXP2_MAX, -LGR_EXP2_MAX, 0, 0.0f};
    for (const Tensor &scale : scales) {
        const int32_t e = lgr::exp2_of(scale, "cat_scale");
        exp2.push_back(e);
        in.nan = in.nan || e == LGR_EXP2_NAN;
        in.low = e < in.low ? e : in.low;
        in.high = e > in.high ? e : in.high;
    }
    if (lgr_cat_needs_peak(&st, &p, &in)) in.peak = peak_of(codes, exp2);
    const int32_t now = lgr_cat_step(&st, &p, &in, moves.mutable_data_ptr<float>());
    return {lgr::scale_of(now), moves};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> rescale(const Tensor &x, const Tensor &x_scale,
                                                   const Tensor &scale, int64_t bits,
                                                   int64_t rounding, int64_t flags, bool tqt) {
    const Tensor in = lgr::dense(x);
    lgr_rescale_params p = {};
    p.bits = lgr::to_bits(bits, "rescale");
    p.bytes = lgr::code_bytes(in, "rescale");
    p.rounding = lgr::to_rounding(rounding, "rescale");
    const int64_t n = in.numel();
    const lgr::Results results(p.bits, (flags & LGR_GRAD) != 0, tqt, lgr_mask_bytes(n),
                               [&](int32_t dtype) { return lgr::fresh_like(in, dtype); });
    const lgr_quantize_out out = results.flat();
    const char *src = static_cast<const char *>(in.const_data_ptr());
    LGR_ON_GPU(in) {
        const lgr::DeviceQueue queue(in);
        lgr::check(lgr_rescale_cuda(src, n, &p, lgr::scale_at("rescale", in, "x_scale", x_scale),
                                    lgr::scale_at("rescale", in, "to_scale", scale), &out,
                                    queue.stream()),
                   "rescale");
        return {*results.value, results.codes, results.mask_or_absent(), results.slope_or_absent()};
    }
    p.exp2_x = lgr::exp2_of(x_scale, "rescale");
    p.exp2 = p.exp2_x == LGR_EXP2_NAN ? p.exp2_x : lgr::exp2_of(scale, "rescale");
    lgr::for_blocks(n, "rescale", [=](int64_t at, int64_t count) {
        const lgr_quantize_out to = lgr_quantize_out_at(out, at, p.bits);
        return lgr_rescale(src + at * p.bytes, count, &p, &to);
    });
    return {*results.value, results.codes, results.mask_or_absent(), results.slope_or_absent()};
}
} // namespace

LGR_OPERATORS({"cat_scale(Tensor[] codes, Tensor[] scales, " LGR_STATE
               ", int bits, int left, bool widest, int flags) -> (Tensor scale_now, Tensor moves)",
               LGR_BOX(cat_scale)},
              {"rescale(Tensor x, Tensor x_scale, Tensor to_scale, int bits, int rounding, "
               "int flags, bool tqt) -> (Tensor value, Tensor codes, Tensor mask, Tensor slope)",
               LGR_BOX(rescale)});

// add.cpp - sum and difference of two quantized tensors; shifts of codes. No arithmetic here.
#include "lgr/add.h"
#include "lgr/add_cuda.h"
#include "ops/output.h"
#include "ops/pair.h"

namespace {
using lgr::Tensor;

// Operands are brought to the result's exponent before they are summed: no exact sums, so no Kernel of output.h.
lgr::Coded run(const char *op, bool minus, const Tensor &x, const Tensor &x_scale, const Tensor &y,
               const Tensor &y_scale, const lgr::Output &output) {
    const lgr::Format how = output.format.checked(op);
    const lgr::Pair in(x, y, op);
    const lgr_stats state = lgr::pointers(op, output.state, in.x);
    const int64_t n = in.x.numel();
    const lgr::Results results(how.bits, how.grad, state.threshold, lgr_mask_bytes(n),
                               [&](int32_t dtype) { return lgr::fresh_like(in.x, dtype); });
    lgr_add_params p = {};
    p.bits = how.bits;
    p.bytes = in.bytes;
    p.rounding = how.rounding;
    p.relu = how.relu;
    p.stream = n >= lgr::kStreamValues;
    p.minus = minus;
    p.clamp = static_cast<float>(how.clamp);
    LGR_ON_GPU(in.x) {
        const Tensor now = lgr::scalar_at(in.x, aoti_torch_dtype_float32()),
                     scratch = lgr::scratch_at(in.x, LGR_ADD_CUDA_SCRATCH);
        const lgr_add_cuda_job job = {in.at_x(0),
                                      in.at_y(0),
                                      lgr::scale_at(op, in.x, "x_scale", x_scale),
                                      lgr::scale_at(op, in.x, "y_scale", y_scale),
                                      n,
                                      p,
                                      state,
                                      how.observe,
                                      results.flat(),
                                      now.mutable_data_ptr<float>(),
                                      scratch.mutable_data_ptr()};
        const lgr::DeviceQueue queue(in.x);
        lgr::check(lgr_add_cuda(&job, queue.stream()), op);
        return results.all(now);
    }
    const int32_t ex = lgr::exp2_of(x_scale, op), ey = lgr::exp2_of(y_scale, op);
    const int32_t cap = ex < ey ? ex : ey;
    const bool nan = ex == LGR_EXP2_NAN || ey == LGR_EXP2_NAN, observe = how.observe && n > 0;
    p.exp2_x = ex;
    p.exp2_y = ey;
    p.no_slope = lgr::slope_is_zero(state, how.bits, cap);
    const auto pass = [&](int32_t exp2, bool look) {
        const bool write = exp2 != LGR_EXP2_NONE, watch = look && (observe || !write);
        p.exp2 = write ? exp2 : cap;
        const lgr_quantize_out out = write ? results.flat() : lgr_quantize_out{};
        lgr::Range range;
        lgr::for_blocks(n, op, [&](int64_t at, int64_t count) {
            const lgr_quantize_out to = lgr_quantize_out_at(out, at, p.bits);
            lgr_range seen = {0, 0};
            const lgr_status s =
                lgr_add(in.at_x(at), in.at_y(at), count, &p, &to, watch ? &seen : nullptr);
            if (watch) range.merge(seen);
            return s;
        });
        return range.peak(how.relu, how.clamp);
    };
    return results.all(results.tagged(nan ? lgr::settle_nan(state, how.bits, observe)
                                          : lgr::settle(state, how.bits, cap, observe, pass)));
}

lgr::Coded add(const Tensor &x, const Tensor &x_scale, const Tensor &y, const Tensor &y_scale,
               const lgr::Output &output) {
    return run("add", false, x, x_scale, y, y_scale, output);
}
lgr::Coded sub(const Tensor &x, const Tensor &x_scale, const Tensor &y, const Tensor &y_scale,
               const lgr::Output &output) {
    return run("sub", true, x, x_scale, y, y_scale, output);
}

Tensor run_codes(int32_t minus, const Tensor &x, const Tensor &y, int64_t shift_x, int64_t shift_y,
                 int64_t bits) {
    const lgr::Pair in(x, y, "add_codes");
    const int32_t b = lgr::to_bits(bits, "add_codes"), sx = lgr::to_i32(shift_x, "shift_x"),
                  sy = lgr::to_i32(shift_y, "shift_y");
    const Tensor out = lgr::fresh_like(in.x, lgr::quantized_dtype(b));
    char *dst = static_cast<char *>(out.mutable_data_ptr());
    const char *xp = in.at_x(0), *yp = in.at_y(0);
    const int32_t bytes = in.bytes;
    LGR_ON_GPU(in.x) {
        const lgr::DeviceQueue queue(in.x);
        lgr::check(
            lgr_add_codes_cuda(xp, yp, bytes, in.x.numel(), sx, sy, b, minus, dst, queue.stream()),
            "add_codes");
        return out;
    }
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
    const Tensor in = lgr::dense(x), out = lgr::fresh_like(in, lgr::quantized_dtype(b));
    const char *src = static_cast<const char *>(in.const_data_ptr());
    char *dst = static_cast<char *>(out.mutable_data_ptr());
    LGR_ON_GPU(in) {
        const lgr::DeviceQueue queue(in);
        lgr::check(lgr_requant_cuda(src, bytes, in.numel(), s, b, dst, queue.stream()),
                   "requant_codes");
        return out;
    }
    lgr::for_blocks(in.numel(), "requant_codes", [=](int64_t at, int64_t n) {
        return lgr_requant(src + at * bytes, bytes, n, s, b, dst + at * (b <= 8 ? 1 : 4));
    });
    return out;
}
} // namespace

LGR_OPERATORS({LGR_QUANTIZED("add", LGR_TWO_CODED), LGR_BOX(add)},
              {LGR_QUANTIZED("sub", LGR_TWO_CODED), LGR_BOX(sub)},
              {"add_codes(Tensor x, Tensor y, int shift_x, int shift_y, int bits) -> Tensor",
               LGR_BOX(add_codes)},
              {"sub_codes(Tensor x, Tensor y, int shift_x, int shift_y, int bits) -> Tensor",
               LGR_BOX(sub_codes)},
              {"requant_codes(Tensor x, int shift, int bits) -> Tensor", LGR_BOX(requant_codes)});

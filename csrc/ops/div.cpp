// div.cpp - quotient of two quantized 32-bit tensors. No arithmetic here.
#include "lgr/div.h"
#include "lgr/div_cuda.h"
#include "lgr/quantize.h"
#include "ops/pair.h"
#include "ops/box.h"

namespace {
using lgr::Tensor;

Tensor div_codes(const Tensor &x, const Tensor &y, int64_t shift) {
    const lgr::Pair in(x, y, "div_codes");
    STD_TORCH_CHECK(in.bytes == 4, "div_codes: x and y must be int32 codes");
    const int32_t s = lgr::to_i32(shift, "shift");
    const Tensor out = lgr::fresh_like(in.x, aoti_torch_dtype_int32());
    const int32_t *xp = in.x.const_data_ptr<int32_t>(), *yp = in.y.const_data_ptr<int32_t>();
    int32_t *to = out.mutable_data_ptr<int32_t>();
    LGR_ON_GPU(in.x) {
        const lgr::DeviceQueue queue(in.x);
        lgr::check(lgr_div_s32_cuda(xp, yp, in.x.numel(), s, to, queue.stream()), "div_codes");
        return out;
    }
    lgr::for_blocks(in.x.numel(), "div_codes", [=](int64_t at, int64_t n) {
        return lgr_div_s32(xp + at, yp + at, n, s, to + at);
    });
    return out;
}

// The same with exponents instead of a shift, and the real quotients.
std::tuple<Tensor, Tensor> quotient(const Tensor &x, const Tensor &x_scale, const Tensor &y,
                                    const Tensor &y_scale, const Tensor &out_scale) {
    LGR_ON_GPU(x) {
        const lgr::Pair in(x, y, "div");
        STD_TORCH_CHECK(in.bytes == 4, "div: x and y must be int32 codes");
        const Tensor codes = lgr::fresh_like(in.x, aoti_torch_dtype_int32()),
                     value = lgr::fresh_like(in.x, aoti_torch_dtype_float32());
        const lgr::DeviceQueue queue(in.x);
        lgr::check(lgr_div_scales_cuda(in.x.const_data_ptr<int32_t>(),
                                       in.y.const_data_ptr<int32_t>(), in.x.numel(),
                                       lgr::scale_at("div", x, "x_scale", x_scale),
                                       lgr::scale_at("div", x, "y_scale", y_scale),
                                       lgr::scale_at("div", x, "out_scale", out_scale),
                                       codes.mutable_data_ptr<int32_t>(),
                                       value.mutable_data_ptr<float>(), queue.stream()),
                   "div");
        return {value, codes};
    }
    const int32_t ex = lgr::exp2_of(x_scale, "div"), ey = lgr::exp2_of(y_scale, "div"),
                  eo = lgr::exp2_of(out_scale, "div");
    const bool nan = ex == LGR_EXP2_NAN || ey == LGR_EXP2_NAN || eo == LGR_EXP2_NAN;
    const Tensor codes = div_codes(x, y, nan ? 0 : static_cast<int64_t>(eo) - ex + ey);
    const Tensor value = lgr::fresh_like(codes, aoti_torch_dtype_float32());
    int32_t *q = codes.mutable_data_ptr<int32_t>();
    float *v = value.mutable_data_ptr<float>();
    const int32_t e = nan ? LGR_EXP2_NAN : eo;
    lgr::for_blocks(codes.numel(), "div", [=](int64_t at, int64_t n) {
        if (e == LGR_EXP2_NAN) memset(q + at, 0, static_cast<size_t>(n) * sizeof(int32_t));
        return lgr_dequantize_s32_f32(q + at, n, e, v + at);
    });
    return {value, codes};
}
} // namespace

LGR_OPERATORS({"div_codes(Tensor x, Tensor y, int shift) -> Tensor", LGR_BOX(div_codes)},
              {"div(Tensor x, Tensor x_scale, Tensor y, Tensor y_scale, Tensor out_scale) -> "
               "(Tensor value, Tensor codes)",
               LGR_BOX(quotient)});

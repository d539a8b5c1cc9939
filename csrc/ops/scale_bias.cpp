// scale_bias.cpp - one factor and offset per channel. No arithmetic here.
#include "lgr/scale_bias.h"
#include "lgr/scale_bias_cuda.h"
#include "ops/device.h"

namespace {
using lgr::ScalarType;
using lgr::Tensor;

Tensor scale_bias_codes(const Tensor &x, const Tensor &w, const Tensor &b, int64_t shift) {
    STD_TORCH_CHECK(x.dim() >= 2, "scale_bias_codes: x must have at least 2 dimensions, got ",
                    x.dim());
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Char && w.scalar_type() == ScalarType::Char &&
                        b.scalar_type() == ScalarType::Int,
                    "scale_bias_codes: x and w must be int8, b int32");
    const int64_t c = x.size(1);
    STD_TORCH_CHECK(w.numel() == c && b.numel() == c, "scale_bias_codes: w and b must have ", c,
                    " elements");
    const bool interleaved = lgr::is_channels_last(x);
    const Tensor in = interleaved ? x : lgr::contiguous(x), weight = lgr::contiguous(w),
                 bias = lgr::contiguous(b);
    const Tensor out = lgr::fresh_like(in, aoti_torch_dtype_int8());
    const int64_t n = x.numel(), outer = n == 0 ? 0 : interleaved ? n / c : x.size(0);
    const int64_t inner = outer == 0 ? 0 : n / (outer * c);
    const int32_t s = lgr::to_i32(shift, "shift");
    const int8_t *src = in.const_data_ptr<int8_t>(), *wp = weight.const_data_ptr<int8_t>();
    const int32_t *bp = bias.const_data_ptr<int32_t>();
    int8_t *dst = out.mutable_data_ptr<int8_t>();
    lgr::same_device("scale_bias_codes", x, {{"w", w}, {"b", b}});
    LGR_ON_GPU(in) {
        const lgr::DeviceQueue queue(in);
        lgr::check(lgr_scale_bias_s8_s8_cuda(src, wp, bp, outer, c, inner, s, dst, queue.stream()),
                   "scale_bias_codes");
        return out;
    }
    lgr::for_range(outer, 2 * lgr::kBlock / (c * inner + 1) + 1, "scale_bias_codes",
                   [=](int64_t from, int64_t to) {
                       return lgr_scale_bias_s8_s8(src + from * c * inner, wp, bp, to - from, c,
                                                   inner, s, dst + from * c * inner);
                   });
    return out;
}
} // namespace

LGR_OPERATORS({"scale_bias_codes(Tensor x, Tensor w, Tensor b, int shift) -> Tensor",
               LGR_BOX(scale_bias_codes)});

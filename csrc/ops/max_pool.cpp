// max_pool.cpp - the largest code of each window, planar or interleaved. No arithmetic here.
#include "lgr/max_pool.h"
#include "ops/device.h"
#include <vector>

namespace {
using lgr::ScalarType;
using lgr::Tensor;
using Ints = std::vector<int64_t>;

Tensor max_pool_codes(const Tensor &x, const Ints &kernel, const Ints &stride,
                      const Ints &padding) {
    const char *op = "max_pool_codes";
    STD_TORCH_CHECK(x.dim() == 4, op, ": x must have 4 dimensions, got ", x.dim());
    const bool narrow = x.scalar_type() == ScalarType::Char;
    STD_TORCH_CHECK(narrow || x.scalar_type() == ScalarType::Int, op,
                    ": codes must be int8 or int32");
    STD_TORCH_CHECK(kernel.size() == 2 && stride.size() == 2 && padding.size() == 4, op,
                    ": kernel and stride need 2 values, padding 4");
    int64_t out[2];
    for (int64_t i = 0; i < 2; ++i) {
        const int64_t room = x.size(2 + i) + padding[i] + padding[i + 2] - kernel[i];
        STD_TORCH_CHECK(kernel[i] >= 1 && stride[i] >= 1 && padding[i] >= 0 &&
                            padding[i + 2] >= 0 && room >= 0,
                        op, ": the window does not fit into the padded input");
        out[i] = room / stride[i] + 1;
    }
    const bool interleaved = lgr::is_channels_last(x);
    const Tensor in = interleaved ? x : lgr::contiguous(x);
    const int64_t n = x.size(0), c = x.size(1), sizes[] = {n, c, out[0], out[1]};
    const int32_t dtype = narrow ? aoti_torch_dtype_int8() : aoti_torch_dtype_int32();
    const Tensor codes =
        interleaved ? lgr::fresh_channels_last(n, c, out[0], out[1], dtype, lgr::place_of(in))
                    : lgr::fresh(sizes, 4, dtype, lgr::place_of(in));
    lgr_max_pool_params p = {};
    p.n = interleaved ? n : n * c;
    p.h = x.size(2);
    p.w = x.size(3);
    p.c = interleaved ? c : 1;
    p.oh = out[0];
    p.ow = out[1];
    p.kh = lgr::to_i32(kernel[0], "kernel");
    p.kw = lgr::to_i32(kernel[1], "kernel");
    p.sh = lgr::to_i32(stride[0], "stride");
    p.sw = lgr::to_i32(stride[1], "stride");
    p.pad_top = lgr::to_i32(padding[0], "padding");
    p.pad_left = lgr::to_i32(padding[1], "padding");
    p.bytes = narrow ? 1 : 4;
    const void *src = in.const_data_ptr();
    void *dst = codes.mutable_data_ptr();
    const int64_t work = p.oh * p.ow * p.c * p.kh * p.kw + 1;
    lgr::for_range(p.n, 2 * lgr::kBlock / work + 1, op,
                   [=](int64_t b, int64_t e) { return lgr_max_pool(src, &p, b, e, dst); });
    return codes;
}
} // namespace

LGR_OPERATORS({"max_pool_codes(Tensor x, int[] kernel, int[] stride, int[] padding) -> Tensor",
               LGR_BOX(max_pool_codes), lgr::Devices::CPU});

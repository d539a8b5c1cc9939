// conv.cpp - integer convolution: checks, outputs, schema.
#include "ops/image.h"

namespace {
using lgr::OptTensor;
using lgr::Tensor;
using Ints = std::vector<int64_t>;

lgr::Coded conv(const Tensor &x, const Tensor &x_scale, const Tensor &w, const Tensor &w_scale,
                const OptTensor &bias, const Ints &stride, const Ints &padding,
                const Ints &dilation, int64_t groups, const lgr::Output &output,
                const OptTensor &packed) {
    const auto geometry = lgr::Geometry::of("conv", stride, padding, dilation, groups);
    lgr::Images images("conv", lgr::conv_params("conv", x, w, geometry), x, w, true,
                       {&x_scale, &w_scale, &bias}, packed);
    return lgr::quantized("conv", images, output);
}

// The smallest call with these weights says what they must be packed for.
Tensor conv_pack(const Tensor &w, const Ints &stride, int64_t groups) {
    STD_TORCH_CHECK(w.scalar_type() == lgr::ScalarType::Char && w.dim() >= 2 && w.dim() <= 4,
                    "conv_pack: w must be int8 codes with 2 or 4 dimensions");
    STD_TORCH_CHECK(stride.size() == 2 && groups >= 1, "conv_pack: stride needs 2 elements");
    const int64_t kh = w.dim() == 4 ? w.size(2) : 1, kw = w.dim() > 2 ? w.size(w.dim() - 1) : 1,
                  c = w.size(1) * groups;
    const lgr_conv_params p = {1, c, kh, kw, w.size(0), kh,     kw, stride[0], stride[1], 0,
                               0, 0, 0,  1,  1,         groups, c,  1,         kw * c,    c};
    lgr::check(lgr_conv_check(&p), "conv_pack");
    const Tensor codes = lgr::contiguous(w);
    return lgr::Packed::make(p, lgr_conv_pick(&p), codes.const_data_ptr<int8_t>());
}

Tensor conv_codes(const Tensor &x, const Tensor &w, const OptTensor &bias, const Ints &stride,
                  const Ints &padding, const Ints &dilation, int64_t groups, int64_t shift,
                  int64_t bits, bool relu, const OptTensor &packed) {
    const auto geometry = lgr::Geometry::of("conv_codes", stride, padding, dilation, groups);
    lgr::Images images("conv_codes", lgr::conv_params("conv_codes", x, w, geometry), x, w, true, {},
                       packed);
    return lgr::integers("conv_codes", images, shift, bits, relu, bias);
}
} // namespace

LGR_OPERATORS({"conv(Tensor x, Tensor x_scale, Tensor w, Tensor w_scale, Tensor? bias, "
               "int[] stride, int[] padding, int[] dilation, SymInt groups, " LGR_OUTPUT
               ", Tensor? packed=None) -> " LGR_CODED,
               LGR_BOX(conv)},
              {"conv_pack(Tensor w, int[] stride, int groups) -> Tensor", LGR_BOX(conv_pack),
               lgr::Devices::CPU},
              {"conv_codes(Tensor x, Tensor w, Tensor? bias, int[] stride, int[] padding, "
               "int[] dilation, int groups, int shift, int bits, bool relu, Tensor? packed=None) "
               "-> Tensor",
               LGR_BOX(conv_codes)});

// conv.cpp - integer convolution: checks, outputs, schema.
#include "ops/convolution.h"

namespace {
using lgr::OptTensor;
using lgr::Tensor;
using Ints = std::vector<int64_t>;

lgr_conv_params params(const char *op, const Tensor &x, const Tensor &w, const Ints &stride,
                       const Ints &padding, const Ints &dilation, int64_t groups) {
    STD_TORCH_CHECK(x.dim() == 4 && w.dim() == 4, op, ": x and w must have 4 dimensions, got ",
                    x.dim(), " and ", w.dim());
    STD_TORCH_CHECK(stride.size() == 2 && padding.size() == 4 && dilation.size() == 2, op,
                    ": stride and dilation need 2 elements, padding 4 (top, left, bottom, right)");
    STD_TORCH_CHECK(groups >= 1 && x.size(1) == w.size(1) * groups && w.size(0) % groups == 0, op,
                    ": x has ", x.size(1), " channels, w ", w.size(0), " x ", w.size(1), " with ",
                    groups, " groups");
    return {x.size(0),   x.size(1), x.size(2),   x.size(3),   w.size(0),   w.size(2),  w.size(3),
            stride[0],   stride[1], padding[0],  padding[1],  padding[2],  padding[3], dilation[0],
            dilation[1], groups,    x.stride(0), x.stride(1), x.stride(2), x.stride(3)};
}

// Results [n, o, oh, ow] in channels-last order.
struct Images : lgr::Convolution {
    using Convolution::Convolution;
    Tensor fresh(int32_t dtype) const {
        const lgr_conv_params &p = params();
        return lgr::fresh_channels_last(p.n, p.o, lgr_conv_out_h(&p), lgr_conv_out_w(&p), dtype,
                                        lgr::place_of(input()));
    }
};

lgr::Coded conv(const Tensor &x, const Tensor &x_scale, const Tensor &w, const Tensor &w_scale,
                const OptTensor &bias, const Ints &stride, const Ints &padding,
                const Ints &dilation, int64_t groups, const lgr::Output &output,
                const OptTensor &packed) {
    Images images("conv", params("conv", x, w, stride, padding, dilation, groups), x, w, true,
                  {&x_scale, &w_scale, &bias}, packed);
    return lgr::quantized("conv", images, output);
}

// The smallest call with these weights says what they must be packed for.
Tensor conv_pack(const Tensor &w, const Ints &stride, int64_t groups) {
    STD_TORCH_CHECK(w.scalar_type() == lgr::ScalarType::Char && (w.dim() == 2 || w.dim() == 4),
                    "conv_pack: w must be int8 codes with 2 or 4 dimensions");
    STD_TORCH_CHECK(stride.size() == 2 && groups >= 1, "conv_pack: stride needs 2 elements");
    const int64_t kh = w.dim() == 4 ? w.size(2) : 1, kw = w.dim() == 4 ? w.size(3) : 1,
                  c = w.size(1) * groups;
    const lgr_conv_params p = {1, c, kh, kw, w.size(0), kh,     kw, stride[0], stride[1], 0,
                               0, 0, 0,  1,  1,         groups, c,  1,         kw * c,    c};
    lgr::check(lgr_conv_check(&p), "conv_pack");
    return lgr::Packed::make(p, lgr_conv_pick(&p), w);
}

Tensor conv_codes(const Tensor &x, const Tensor &w, const OptTensor &bias, const Ints &stride,
                  const Ints &padding, const Ints &dilation, int64_t groups, int64_t shift,
                  int64_t bits, bool relu) {
    Images images("conv_codes", params("conv_codes", x, w, stride, padding, dilation, groups), x, w,
                  true);
    return lgr::integers("conv_codes", images, shift, bits, relu, bias);
}
} // namespace

LGR_OPERATORS({"conv(Tensor x, Tensor x_scale, Tensor w, Tensor w_scale, Tensor? bias, "
               "int[] stride, int[] padding, int[] dilation, SymInt groups, " LGR_OUTPUT
               ", Tensor? packed=None) -> " LGR_CODED,
               LGR_BOX(conv), lgr::Devices::CPU_AND_CUDA},
              {"conv_pack(Tensor w, int[] stride, int groups) -> Tensor", LGR_BOX(conv_pack)},
              {"conv_codes(Tensor x, Tensor w, Tensor? bias, int[] stride, int[] padding, "
               "int[] dilation, int groups, int shift, int bits, bool relu) -> Tensor",
               LGR_BOX(conv_codes), lgr::Devices::CPU_AND_CUDA});

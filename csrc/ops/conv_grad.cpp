// conv_grad.cpp - float gradients of a convolution from codes and masks: checks, outputs, schema.
#include "ops/conv_grad.h"

namespace {
using lgr::OptTensor;
using lgr::ScalarType;
using lgr::Tensor;
using Ints = std::vector<int64_t>;
enum { WANT_X = 1, WANT_W = 2, WANT_B = 4 };

// Where a flat mask of `bytes` bytes is, NULL without one.
const uint8_t *bits_of(const OptTensor &mask, int64_t bytes, const char *what) {
    if (!mask) return nullptr;
    STD_TORCH_CHECK(mask->scalar_type() == ScalarType::Byte && mask->is_contiguous() &&
                        mask->numel() == bytes,
                    "conv_grad: ", what, " must have ", bytes, " bytes, got ", mask->numel());
    return mask->const_data_ptr<uint8_t>();
}

std::tuple<Tensor, Tensor, Tensor> conv_grad(const Tensor &dy, const OptTensor &mask,
                                             const Tensor &x, const Tensor &x_scale,
                                             const Tensor &w, const Tensor &w_scale,
                                             const OptTensor &w_mask, Ints stride, Ints padding,
                                             Ints dilation, int64_t groups, int64_t want) {
    STD_TORCH_CHECK(x.dim() == 4 && w.dim() == 4 && dy.dim() == 4,
                    "conv_grad: dy, x and w must have 4 dimensions, got ", dy.dim(), ", ", x.dim(),
                    " and ", w.dim());
    STD_TORCH_CHECK(
        stride.size() == 2 && padding.size() == 4 && dilation.size() == 2,
        "conv_grad: stride and dilation need 2 elements, padding 4 (top, left, bottom, right)");
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Char && w.scalar_type() == ScalarType::Char &&
                        dy.scalar_type() == ScalarType::Float,
                    "conv_grad: x and w must be int8 codes, dy float32");
    STD_TORCH_CHECK(groups >= 1 && x.size(1) == w.size(1) * groups && w.size(0) % groups == 0,
                    "conv_grad: x has ", x.size(1), " channels, w ", w.size(0), " x ", w.size(1),
                    " with ", groups, " groups");
    const Tensor weight = lgr::dense(w);
    lgr_conv_grad g = {};
    lgr_conv_params &p = g.p;
    p = {x.size(0),   x.size(1), x.size(2),   x.size(3),   w.size(0),   w.size(2),  w.size(3),
         stride[0],   stride[1], padding[0],  padding[1],  padding[2],  padding[3], dilation[0],
         dilation[1], groups,    x.stride(0), x.stride(1), x.stride(2), x.stride(3)};
    lgr::check(lgr_conv_check(&p), "conv_grad");
    const int64_t oh = lgr_conv_out_h(&p), ow = lgr_conv_out_w(&p), count = weight.numel();
    STD_TORCH_CHECK(dy.size(0) == p.n && dy.size(1) == p.o && dy.size(2) == oh && dy.size(3) == ow,
                    "conv_grad: dy must have the shape of the result, ", p.n, " x ", p.o, " x ", oh,
                    " x ", ow);
    g.x = x.const_data_ptr<int8_t>();
    g.w = weight.const_data_ptr<int8_t>();
    g.ws_o = weight.stride(0), g.ws_c = weight.stride(1);
    g.ws_h = weight.stride(2), g.ws_w = weight.stride(3);
    g.dy = dy.const_data_ptr<float>();
    g.ds_n = dy.stride(0), g.ds_o = dy.stride(1), g.ds_h = dy.stride(2), g.ds_w = dy.stride(3);
    g.mask = bits_of(mask, p.n * oh * ow * lgr_mask_row_bytes(p.o), "mask");
    g.w_mask = bits_of(w_mask, lgr_mask_bytes(count), "w_mask");
    g.x_exp2 = lgr::exp2_of(x_scale, "conv_grad");
    g.w_exp2 = lgr::exp2_of(w_scale, "conv_grad");
    const int32_t f32 = aoti_torch_dtype_float32();
    const Tensor gx =
        want & WANT_X ? lgr::fresh_channels_last(p.n, p.c, p.h, p.w, f32) : lgr::absent(f32);
    const Tensor gw = want & WANT_W ? lgr::fresh_like(weight, f32) : lgr::absent(f32),
                 gb = want & WANT_B ? lgr::fresh_1d(p.o, f32) : lgr::absent(f32);
    if (want & WANT_X) g.gx = gx.mutable_data_ptr<float>();
    if (want & WANT_W) g.gw = gw.mutable_data_ptr<float>();
    if (want & WANT_B) g.gb = gb.mutable_data_ptr<float>();
    lgr::run_conv_grad(g, "conv_grad");
    return {gx, gw, gb};
}
} // namespace

LGR_OPERATORS({"conv_grad(Tensor dy, Tensor? mask, Tensor x, Tensor x_scale, Tensor w, "
               "Tensor w_scale, Tensor? w_mask, int[] stride, int[] padding, int[] dilation, "
               "SymInt groups, int want) -> (Tensor gx, Tensor gw, Tensor gb)",
               LGR_BOX(conv_grad)});

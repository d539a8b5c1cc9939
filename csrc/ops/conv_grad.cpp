// conv_grad.cpp - float gradients of a convolution from codes and masks: checks, outputs, schema.
#include "ops/conv_grad.h"

namespace {
using lgr::OptTensor;
using lgr::ScalarType;
using lgr::Tensor;
using Ints = std::vector<int64_t>;

// Where a flat mask of `bytes` bytes is, NULL without one.
const uint8_t *bits_of(const OptTensor &mask, int64_t bytes, const char *what) {
    if (!mask) return nullptr;
    STD_TORCH_CHECK(mask->scalar_type() == ScalarType::Byte && mask->is_contiguous() &&
                        mask->numel() == bytes,
                    "conv_grad: ", what, " must have ", bytes, " bytes, got ", mask->numel());
    return mask->const_data_ptr<uint8_t>();
}

std::tuple<Tensor, Tensor, Tensor>
conv_grad(const Tensor &dy, const OptTensor &mask, const Tensor &x, const Tensor &x_scale,
          const Tensor &w, const Tensor &w_scale, const OptTensor &w_mask, const Ints &stride,
          const Ints &padding, const Ints &dilation, int64_t groups, int64_t want) {
    const char *op = "conv_grad";
    STD_TORCH_CHECK(x.dim() >= 2 && x.dim() <= 4 && w.dim() == x.dim() && dy.dim() == x.dim(), op,
                    ": dy, x and w must have 2, 3 or 4 dimensions, all the same, got ", dy.dim(),
                    ", ", x.dim(), " and ", w.dim());
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Char && w.scalar_type() == ScalarType::Char &&
                        dy.scalar_type() == ScalarType::Float,
                    op, ": x and w must be int8 codes, dy float32");
    const Tensor weight = lgr::dense(w);
    lgr_conv_grad g = {};
    g.p = lgr::conv_params(op, lgr::Image::of(x), lgr::Image::of(weight),
                           lgr::Geometry::of(op, stride, padding, dilation, groups));
    lgr::check(lgr_conv_check(&g.p), op);
    const int64_t pixels = g.p.n * lgr_conv_out_h(&g.p) * lgr_conv_out_w(&g.p);
    g.x = x.const_data_ptr<int8_t>();
    g.w = weight.const_data_ptr<int8_t>();
    g.mask = bits_of(mask, pixels * lgr_mask_row_bytes(g.p.o), "mask");
    g.w_mask = bits_of(w_mask, lgr_mask_bytes(weight.numel()), "w_mask");
    g.x_exp2 = lgr::exp2_of(x_scale, op);
    g.w_exp2 = lgr::exp2_of(w_scale, op);
    return lgr::ConvGradients(op, g, dy, lgr::Image::of(weight), want,
                              [&] { return lgr::fresh_like(weight, aoti_torch_dtype_float32()); })
        .all();
}
} // namespace

LGR_OPERATORS({"conv_grad(Tensor dy, Tensor? mask, Tensor x, Tensor x_scale, Tensor w, "
               "Tensor w_scale, Tensor? w_mask, int[] stride, int[] padding, int[] dilation, "
               "SymInt groups, int want) -> (Tensor gx, Tensor gw, Tensor gb)",
               LGR_BOX(conv_grad), lgr::Devices::CPU});

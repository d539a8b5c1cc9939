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

// A tensor as (n, channels, rows, columns): images, sequences (n, channels, columns), rows (n, channels).
struct Axes {
    int64_t n, c, h, w, ns, cs, hs, ws;
};
Axes axes_of(const Tensor &t) {
    const int64_t dim = t.dim();
    Axes a = {t.size(0), t.size(1), 1, 1, t.stride(0), t.stride(1), 0, 0};
    if (dim == 4) a.h = t.size(2), a.hs = t.stride(2);
    if (dim > 2) a.w = t.size(dim - 1), a.ws = t.stride(dim - 1);
    return a;
}
// Like x in its dimensions, channels last in memory.
Tensor fresh_gradient(const Axes &x, int64_t dim) {
    const int64_t sizes[] = {x.n, x.c, dim == 4 ? x.h : x.w, x.w};
    const int64_t strides[] = {x.h * x.w * x.c, 1, dim == 4 ? x.w * x.c : x.c, x.c};
    return lgr::fresh_strided(sizes, strides, dim, x.n * x.c * x.h * x.w,
                              aoti_torch_dtype_float32());
}

std::tuple<Tensor, Tensor, Tensor> conv_grad(const Tensor &dy, const OptTensor &mask,
                                             const Tensor &x, const Tensor &x_scale,
                                             const Tensor &w, const Tensor &w_scale,
                                             const OptTensor &w_mask, Ints stride, Ints padding,
                                             Ints dilation, int64_t groups, int64_t want) {
    STD_TORCH_CHECK(x.dim() >= 2 && x.dim() <= 4 && w.dim() == x.dim() && dy.dim() == x.dim(),
                    "conv_grad: dy, x and w must have 2, 3 or 4 dimensions, all the same, got ",
                    dy.dim(), ", ", x.dim(), " and ", w.dim());
    STD_TORCH_CHECK(
        stride.size() == 2 && padding.size() == 4 && dilation.size() == 2,
        "conv_grad: stride and dilation need 2 elements, padding 4 (top, left, bottom, right)");
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Char && w.scalar_type() == ScalarType::Char &&
                        dy.scalar_type() == ScalarType::Float,
                    "conv_grad: x and w must be int8 codes, dy float32");
    const Tensor weight = lgr::dense(w);
    const Axes in = axes_of(x), wt = axes_of(weight), up = axes_of(dy);
    STD_TORCH_CHECK(groups >= 1 && in.c == wt.c * groups && wt.n % groups == 0, "conv_grad: x has ",
                    in.c, " channels, w ", wt.n, " x ", wt.c, " with ", groups, " groups");
    lgr_conv_grad g = {};
    lgr_conv_params &p = g.p;
    p = {in.n,        in.c,      in.h,       in.w,       wt.n,       wt.h,       wt.w,
         stride[0],   stride[1], padding[0], padding[1], padding[2], padding[3], dilation[0],
         dilation[1], groups,    in.ns,      in.cs,      in.hs,      in.ws};
    lgr::check(lgr_conv_check(&p), "conv_grad");
    const int64_t oh = lgr_conv_out_h(&p), ow = lgr_conv_out_w(&p), n = p.n, o = p.o;
    STD_TORCH_CHECK(up.n == n && up.c == o && up.h == oh && up.w == ow,
                    "conv_grad: dy must have the shape of the result, ", n, " x ", o, " x ", oh,
                    " x ", ow);
    g.x = x.const_data_ptr<int8_t>();
    g.w = weight.const_data_ptr<int8_t>();
    g.ws_o = wt.ns, g.ws_c = wt.cs, g.ws_h = wt.hs, g.ws_w = wt.ws;
    g.dy = dy.const_data_ptr<float>();
    g.ds_n = up.ns, g.ds_o = up.cs, g.ds_h = up.hs, g.ds_w = up.ws;
    g.mask = bits_of(mask, n * oh * ow * lgr_mask_row_bytes(o), "mask");
    g.w_mask = bits_of(w_mask, lgr_mask_bytes(weight.numel()), "w_mask");
    g.x_exp2 = lgr::exp2_of(x_scale, "conv_grad");
    g.w_exp2 = lgr::exp2_of(w_scale, "conv_grad");
    const int32_t f32 = aoti_torch_dtype_float32();
    const Tensor gx = want & WANT_X ? fresh_gradient(in, x.dim()) : lgr::absent(f32),
                 gw = want & WANT_W ? lgr::fresh_like(weight, f32) : lgr::absent(f32),
                 gb = want & WANT_B ? lgr::fresh_1d(o, f32) : lgr::absent(f32);
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

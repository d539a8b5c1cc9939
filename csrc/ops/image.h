// image.h - convolutions of images, and of signals as images of one row. No arithmetic here.
#pragma once
#include "ops/convolution.h"

namespace lgr {
// Stride, padding (top, left, bottom, right), dilation, groups.
struct Geometry {
    const int64_t *stride, *padding, *dilation;
    int64_t groups;
    static Geometry of(const char *op, const std::vector<int64_t> &stride,
                       const std::vector<int64_t> &padding, const std::vector<int64_t> &dilation,
                       int64_t groups) {
        STD_TORCH_CHECK(stride.size() == 2 && padding.size() == 4 && dilation.size() == 2, op,
                        ": stride and dilation need 2 elements, padding 4 (top, left, bottom, "
                        "right)");
        return {stride.data(), padding.data(), dilation.data(), groups};
    }
    // The same numbers in one list.
    static Geometry of(const char *op, const std::vector<int64_t> &all) {
        STD_TORCH_CHECK(all.size() == 9, op, ": geometry needs 9 numbers, got ", all.size());
        return {all.data(), all.data() + 2, all.data() + 6, all[8]};
    }
};

// Sizes and strides of [n, c, h, w]; of [n, c, w], a signal, as one row; of [n, c], as one pixel.
struct Image {
    int64_t n, c, h, w, step_n, step_c, step_h, step_w;
    static Image of(const Tensor &x) {
        const int64_t dim = x.dim();
        Image i = {x.size(0), x.size(1), 1, 1, x.stride(0), x.stride(1), 0, 0};
        if (dim == 4) i.h = x.size(2), i.step_h = x.stride(2);
        if (dim > 2) i.w = x.size(dim - 1), i.step_w = x.stride(dim - 1);
        return i;
    }
};

// w: [o, c / groups, kh, kw].
inline lgr_conv_params conv_params(const char *op, const Image &x, const Image &w,
                                   const Geometry &g) {
    STD_TORCH_CHECK(g.groups >= 1 && x.c == w.c * g.groups && w.n % g.groups == 0, op, ": x has ",
                    x.c, " channels, w ", w.n, " x ", w.c, " with ", g.groups, " groups");
    return {x.n,          x.c,          x.h,          x.w,           w.n,
            w.h,          w.w,          g.stride[0],  g.stride[1],   g.padding[0],
            g.padding[1], g.padding[2], g.padding[3], g.dilation[0], g.dilation[1],
            g.groups,     x.step_n,     x.step_c,     x.step_h,      x.step_w};
}
inline lgr_conv_params conv_params(const char *op, const Tensor &x, const Tensor &w,
                                   const Geometry &g) {
    STD_TORCH_CHECK(x.dim() == w.dim() && (x.dim() == 4 || x.dim() == 3), op,
                    ": x and w must have 4 dimensions, or 3, got ", x.dim(), " and ", w.dim());
    return conv_params(op, Image::of(x), Image::of(w), g);
}

// Channels last in memory, with as many dimensions as asked for.
inline Tensor fresh_image(int64_t n, int64_t c, int64_t h, int64_t w, int64_t dim, int32_t dtype,
                          Place where = on_cpu()) {
    const int64_t sizes[] = {n, c, dim == 4 ? h : w, w};
    const int64_t strides[] = {h * w * c, 1, dim == 4 ? w * c : c, c};
    return fresh_strided(sizes, strides, dim, n * c * h * w, dtype, where);
}

// A convolution whose results are images.
struct Images : Convolution {
    using Convolution::Convolution;
    Tensor fresh(int32_t dtype) const {
        const lgr_conv_params &p = params();
        return fresh_image(p.n, p.o, lgr_conv_out_h(&p), lgr_conv_out_w(&p), input().dim(), dtype,
                           place_of(input()));
    }
};
} // namespace lgr

// linear.cpp - integer matrix product: checks, outputs, schema. A linear layer is a 1x1 convolution over rows.
#include "ops/convolution.h"

namespace {
using lgr::OptTensor;
using lgr::Tensor;

// Results [..., o] from rows [..., k].
struct Rows : lgr::Convolution {
    Rows(const char *op, const Tensor &x, const Tensor &w,
         const lgr::ConvolutionScales &scales = {}, const OptTensor &ready = std::nullopt)
        : Convolution(op, params_of(op, x, w), x, w, false, scales, ready) {}
    Tensor fresh(int32_t dtype) const {
        std::vector<int64_t> sizes(input().sizes().begin(), input().sizes().end());
        sizes.back() = params().o;
        return lgr::fresh(sizes.data(), input().dim(), dtype, lgr::place_of(input()));
    }

  private:
    static lgr_conv_params params_of(const char *op, const Tensor &x, const Tensor &w) {
        STD_TORCH_CHECK(x.dim() >= 1 && w.dim() == 2 && x.size(x.dim() - 1) == w.size(1), op,
                        ": x must be [..., K] and w [O, K]");
        const int64_t k = w.size(1), rows = k ? x.numel() / k : 0;
        return {rows, k, 1, 1, w.size(0), 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, k, 1, k, k};
    }
};

lgr::Coded linear(const Tensor &x, const Tensor &x_scale, const Tensor &w, const Tensor &w_scale,
                  const OptTensor &bias, const lgr::Output &output, const OptTensor &packed) {
    Rows rows("linear", lgr::contiguous(x), w, {&x_scale, &w_scale, &bias}, packed);
    return lgr::quantized("linear", rows, output);
}

Tensor linear_codes(const Tensor &x, const Tensor &w, const OptTensor &bias, int64_t shift,
                    int64_t bits, bool relu, const OptTensor &packed) {
    Rows rows("linear_codes", lgr::contiguous(x), w, {}, packed);
    return lgr::integers("linear_codes", rows, shift, bits, relu, bias);
}
} // namespace

LGR_OPERATORS(
    {"linear(Tensor x, Tensor x_scale, Tensor w, Tensor w_scale, Tensor? bias, " LGR_OUTPUT
     ", Tensor? packed=None) -> " LGR_CODED,
     LGR_BOX(linear)},
    {"linear_codes(Tensor x, Tensor w, Tensor? bias, int shift, int bits, bool relu, "
     "Tensor? packed=None) -> Tensor",
     LGR_BOX(linear_codes)});

// linear.cpp - integer matrix product: checks, outputs, schema. A linear layer is a 1x1 convolution over rows.
#include "ops/convolution.h"

namespace {
using lgr::Tensor;
using OptTensor = std::optional<Tensor>;

lgr_conv_params params(const char *op, const Tensor &x, const Tensor &w) {
    STD_TORCH_CHECK(x.dim() >= 1 && w.dim() == 2 && x.size(x.dim() - 1) == w.size(1), op,
                    ": x must be [..., K] and w [O, K]");
    const int64_t k = w.size(1), rows = k ? x.numel() / k : 0;
    return {rows, k, 1, 1, w.size(0), 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, k, 1, k, k};
}
Tensor fresh_rows(const Tensor &x, int64_t o, int32_t dtype) {
    std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
    sizes.back() = o;
    return lgr::fresh(sizes.data(), x.dim(), dtype);
}

lgr::Coded linear(const Tensor &x, const Tensor &x_scale, const Tensor &w, const Tensor &w_scale,
                  const OptTensor &bias, const Tensor &running, const Tensor &is_init,
                  const Tensor &scale, const Tensor &n_batches, const Tensor &n_skipped,
                  const OptTensor &threshold, int64_t bits, double clamp, int64_t rounding,
                  int64_t flags, const OptTensor &packed) {
    const Tensor in = lgr::contiguous(x);
    const lgr_conv_params p = params("linear", in, w);
    lgr::Bilinear engine("linear", p, in, w, packed);
    const lgr::Quantized q = {
        "linear",
        fresh_rows(in, p.o, aoti_torch_dtype_float32()),
        fresh_rows(in, p.o, lgr::code_dtype(lgr::to_bits(bits, "linear"))),
        p.n,
        lgr::state("linear", running, is_init, scale, n_batches, n_skipped, threshold),
        lgr::exp2_of(x_scale, "linear"),
        lgr::exp2_of(w_scale, "linear"),
        false,
        threshold.has_value(),
        bits,
        rounding,
        flags,
        clamp};
    return q.run(engine, bias);
}

Tensor linear_codes(const Tensor &x, const Tensor &w, const OptTensor &bias, int64_t shift,
                    int64_t bits, bool relu) {
    const Tensor in = lgr::contiguous(x);
    const lgr_conv_params p = params("linear_codes", in, w);
    lgr::Bilinear engine("linear_codes", p, in, w);
    const Tensor codes = fresh_rows(in, p.o, lgr::codes_dtype(bits));
    lgr::run_codes("linear_codes", engine, bias, shift, bits, relu, false, codes);
    return codes;
}
} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(linger, m) {
    m.def(
        "linear(Tensor x, Tensor x_scale, Tensor w, Tensor w_scale, Tensor? bias, " LGR_STATE_SCHEMA
        ", int bits, float clamp, int rounding, int flags, Tensor? packed=None) -> "
        "(Tensor value, Tensor codes, Tensor scale_now, Tensor mask, Tensor slope)");
    m.def(
        "linear_codes(Tensor x, Tensor w, Tensor? bias, int shift, int bits, bool relu) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(linger, CPU, m) {
    m.impl("linear", TORCH_BOX(&linear));
    m.impl("linear_codes", TORCH_BOX(&linear_codes));
}

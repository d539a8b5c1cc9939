// glu.cpp - gated linear unit of int8 codes along the last axis, and its gradient. No arithmetic here.
#include "lgr/chip_functions_cuda.h"
#include "lgr/glu.h"
#include "ops/output.h"

namespace {
using lgr::Tensor;

// x [..., 2 * half] -> [..., half], as one row of all results.
struct Gate : lgr::NoBias {
    Gate(const char *name, const Tensor &given, const lgr::Exponent &e, int64_t c = 0,
         int64_t shifted = 0)
        : op(name), x(lgr::contiguous(given)), exp2(e), chip(lgr::to_chip(c, LGR_GLU_CHIPS, op)),
          left(lgr::to_range(shifted, 0, 31, op, "left")),
          sizes(x.sizes().begin(), x.sizes().end()) {
        STD_TORCH_CHECK(x.scalar_type() == lgr::ScalarType::Char, op, ": x must be int8 codes");
        STD_TORCH_CHECK(x.dim() > 0 && sizes.back() % 2 == 0, op,
                        ": the last axis must be even, got ", sizes.empty() ? 1 : sizes.back());
        half = sizes.back() /= 2;
    }
    lgr::Sums sums() const {
        return {1, x.numel() / 2, exp2.scale(), nullptr, lgr_glu_gate_exp2(chip)};
    }
    const int8_t *codes() const { return x.const_data_ptr<int8_t>(); }
    Tensor fresh(int32_t dtype) const {
        return lgr::fresh(sizes.data(), x.dim(), dtype, lgr::place_of(x));
    }
    void run(const lgr_epilogue &ep, const lgr_outputs &out, lgr::Extremes *extremes) {
        const int64_t total = x.numel() / 2, rows = half > 0 ? total / half : 0;
        const int32_t e = exp2.read(op);
        lgr::for_blocks(total, op, extremes, [&](int64_t at, int64_t n, int64_t *seen) {
            return lgr_glu(chip, codes(), e, rows, half, left, at, n, &ep, &out, seen);
        });
    }
    lgr_status cuda(const lgr_output_cuda &q, void *stream) const {
        return lgr_glu_cuda(chip, codes(), exp2.data(), exp2.given(), half, left, &q, stream);
    }
    const char *op;
    Tensor x;
    lgr::Exponent exp2;
    int32_t chip, left;
    std::vector<int64_t> sizes;
    int64_t half;
};

lgr::Coded glu(const Tensor &x, const Tensor &x_scale, int64_t chip, const lgr::Output &output) {
    return lgr::quantized("glu", Gate("glu", x, x_scale, chip), output);
}

Tensor glu_codes(const Tensor &x, int64_t exp2, int64_t chip, int64_t left, int64_t shift,
                 int64_t bits) {
    Gate gate("glu_codes", x, {exp2, "exp2"}, chip, left);
    return lgr::integers("glu_codes", gate, shift, bits);
}

Tensor glu_grad(const Tensor &grad, const Tensor &x, const Tensor &x_scale) {
    const int64_t half = Gate("glu_grad", x, x_scale).half; // checked
    return lgr::gradient_in_rows(
        "glu_grad", grad, x, x_scale, half, 2 * half,
        [=](auto g, auto codes, int32_t, int32_t exp2, int64_t rows, auto to) {
            return lgr_glu_grad(g, codes, exp2, rows, half, to);
        },
        [=](auto g, auto codes, int32_t, auto scale, int64_t rows, auto to, void *stream) {
            return lgr_glu_grad_cuda(g, codes, scale, rows, half, to, stream);
        });
}
} // namespace

LGR_OPERATORS({LGR_QUANTIZED("glu", "Tensor x, Tensor x_scale, int chip"), LGR_BOX(glu)},
              {"glu_codes(Tensor x, int exp2, int chip, int left, int shift, int bits) -> Tensor",
               LGR_BOX(glu_codes)},
              {"glu_grad(Tensor grad, Tensor x, Tensor x_scale) -> Tensor", LGR_BOX(glu_grad)});

// glu.cpp - gated linear unit of int8 codes along the last axis, and its gradient. No arithmetic here.
#include "lgr/chip_functions_cuda.h"
#include "lgr/glu.h"
#include "ops/output.h"

namespace {
using lgr::Tensor;

// x [..., 2 * half] -> [..., half], as one row of all results.
struct Gate : lgr::NoBias {
    Gate(const char *name, const Tensor &given, const lgr::Exponent &e, int64_t c, int64_t shifted)
        : op(name), x(lgr::contiguous(given)), exp2(e),
          chip(lgr::to_range(c, LGR_ARCS, LGR_VENUS, op, "chip")),
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
    Tensor fresh(int32_t dtype) const {
        return lgr::fresh(sizes.data(), x.dim(), dtype, lgr::place_of(x));
    }
    void run(const lgr_epilogue &ep, const lgr_outputs &out, lgr::Extremes *extremes) {
        const int8_t *from = x.const_data_ptr<int8_t>();
        const int64_t total = x.numel() / 2, rows = half > 0 ? total / half : 0;
        const int32_t e = exp2.read(op);
        lgr::for_blocks(total, op, extremes, [&](int64_t at, int64_t n, int64_t *seen) {
            return lgr_glu(chip, from, e, rows, half, left, at, n, &ep, &out, seen);
        });
    }
    lgr_status cuda(const lgr_output_cuda &q, void *stream) const {
        return lgr_glu_cuda(chip, x.const_data_ptr<int8_t>(), exp2.data(), exp2.given(), half, left,
                            &q, stream);
    }
    const char *op;
    Tensor x;
    lgr::Exponent exp2;
    int32_t chip, left;
    std::vector<int64_t> sizes;
    int64_t half;
};

lgr::Coded glu(const Tensor &x, const Tensor &x_scale, int64_t chip, const lgr::Output &output) {
    Gate gate("glu", x, x_scale, chip, 0);
    return lgr::quantized("glu", gate, output);
}

Tensor glu_codes(const Tensor &x, int64_t exp2, int64_t chip, int64_t left, int64_t shift,
                 int64_t bits) {
    Gate gate("glu_codes", x, {exp2, "exp2"}, chip, left);
    return lgr::integers("glu_codes", gate, shift, bits);
}

Tensor glu_grad(const Tensor &grad, const Tensor &x, const Tensor &x_scale) {
    const Gate gate("glu_grad", x, x_scale, LGR_ARCS, 0);
    LGR_ON_GPU(grad) {
        const Tensor g = lgr::contiguous(grad),
                     dx = lgr::fresh_like(gate.x, aoti_torch_dtype_float32());
        STD_TORCH_CHECK(g.scalar_type() == lgr::ScalarType::Float && g.numel() * 2 == x.numel(),
                        "glu_grad: grad must be float32 and have half the elements of x");
        lgr::same_device("glu_grad", g, {{"x", x}});
        const lgr::DeviceQueue queue(g);
        lgr::check(lgr_glu_grad_cuda(g.const_data_ptr<float>(), gate.x.const_data_ptr<int8_t>(),
                                     lgr::scale_at("glu_grad", g, "x_scale", x_scale),
                                     gate.half > 0 ? g.numel() / gate.half : 0, gate.half,
                                     dx.mutable_data_ptr<float>(), queue.stream()),
                   "glu_grad");
        return dx;
    }
    const int32_t exp2 = gate.exp2.read("glu_grad");
    return lgr::gradient_in_rows(
        "glu_grad", grad, x, gate.half, 2 * gate.half,
        [&](const float *from, const void *codes, int32_t, int64_t rows, float *to) {
            return lgr_glu_grad(from, static_cast<const int8_t *>(codes), exp2, rows, gate.half,
                                to);
        });
}
} // namespace

LGR_OPERATORS({"glu(Tensor x, Tensor x_scale, int chip, " LGR_OUTPUT ") -> " LGR_CODED,
               LGR_BOX(glu), lgr::Devices::CPU_AND_CUDA},
              {"glu_codes(Tensor x, int exp2, int chip, int left, int shift, int bits) -> Tensor",
               LGR_BOX(glu_codes), lgr::Devices::CPU_AND_CUDA},
              {"glu_grad(Tensor grad, Tensor x, Tensor x_scale) -> Tensor", LGR_BOX(glu_grad),
               lgr::Devices::CPU_AND_CUDA});

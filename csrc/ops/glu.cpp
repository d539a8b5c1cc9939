// glu.cpp - gated linear unit of int8 codes along the last axis, and its gradient. No arithmetic here.
#include "lgr/glu.h"
#include "ops/output.h"

namespace {
using lgr::Tensor;

// x [..., 2 * half] -> [..., half], as one row of all results.
struct Gate : lgr::NoBias {
    Gate(const char *name, const Tensor &given, const lgr::Exponent &e, int64_t c, int64_t shifted)
        : op(name), x(lgr::contiguous(given)), exp2(e), chip(lgr::to_i32(c, "chip")),
          left(lgr::to_i32(shifted, "left")), sizes(x.sizes().begin(), x.sizes().end()) {
        STD_TORCH_CHECK(x.scalar_type() == lgr::ScalarType::Char, op, ": x must be int8 codes");
        STD_TORCH_CHECK(chip >= LGR_ARCS && chip <= LGR_VENUS, op, ": chip must be in [0, 2]");
        STD_TORCH_CHECK(left >= 0 && left <= 31, op, ": left must be in [0, 31]");
        STD_TORCH_CHECK(x.dim() > 0 && sizes.back() % 2 == 0, op,
                        ": the last axis must be even, got ", x.dim() > 0 ? sizes.back() : 0);
        half = sizes.back() /= 2;
    }
    lgr::Sums sums() const {
        lgr::Sums s = {1, x.numel() / 2, exp2.scale()};
        s.exp2 = lgr_glu_gate_exp2(chip);
        return s;
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
    const Tensor g = lgr::contiguous(grad);
    STD_TORCH_CHECK(g.scalar_type() == lgr::ScalarType::Float && g.numel() * 2 == x.numel(),
                    "glu_grad: grad must be float32 and have half the elements of x");
    const Tensor dx = lgr::fresh_like(gate.x, aoti_torch_dtype_float32());
    if (g.numel() == 0) return dx;
    const float *from = g.const_data_ptr<float>();
    const int8_t *codes = gate.x.const_data_ptr<int8_t>();
    float *to = dx.mutable_data_ptr<float>();
    const int64_t half = gate.half, e = gate.exp2.read("glu_grad");
    lgr::for_range(g.numel() / half, lgr::kBlock / half + 1, "glu_grad", [=](int64_t b, int64_t n) {
        return lgr_glu_grad(from + b * half, codes + b * 2 * half, static_cast<int32_t>(e), n - b,
                            half, to + b * 2 * half);
    });
    return dx;
}
} // namespace

LGR_OPERATORS({"glu(Tensor x, Tensor x_scale, int chip, " LGR_OUTPUT ") -> " LGR_CODED,
               LGR_BOX(glu)},
              {"glu_codes(Tensor x, int exp2, int chip, int left, int shift, int bits) -> Tensor",
               LGR_BOX(glu_codes)},
              {"glu_grad(Tensor grad, Tensor x, Tensor x_scale) -> Tensor", LGR_BOX(glu_grad)});

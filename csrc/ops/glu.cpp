// glu.cpp - gated linear unit of int8 codes along the last axis, and its gradient. No arithmetic here.
#include "lgr/glu.h"
#include "ops/convolution.h"

namespace {
using lgr::Tensor;
using OptTensor = std::optional<Tensor>;

// The engine of lgr::Quantized and lgr::run_codes; one row of all results.
class Gate {
  public:
    struct Size {
        int64_t o;
    };
    Gate(const char *op, const Tensor &x, int32_t exp2, int64_t chip, int64_t left)
        : op_(op), x_(lgr::contiguous(x)), exp2_(exp2), chip_(lgr::to_i32(chip, "chip")),
          left_(lgr::to_i32(left, "left")) {
        STD_TORCH_CHECK(x_.scalar_type() == lgr::ScalarType::Char, op, ": x must be int8 codes");
        STD_TORCH_CHECK(chip >= LGR_ARCS && chip <= LGR_VENUS, op, ": chip must be in [0, 2]");
        STD_TORCH_CHECK(left >= 0 && left <= 31, op, ": left must be in [0, 31]");
        const int64_t n = x_.dim() > 0 ? x_.sizes()[static_cast<size_t>(x_.dim() - 1)] : 1;
        STD_TORCH_CHECK(n % 2 == 0, op, ": the last axis must be even, got ", n);
        half_ = n / 2;
        rows_ = half_ > 0 ? x_.numel() / n : 0;
    }
    void bias(const int32_t *) {}
    Size params() const { return {rows_ * half_}; }
    Tensor fresh(int32_t dtype) const {
        std::vector<int64_t> sizes(x_.sizes().begin(), x_.sizes().end());
        sizes.back() = half_;
        return lgr::fresh(sizes.data(), x_.dim(), dtype);
    }
    void run(const lgr_epilogue &ep, const lgr_outputs &out, lgr::Extremes *extremes) {
        const int8_t *x = x_.const_data_ptr<int8_t>();
        const int64_t total = rows_ * half_;
        if (out.mask && total > 0) out.mask[lgr_mask_row_bytes(total) - 1] = 0; // spare bits
        lgr::for_blocks(total, op_, [=, &ep](int64_t at, int64_t n) {
            int64_t seen[2] = {0, 0};
            const lgr_status s =
                lgr_glu(chip_, x, exp2_, rows_, half_, left_, at, n, &ep, &out, seen);
            if (extremes) extremes->merge(seen);
            return s;
        });
    }

  private:
    const char *op_;
    Tensor x_;
    int32_t exp2_, chip_, left_;
    int64_t half_ = 0, rows_ = 0;
};

lgr::Coded glu(const Tensor &x, const Tensor &x_scale, int64_t chip, const Tensor &running,
               const Tensor &is_init, const Tensor &scale, const Tensor &n_batches,
               const Tensor &n_skipped, const OptTensor &threshold, int64_t bits, double clamp,
               int64_t rounding, int64_t flags) {
    const int32_t exp2 = lgr::exp2_of(x_scale, "glu");
    Gate gate("glu", x, exp2 == LGR_EXP2_NAN ? 0 : exp2, chip, 0);
    const lgr::Quantized q = {
        "glu",
        gate.fresh(aoti_torch_dtype_float32()),
        gate.fresh(lgr::code_dtype(lgr::to_bits(bits, "glu"))),
        1,
        lgr::state("glu", running, is_init, scale, n_batches, n_skipped, threshold),
        exp2,
        lgr_glu_gate_exp2(lgr::to_i32(chip, "chip")),
        false,
        threshold.has_value(),
        bits,
        rounding,
        flags,
        clamp};
    return q.run(gate, std::nullopt);
}

Tensor glu_codes(const Tensor &x, int64_t exp2, int64_t chip, int64_t left, int64_t shift,
                 int64_t bits) {
    Gate gate("glu_codes", x, lgr::to_i32(exp2, "exp2"), chip, left);
    const Tensor codes = gate.fresh(lgr::codes_dtype(bits));
    lgr::run_codes("glu_codes", gate, std::nullopt, shift, bits, false, false, codes);
    return codes;
}

Tensor glu_grad(const Tensor &grad, const Tensor &x, const Tensor &x_scale) {
    const Tensor g = lgr::contiguous(grad), in = lgr::contiguous(x);
    STD_TORCH_CHECK(g.scalar_type() == lgr::ScalarType::Float && g.numel() * 2 == in.numel() &&
                        in.dim() > 0 && in.scalar_type() == lgr::ScalarType::Char,
                    "glu_grad: grad must be float32 and have half the elements of the int8 x");
    const int64_t last = in.sizes()[static_cast<size_t>(in.dim() - 1)], half = last / 2;
    STD_TORCH_CHECK(last % 2 == 0, "glu_grad: the last axis must be even, got ", last);
    const Tensor dx = lgr::fresh_like(in, aoti_torch_dtype_float32());
    const int32_t exp2 = lgr::exp2_of(x_scale, "glu_grad");
    if (g.numel() == 0) return dx;
    const float *from = g.const_data_ptr<float>();
    const int8_t *codes = in.const_data_ptr<int8_t>();
    float *to = dx.mutable_data_ptr<float>();
    lgr::for_range(g.numel() / half, lgr::kBlock / half + 1, "glu_grad", [=](int64_t b, int64_t e) {
        return lgr_glu_grad(from + b * half, codes + b * 2 * half, exp2, e - b, half,
                            to + b * 2 * half);
    });
    return dx;
}
} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(linger, m) {
    m.def("glu(Tensor x, Tensor x_scale, int chip, " LGR_STATE_SCHEMA
          ", int bits, float clamp, int rounding, int flags) -> "
          "(Tensor value, Tensor codes, Tensor scale_now, Tensor mask, Tensor slope)");
    m.def("glu_codes(Tensor x, int exp2, int chip, int left, int shift, int bits) -> Tensor");
    m.def("glu_grad(Tensor grad, Tensor x, Tensor x_scale) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(linger, CPU, m) {
    m.impl("glu", TORCH_BOX(&glu));
    m.impl("glu_codes", TORCH_BOX(&glu_codes));
    m.impl("glu_grad", TORCH_BOX(&glu_grad));
}

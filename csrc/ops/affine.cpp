// affine.cpp - a quantized tensor times one number plus another. No arithmetic here.
#include "lgr/affine.h"
#include "ops/convolution.h"

namespace {
using lgr::Tensor;

// The engine behind lgr::Quantized: one row of x.numel() sums.
class Affine {
  public:
    struct Params {
        int64_t o;
    };
    Affine(const Tensor &x, int32_t w, int32_t b) : x_(x), p_{x.numel()}, w_(w), b_(b) {}
    const Params &params() const { return p_; }
    void bias(const int32_t *) {}
    void run(const lgr_epilogue &ep, const lgr_outputs &out, lgr::Extremes *extremes) {
        const int8_t *x = x_.const_data_ptr<int8_t>();
        const int64_t total = p_.o;
        const int32_t w = w_, b = b_;
        lgr::for_blocks(total, "affine", [=](int64_t at, int64_t n) {
            int64_t seen[2] = {0, 0};
            const lgr_status s = lgr_affine(x + at, n, at, total, w, b, &ep, &out, seen);
            if (extremes) extremes->merge(seen);
            return s;
        });
    }

  private:
    Tensor x_;
    Params p_;
    int32_t w_, b_;
};

lgr::Coded affine(const Tensor &x, const Tensor &x_scale, int64_t w, int64_t w_exp2,
                  const Tensor &b, const Tensor &running, const Tensor &is_init,
                  const Tensor &scale, const Tensor &n_batches, const Tensor &n_skipped,
                  const std::optional<Tensor> &threshold, int64_t bits, double clamp,
                  int64_t rounding, int64_t flags) {
    const lgr_stats st =
        lgr::state("affine", running, is_init, scale, n_batches, n_skipped, threshold);
    STD_TORCH_CHECK(x.scalar_type() == lgr::ScalarType::Char, "affine: x must be int8 codes");
    STD_TORCH_CHECK(b.scalar_type() == lgr::ScalarType::Float && b.numel() == 1 && b.is_cpu(),
                    "affine: b must be one float32 on the CPU");
    const Tensor in = lgr::dense(x);
    const float addend = *b.const_data_ptr<float>();
    int32_t ex = lgr::exp2_of(x_scale, "affine");
    if (addend != addend) ex = LGR_EXP2_NAN;
    const int32_t ew = lgr::to_i32(w_exp2, "w_exp2"), code = lgr::to_i32(w, "w");
    const int32_t bias = ex == LGR_EXP2_NAN ? 0 : lgr_affine_bias(addend, ex + ew);
    Affine engine(in, code, bias);
    const lgr::Quantized run = {"affine",
                                lgr::fresh_like(in, aoti_torch_dtype_float32()),
                                lgr::fresh_like(in, lgr::code_dtype(lgr::to_bits(bits, "affine"))),
                                1,
                                st,
                                ex,
                                ew,
                                false,
                                threshold.has_value(),
                                bits,
                                rounding,
                                flags,
                                clamp};
    return run.run(engine, std::nullopt);
}

Tensor affine_bias(const Tensor &b, const Tensor &x_scale, int64_t w_exp2) {
    STD_TORCH_CHECK(b.scalar_type() == lgr::ScalarType::Float && b.numel() == 1,
                    "affine_bias: b must be one float32");
    const int32_t ex = lgr::exp2_of(x_scale, "affine_bias"), ew = lgr::to_i32(w_exp2, "w_exp2");
    const Tensor code = lgr::fresh_like(b, aoti_torch_dtype_int32());
    *code.mutable_data_ptr<int32_t>() =
        ex == LGR_EXP2_NAN ? 0 : lgr_affine_bias(*b.const_data_ptr<float>(), ex + ew);
    return code;
}
} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(linger, m) {
    m.def("affine(Tensor x, Tensor x_scale, int w, int w_exp2, Tensor b, " LGR_STATE_SCHEMA
          ", int bits, float clamp, int rounding, int flags) -> "
          "(Tensor value, Tensor codes, Tensor scale_now, Tensor mask, Tensor slope)");
    m.def("affine_bias(Tensor b, Tensor x_scale, int w_exp2) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(linger, CPU, m) {
    m.impl("affine", TORCH_BOX(&affine));
    m.impl("affine_bias", TORCH_BOX(&affine_bias));
}

// affine.cpp - a quantized tensor times one number plus another. No arithmetic here.
#include "lgr/affine.h"
#include "lgr/affine_cuda.h"
#include "ops/output.h"

namespace {
using lgr::Tensor;

// The addend's code at the exponent of x * w; 0 behind a NaN.
int32_t addend_code(const char *op, const Tensor &b, const Tensor &x_scale, int32_t w_exp2) {
    STD_TORCH_CHECK(b.scalar_type() == lgr::ScalarType::Float && b.numel() == 1 && b.is_cpu(), op,
                    ": b must be one float32 on the CPU");
    const int32_t ex = lgr::exp2_of(x_scale, op);
    return ex == LGR_EXP2_NAN ? 0 : lgr_affine_bias(*b.const_data_ptr<float>(), ex + w_exp2);
}

// One row of all sums x * w + b.
class Affine : public lgr::NoBias {
  public:
    Affine(const Tensor &x, const Tensor &x_scale, int64_t w, int64_t w_exp2, const Tensor &b)
        : x_(lgr::dense(x)), x_scale_(x_scale), b_(b), w_(lgr::to_i32(w, "w")),
          w_exp2_(lgr::to_i32(w_exp2, "w_exp2")) {
        STD_TORCH_CHECK(x.scalar_type() == lgr::ScalarType::Char, "affine: x must be int8 codes");
    }
    lgr::Sums sums() const {
        lgr::Sums s = {1, x_.numel(), &x_scale_};
        s.exp2 = w_exp2_;
        s.number = &b_;
        return s;
    }
    Tensor fresh(int32_t dtype) const { return lgr::fresh_like(x_, dtype); }
    void run(const lgr_epilogue &ep, const lgr_outputs &out, lgr::Extremes *extremes) {
        const int32_t b = addend_code("affine", b_, x_scale_, w_exp2_);
        const int8_t *x = x_.const_data_ptr<int8_t>();
        const int64_t total = x_.numel();
        lgr::for_blocks(total, "affine", extremes, [&](int64_t at, int64_t n, int64_t *seen) {
            return lgr_affine(x + at, n, at, total, w_, b, &ep, &out, seen);
        });
    }
    lgr_status cuda(const lgr_output_cuda &q, void *stream) const {
        return lgr_affine_cuda(x_.const_data_ptr<int8_t>(), w_, &q, stream);
    }

  private:
    Tensor x_;
    const Tensor &x_scale_, &b_;
    int32_t w_, w_exp2_;
};

lgr::Coded affine(const Tensor &x, const Tensor &x_scale, int64_t w, int64_t w_exp2,
                  const Tensor &b, const lgr::Output &output) {
    STD_TORCH_CHECK(b.scalar_type() == lgr::ScalarType::Float && b.numel() == 1,
                    "affine: b must be one float32");
    return lgr::quantized("affine", Affine(x, x_scale, w, w_exp2, b), output);
}

Tensor affine_bias(const Tensor &b, const Tensor &x_scale, int64_t w_exp2) {
    LGR_ON_GPU(b) {
        STD_TORCH_CHECK(b.scalar_type() == lgr::ScalarType::Float && lgr::is_dense(b),
                        "affine_bias: b must be float32");
        const Tensor code = lgr::fresh_like(b, aoti_torch_dtype_int32());
        const lgr::DeviceQueue queue(b);
        lgr::check(lgr_affine_bias_cuda(b.const_data_ptr<float>(), b.numel(),
                                        lgr::scale_at("affine_bias", b, "x_scale", x_scale),
                                        lgr::to_i32(w_exp2, "w_exp2"),
                                        code.mutable_data_ptr<int32_t>(), queue.stream()),
                   "affine_bias");
        return code;
    }
    const int32_t of = addend_code("affine_bias", b, x_scale, lgr::to_i32(w_exp2, "w_exp2"));
    const Tensor code = lgr::fresh_like(b, aoti_torch_dtype_int32());
    *code.mutable_data_ptr<int32_t>() = of;
    return code;
}
} // namespace

LGR_OPERATORS({LGR_QUANTIZED("affine", "Tensor x, Tensor x_scale, int w, int w_exp2, Tensor b"),
               LGR_BOX(affine)},
              {"affine_bias(Tensor b, Tensor x_scale, int w_exp2) -> Tensor",
               LGR_BOX(affine_bias)});

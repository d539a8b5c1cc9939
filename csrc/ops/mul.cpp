// mul.cpp - element-wise product of two quantized tensors of one shape. No arithmetic here.
#include "lgr/mul.h"
#include "lgr/mul_cuda.h"
#include "ops/output.h"
#include "ops/pair.h"

namespace {
using lgr::Tensor;

// One row of all products.
class Products : public lgr::NoBias {
  public:
    Products(const char *op, const Tensor &x, const Tensor &y, const Tensor *x_scale = nullptr,
             const Tensor *y_scale = nullptr)
        : op_(op), in_(x, y, op), x_scale_(x_scale), y_scale_(y_scale) {}
    lgr::Sums sums() const {
        lgr::Sums s = {1, in_.x.numel(), x_scale_, y_scale_};
        s.operands = "x and y";
        return s;
    }
    Tensor fresh(int32_t dtype) const { return lgr::fresh_like(in_.x, dtype); }
    void run(const lgr_epilogue &ep, const lgr_outputs &out, lgr::Extremes *extremes) {
        const int64_t total = in_.x.numel();
        lgr::for_blocks(total, op_, extremes, [&](int64_t at, int64_t n, int64_t *seen) {
            return lgr_mul(in_.at_x(at), in_.at_y(at), in_.bytes, n, at, total, &ep, &out, seen);
        });
    }
    lgr_status cuda(const lgr_output_cuda &q, void *stream) const {
        return lgr_mul_cuda(in_.at_x(0), in_.at_y(0), in_.bytes, &q, stream);
    }

  private:
    const char *op_;
    lgr::Pair in_;
    const Tensor *x_scale_, *y_scale_;
};

lgr::Coded mul(const Tensor &x, const Tensor &x_scale, const Tensor &y, const Tensor &y_scale,
               const lgr::Output &output) {
    return lgr::quantized("mul", Products("mul", x, y, &x_scale, &y_scale), output);
}

Tensor mul_codes(const Tensor &x, const Tensor &y, int64_t shift, int64_t bits) {
    return lgr::integers("mul_codes", Products("mul_codes", x, y), shift, bits);
}
} // namespace

LGR_OPERATORS({LGR_QUANTIZED("mul", LGR_TWO_CODED), LGR_BOX(mul)},
              {"mul_codes(Tensor x, Tensor y, int shift, int bits) -> Tensor", LGR_BOX(mul_codes)});

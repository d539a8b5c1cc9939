// softmax.cpp - softmax and log-softmax of quantized tensors along the last axis, and their gradients. No arithmetic here.
#include "lgr/softmax.h"
#include "lgr/softmax_cuda.h"
#include "ops/output.h"

namespace {
using lgr::Tensor;

constexpr int32_t kResult = 15; // exponent of the chips' results

// Rows of the last axis.
class Softmax : public lgr::NoBias {
  public:
    Softmax(const char *op, const Tensor &x, const lgr::Exponent &exp2, int64_t chip, bool log)
        : op_(op), x_(lgr::contiguous(x)), exp2_(exp2), bytes_(lgr::code_bytes(x, op)),
          chip_(lgr::to_chip(chip, LGR_SOFTMAX_CHIPS, op)), log_(log) {
        STD_TORCH_CHECK(x_.dim() > 0, op, ": x must have a dimension");
        n_ = x_.size(x_.dim() - 1);
        rows_ = n_ > 0 ? x_.numel() / n_ : 0;
    }
    lgr::Sums sums() const {
        lgr::Sums s = {rows_, n_};
        s.exp2 = kResult;
        s.watched = exp2_.scale();
        return s;
    }
    Tensor fresh(int32_t dtype) const { return lgr::fresh_like(x_, dtype); }
    void run(const lgr_epilogue &ep, const lgr_outputs &out, lgr::Extremes *extremes) {
        if (rows_ == 0) return;
        const char *x = static_cast<const char *>(x_.const_data_ptr());
        const int32_t exp2 = exp2_.read(op_);
        lgr::for_rows(rows_, n_, lgr_softmax_scratch(n_) * 4, op_, extremes,
                      [&](int64_t from, int64_t to, int32_t *scratch, int64_t *seen) {
                          return lgr_softmax_codes(chip_, log_, x + from * n_ * bytes_, bytes_,
                                                   exp2, from, to - from, n_, scratch, &ep, &out,
                                                   seen);
                      });
    }
    lgr_status cuda(const lgr_output_cuda &q, void *stream) const {
        return lgr_softmax_codes_cuda(chip_, log_, x_.const_data_ptr(), bytes_, exp2_.data(),
                                      exp2_.given(), rows_, &q, stream);
    }

  private:
    const char *op_;
    Tensor x_;
    lgr::Exponent exp2_;
    int32_t bytes_, chip_;
    int64_t n_ = 0, rows_ = 0;
    bool log_;
};

lgr::Coded softmax(const Tensor &x, const Tensor &x_scale, int64_t chip, bool log,
                   const lgr::Output &output) {
    return lgr::quantized("softmax", Softmax("softmax", x, x_scale, chip, log), output);
}

Tensor softmax_codes(const Tensor &x, int64_t exp2, int64_t chip, bool log, int64_t shift,
                     int64_t bits) {
    Softmax rows("softmax_codes", x, {exp2, "exp2"}, chip, log);
    return lgr::integers("softmax_codes", rows, shift, bits);
}

// codes: the computed result of softmax, the operand of log-softmax.
Tensor softmax_grad(const Tensor &grad, const Tensor &codes, const Tensor &scale, bool log) {
    const char *op = "softmax_grad";
    STD_TORCH_CHECK(lgr::same_sizes(grad, codes) && grad.dim() > 0, op,
                    ": grad must have the shape of the codes");
    const int64_t n = grad.size(grad.dim() - 1);
    const auto run = log ? lgr_log_softmax_grad : lgr_softmax_grad;
    return lgr::gradient_in_rows(
        op, grad, codes, scale, n, n,
        [=](auto g, auto q, int32_t bytes, int32_t exp2, int64_t rows, auto to) {
            return run(g, q, bytes, exp2, rows, n, to);
        },
        [=](auto g, auto q, int32_t bytes, auto at, int64_t rows, auto to, void *stream) {
            return lgr_softmax_grad_cuda(log, g, q, bytes, at, rows, n, to, stream);
        });
}
} // namespace

LGR_OPERATORS(
    {LGR_QUANTIZED("softmax", "Tensor x, Tensor x_scale, int chip, bool log"), LGR_BOX(softmax)},
    {"softmax_codes(Tensor x, int exp2, int chip, bool log, int shift, int bits) -> Tensor",
     LGR_BOX(softmax_codes)},
    {"softmax_grad(Tensor grad, Tensor codes, Tensor scale, bool log) -> Tensor",
     LGR_BOX(softmax_grad)});

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
          chip_(lgr::to_range(chip, LGR_ARCS, LGR_VENUSA, op, "chip")), log_(log) {
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
    Softmax rows("softmax", x, x_scale, chip, log);
    return lgr::quantized("softmax", rows, output);
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
    LGR_ON_GPU(grad) {
        const Tensor g = lgr::contiguous(grad), in = lgr::contiguous(codes),
                     dx = lgr::fresh_like(g, aoti_torch_dtype_float32());
        STD_TORCH_CHECK(g.scalar_type() == lgr::ScalarType::Float, op, ": grad must be float32");
        lgr::same_device(op, g, {{"codes", in}});
        const lgr::DeviceQueue queue(g);
        lgr::check(lgr_softmax_grad_cuda(
                       log, g.const_data_ptr<float>(), in.const_data_ptr(), lgr::code_bytes(in, op),
                       lgr::scale_at(op, g, "scale", scale), n > 0 ? g.numel() / n : 0, n,
                       dx.mutable_data_ptr<float>(), queue.stream()),
                   op);
        return dx;
    }
    const int32_t exp2 = lgr::exp2_of(scale, op);
    const auto run = log ? lgr_log_softmax_grad : lgr_softmax_grad;
    return lgr::gradient_in_rows(op, grad, codes, n, n,
                                 [=](const float *from, const char *q, int32_t bytes, int64_t rows,
                                     float *to) { return run(from, q, bytes, exp2, rows, n, to); });
}
} // namespace

LGR_OPERATORS(
    {"softmax(Tensor x, Tensor x_scale, int chip, bool log, " LGR_OUTPUT ") -> " LGR_CODED,
     LGR_BOX(softmax), lgr::Devices::CPU_AND_CUDA},
    {"softmax_codes(Tensor x, int exp2, int chip, bool log, int shift, int bits) -> Tensor",
     LGR_BOX(softmax_codes), lgr::Devices::CPU_AND_CUDA},
    {"softmax_grad(Tensor grad, Tensor codes, Tensor scale, bool log) -> Tensor",
     LGR_BOX(softmax_grad), lgr::Devices::CPU_AND_CUDA});

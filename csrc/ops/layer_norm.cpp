// layer_norm.cpp - normalisation of rows of int8 codes with its output quantizer. No arithmetic here.
#include "lgr/layer_norm.h"
#include "lgr/layer_norm_cuda.h"
#include "ops/output.h"
#include <algorithm>

namespace {
using lgr::OptTensor;
using lgr::Tensor;

std::vector<int32_t> widened(const char *op, const Tensor &gamma, int64_t n) {
    const Tensor in = lgr::contiguous(gamma);
    STD_TORCH_CHECK(in.numel() == n, op, ": gamma must have ", n, " elements, got ", in.numel());
    std::vector<int32_t> out(static_cast<size_t>(n));
    if (lgr::code_bytes(in, op) == 1) std::copy_n(in.const_data_ptr<int8_t>(), n, out.begin());
    else std::copy_n(in.const_data_ptr<int32_t>(), n, out.begin());
    return out;
}

// Rows of gamma's length; beta is the bias.
class Norm {
  public:
    // x's exponent is eps_exp2 - eps_shift.
    Norm(const char *op, const Tensor &x, const lgr::Exponent &exp2, int64_t eps_shift,
         const Tensor &gamma, const Tensor *gamma_scale, const OptTensor *beta, int64_t bits)
        : op_(op), x_(lgr::contiguous(x)), exp2_(exp2), gamma_scale_(gamma_scale), beta_(beta),
          gamma_codes_(lgr::contiguous(gamma)), eps_shift_(lgr::to_i32(eps_shift, "eps_shift")),
          p_() {
        STD_TORCH_CHECK(x_.scalar_type() == lgr::ScalarType::Char, op, ": x must be int8 codes");
        p_.n = gamma.numel();
        STD_TORCH_CHECK(p_.n > 0 && x_.numel() % p_.n == 0, op, ": x must hold rows of ", p_.n);
        p_.bits = lgr::to_i32(bits, "norm_bits");
        lgr::same_device(op, x_, {{"gamma", gamma}});
        LGR_ON_GPU(x_) return;
        gamma_ = widened(op, gamma, p_.n);
        zeros_.resize(gamma_.size());
        p_.gamma = gamma_.data();
        p_.beta = zeros_.data();
    }
    Norm(const Norm &) = delete;
    Norm &operator=(const Norm &) = delete;
    lgr::Sums sums() const {
        lgr::Sums s = {x_.numel() / p_.n, p_.n, gamma_scale_};
        s.exp2 = LGR_NORM_EXP2;
        s.watched = exp2_.scale();
        s.bias = beta_;
        return s;
    }
    void bias(const int32_t *beta) { p_.beta = beta; }
    Tensor fresh(int32_t dtype) const { return lgr::fresh_like(x_, dtype); }
    void run(const lgr_epilogue &ep, const lgr_outputs &out, lgr::Extremes *extremes) {
        p_.eps = lgr_layer_norm_eps(exp2_.read(op_) + eps_shift_, p_.n);
        const int8_t *x = x_.const_data_ptr<int8_t>();
        lgr::for_rows(x_.numel() / p_.n, p_.n, p_.n * 4, op_, extremes,
                      [&](int64_t from, int64_t to, int32_t *scratch, int64_t *seen) {
                          return lgr_layer_norm(x, from, to, &p_, &ep, &out, scratch, seen);
                      });
    }
    lgr_status cuda(const lgr_output_cuda &q, void *stream) const {
        lgr_layer_norm_cuda_job job = {};
        job.x = x_.const_data_ptr<int8_t>();
        job.rows = x_.numel() / p_.n;
        job.gamma = gamma_codes_.const_data_ptr();
        job.gamma_bytes = lgr::code_bytes(gamma_codes_, op_);
        job.bits = p_.bits;
        job.x_scale = exp2_.data();
        job.eps_exp2 = exp2_.given() + eps_shift_;
        job.q = q;
        return lgr_layer_norm_cuda(&job, stream);
    }

  private:
    const char *op_;
    Tensor x_;
    lgr::Exponent exp2_;
    const Tensor *gamma_scale_;
    const OptTensor *beta_;
    Tensor gamma_codes_;
    std::vector<int32_t> gamma_, zeros_;
    int32_t eps_shift_;
    lgr_layer_norm_params p_;
};

lgr::Coded layer_norm(const Tensor &x, const Tensor &x_scale, const Tensor &gamma,
                      const Tensor &gamma_scale, const OptTensor &beta, const lgr::State &state,
                      int64_t eps_shift, int64_t norm_bits, const lgr::FormatArguments &format) {
    Norm norm("layer_norm", x, x_scale, eps_shift, gamma, &gamma_scale, &beta, norm_bits);
    return lgr::quantized("layer_norm", norm, {state, format});
}

Tensor layer_norm_codes(const Tensor &x, const Tensor &gamma, const Tensor &beta, int64_t eps_exp2,
                        int64_t norm_bits, int64_t shift, int64_t bits) {
    Norm norm("layer_norm_codes", x, {eps_exp2, "eps_exp2"}, 0, gamma, nullptr, nullptr, norm_bits);
    return lgr::integers("layer_norm_codes", norm, shift, bits, false, beta);
}
} // namespace

LGR_OPERATORS({"layer_norm(Tensor x, Tensor x_scale, Tensor gamma, Tensor gamma_scale, "
               "Tensor? beta, " LGR_STATE ", int eps_shift, int norm_bits, " LGR_FORMAT
               ") -> " LGR_CODED,
               LGR_BOX(layer_norm)},
              {"layer_norm_codes(Tensor x, Tensor gamma, Tensor beta, int eps_exp2, int norm_bits, "
               "int shift, int bits) -> Tensor",
               LGR_BOX(layer_norm_codes)});

// layer_norm.cpp - normalisation of rows of int8 codes with its output quantizer. No arithmetic here.
#include "lgr/layer_norm.h"
#include "ops/convolution.h"
#include <algorithm>

namespace {
using lgr::Tensor;
using OptTensor = std::optional<Tensor>;

std::vector<int32_t> widened(const char *op, const Tensor &gamma, int64_t n) {
    const Tensor in = lgr::contiguous(gamma);
    STD_TORCH_CHECK(in.numel() == n, op, ": gamma must have ", n, " elements, got ", in.numel());
    std::vector<int32_t> out(static_cast<size_t>(n));
    if (lgr::code_bytes(in, op) == 1) std::copy_n(in.const_data_ptr<int8_t>(), n, out.begin());
    else std::copy_n(in.const_data_ptr<int32_t>(), n, out.begin());
    return out;
}

// The engine of lgr::Quantized and lgr::run_codes: rows of gamma's length.
class Rows {
  public:
    struct Size {
        int64_t o;
    };
    Rows(const char *op, const Tensor &x, const Tensor &gamma, int32_t eps_exp2, int64_t bits)
        : op_(op), x_(lgr::contiguous(x)), gamma_(widened(op, gamma, gamma.numel())),
          zeros_(gamma_.size()), p_() {
        STD_TORCH_CHECK(x_.scalar_type() == lgr::ScalarType::Char, op, ": x must be int8 codes");
        p_.n = gamma.numel();
        STD_TORCH_CHECK(p_.n > 0 && x_.numel() % p_.n == 0, op, ": x must hold rows of ", p_.n);
        p_.eps = lgr_layer_norm_eps(eps_exp2, p_.n);
        p_.bits = lgr::to_i32(bits, "norm_bits");
        p_.gamma = gamma_.data();
        p_.beta = zeros_.data();
    }
    Rows(const Rows &) = delete;
    Rows &operator=(const Rows &) = delete;
    void bias(const int32_t *beta) { p_.beta = beta; }
    Size params() const { return {p_.n}; }
    int64_t rows() const { return x_.numel() / p_.n; }
    Tensor fresh(int32_t dtype) const { return lgr::fresh_like(x_, dtype); }

    void run(const lgr_epilogue &ep, const lgr_outputs &out, lgr::Extremes *extremes) {
        const int8_t *x = x_.const_data_ptr<int8_t>();
        const lgr_layer_norm_params *p = &p_;
        const int64_t bytes = p->n * static_cast<int64_t>(sizeof(int32_t));
        lgr::for_range(rows(), lgr::kBlock / p->n + 1, op_, [=](int64_t from, int64_t to) {
            int64_t seen[2] = {0, 0};
            auto *scratch = static_cast<int32_t *>(lgr::thread_scratch(bytes));
            const lgr_status s = lgr_layer_norm(x, from, to, p, &ep, &out, scratch, seen);
            if (extremes) extremes->merge(seen);
            return s;
        });
    }

  private:
    const char *op_;
    Tensor x_;
    std::vector<int32_t> gamma_, zeros_;
    lgr_layer_norm_params p_;
};

lgr::Coded layer_norm(const Tensor &x, const Tensor &x_scale, const Tensor &gamma,
                      const Tensor &gamma_scale, const OptTensor &beta, const Tensor &running,
                      const Tensor &is_init, const Tensor &scale, const Tensor &n_batches,
                      const Tensor &n_skipped, const OptTensor &threshold, int64_t eps_shift,
                      int64_t norm_bits, int64_t bits, double clamp, int64_t rounding,
                      int64_t flags) {
    const int32_t exp2 = lgr::exp2_of(x_scale, "layer_norm");
    const bool nan = exp2 == LGR_EXP2_NAN;
    const int32_t eps_exp2 = nan ? 0 : exp2 + lgr::to_i32(eps_shift, "eps_shift");
    Rows engine("layer_norm", x, gamma, eps_exp2, norm_bits);
    const lgr::Quantized q = {
        "layer_norm",
        engine.fresh(aoti_torch_dtype_float32()),
        engine.fresh(lgr::code_dtype(lgr::to_bits(bits, "layer_norm"))),
        engine.rows(),
        lgr::state("layer_norm", running, is_init, scale, n_batches, n_skipped, threshold),
        nan ? LGR_EXP2_NAN : LGR_NORM_EXP2,
        lgr::exp2_of(gamma_scale, "layer_norm"),
        false,
        threshold.has_value(),
        bits,
        rounding,
        flags,
        clamp};
    return q.run(engine, beta);
}

Tensor layer_norm_codes(const Tensor &x, const Tensor &gamma, const Tensor &beta, int64_t eps_exp2,
                        int64_t norm_bits, int64_t shift, int64_t bits) {
    Rows engine("layer_norm_codes", x, gamma, lgr::to_i32(eps_exp2, "eps_exp2"), norm_bits);
    const Tensor codes = engine.fresh(lgr::codes_dtype(bits));
    lgr::run_codes("layer_norm_codes", engine, beta, shift, bits, false, false, codes);
    return codes;
}
} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(linger, m) {
    m.def("layer_norm(Tensor x, Tensor x_scale, Tensor gamma, Tensor gamma_scale, Tensor? "
          "beta, " LGR_STATE_SCHEMA
          ", int eps_shift, int norm_bits, int bits, float clamp, int rounding, int flags) -> "
          "(Tensor value, Tensor codes, Tensor scale_now, Tensor mask, Tensor slope)");
    m.def("layer_norm_codes(Tensor x, Tensor gamma, Tensor beta, int eps_exp2, int norm_bits, int "
          "shift, int bits) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(linger, CPU, m) {
    m.impl("layer_norm", TORCH_BOX(&layer_norm));
    m.impl("layer_norm_codes", TORCH_BOX(&layer_norm_codes));
}

// softmax.cpp - softmax and log-softmax of quantized tensors along the last axis, and their gradients. No arithmetic here.
#include "lgr/softmax.h"
#include "ops/convolution.h"

namespace {
using lgr::Tensor;
using OptTensor = std::optional<Tensor>;

// The engine of lgr::Quantized and lgr::run_codes: rows of the last axis.
class Rows {
  public:
    struct Size {
        int64_t o;
    };
    Rows(const char *op, const Tensor &x, int32_t exp2, int64_t chip, bool log)
        : op_(op), x_(lgr::contiguous(x)), bytes_(lgr::code_bytes(x, op)), exp2_(exp2),
          chip_(lgr::to_i32(chip, "chip")), log_(log) {
        STD_TORCH_CHECK(chip == LGR_ARCS || chip == LGR_VENUSA, op, ": chip must be in [0, 1]");
        STD_TORCH_CHECK(x_.dim() > 0, op, ": x must have a dimension");
        n_ = x_.sizes()[static_cast<size_t>(x_.dim() - 1)];
    }
    void bias(const int32_t *) {}
    Size params() const { return {n_}; }
    int64_t rows() const { return n_ > 0 ? x_.numel() / n_ : 0; }
    Tensor fresh(int32_t dtype) const { return lgr::fresh_like(x_, dtype); }

    void run(const lgr_epilogue &ep, const lgr_outputs &out, lgr::Extremes *extremes) {
        const char *x = static_cast<const char *>(x_.const_data_ptr());
        if (rows() == 0) return;
        const int64_t bytes = lgr_softmax_scratch(n_) * static_cast<int64_t>(sizeof(int32_t));
        lgr::for_range(rows(), lgr::kBlock / n_ + 1, op_, [=, &ep](int64_t from, int64_t to) {
            int64_t seen[2] = {0, 0};
            auto *scratch = static_cast<int32_t *>(lgr::thread_scratch(bytes));
            const lgr_status s =
                lgr_softmax_codes(chip_, log_, x + from * n_ * bytes_, bytes_, exp2_, from,
                                  to - from, n_, scratch, &ep, &out, seen);
            if (extremes) extremes->merge(seen);
            return s;
        });
    }

  private:
    const char *op_;
    Tensor x_;
    int32_t bytes_, exp2_, chip_;
    int64_t n_ = 0;
    bool log_;
};

lgr::Coded softmax(const Tensor &x, const Tensor &x_scale, int64_t chip, bool log,
                   const Tensor &running, const Tensor &is_init, const Tensor &scale,
                   const Tensor &n_batches, const Tensor &n_skipped, const OptTensor &threshold,
                   int64_t bits, double clamp, int64_t rounding, int64_t flags) {
    const int32_t exp2 = lgr::exp2_of(x_scale, "softmax");
    const bool nan = exp2 == LGR_EXP2_NAN;
    Rows rows("softmax", x, nan ? 0 : exp2, chip, log);
    const lgr::Quantized q = {
        "softmax",
        rows.fresh(aoti_torch_dtype_float32()),
        rows.fresh(lgr::code_dtype(lgr::to_bits(bits, "softmax"))),
        rows.rows(),
        lgr::state("softmax", running, is_init, scale, n_batches, n_skipped, threshold),
        nan ? LGR_EXP2_NAN : 15,
        0,
        false,
        threshold.has_value(),
        bits,
        rounding,
        flags,
        clamp};
    return q.run(rows, std::nullopt);
}

Tensor softmax_codes(const Tensor &x, int64_t exp2, int64_t chip, bool log, int64_t shift,
                     int64_t bits) {
    Rows rows("softmax_codes", x, lgr::to_i32(exp2, "exp2"), chip, log);
    const Tensor codes = rows.fresh(lgr::codes_dtype(bits));
    lgr::run_codes("softmax_codes", rows, std::nullopt, shift, bits, false, false, codes);
    return codes;
}

// codes: the computed result of softmax, the operand of log-softmax.
Tensor softmax_grad(const Tensor &grad, const Tensor &codes, const Tensor &scale, bool log) {
    const char *op = "softmax_grad";
    STD_TORCH_CHECK(grad.scalar_type() == lgr::ScalarType::Float && lgr::same_sizes(grad, codes) &&
                        grad.dim() > 0,
                    op, ": grad must be float32 and have the shape of the codes");
    const Tensor g = lgr::contiguous(grad), in = lgr::contiguous(codes);
    const Tensor dx = lgr::fresh_like(g, aoti_torch_dtype_float32());
    const int64_t n = g.sizes()[static_cast<size_t>(g.dim() - 1)];
    const int32_t exp2 = lgr::exp2_of(scale, op), bytes = lgr::code_bytes(in, op);
    if (g.numel() == 0) return dx;
    const float *from = g.const_data_ptr<float>();
    const char *q = static_cast<const char *>(in.const_data_ptr());
    float *to = dx.mutable_data_ptr<float>();
    lgr::for_range(g.numel() / n, lgr::kBlock / n + 1, op, [=](int64_t b, int64_t e) {
        const auto run = log ? lgr_log_softmax_grad : lgr_softmax_grad;
        return run(from + b * n, q + b * n * bytes, bytes, exp2, e - b, n, to + b * n);
    });
    return dx;
}
} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(linger, m) {
    m.def("softmax(Tensor x, Tensor x_scale, int chip, bool log, " LGR_STATE_SCHEMA
          ", int bits, float clamp, int rounding, int flags) -> "
          "(Tensor value, Tensor codes, Tensor scale_now, Tensor mask, Tensor slope)");
    m.def("softmax_codes(Tensor x, int exp2, int chip, bool log, int shift, int bits) -> Tensor");
    m.def("softmax_grad(Tensor grad, Tensor codes, Tensor scale, bool log) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(linger, CPU, m) {
    m.impl("softmax", TORCH_BOX(&softmax));
    m.impl("softmax_codes", TORCH_BOX(&softmax_codes));
    m.impl("softmax_grad", TORCH_BOX(&softmax_grad));
}

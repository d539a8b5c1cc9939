// activation.cpp - sigmoid, tanh, GELU and swish of quantized tensors, and their gradients. No arithmetic here.
#include "lgr/activation.h"
#include "ops/convolution.h"

namespace {
using lgr::Tensor;
using OptTensor = std::optional<Tensor>;

// The engine of lgr::Quantized and lgr::run_codes; one row of all elements.
class Curve {
  public:
    struct Size {
        int64_t o;
    };
    Curve(const char *op, const Tensor &x, int32_t exp2, int64_t table, int64_t width)
        : op_(op), x_(lgr::dense(x)), bytes_(lgr::code_bytes(x, op)), exp2_(exp2),
          table_(lgr::to_i32(table, "table")), width_(lgr::to_i32(width, "width")) {
        STD_TORCH_CHECK(lgr_chip_function_has(table_, width_), op, ": table ", table, " has no ",
                        width, "-bit result");
    }
    void bias(const int32_t *) {}
    Size params() const { return {x_.numel()}; }
    Tensor fresh(int32_t dtype) const { return lgr::fresh_like(x_, dtype); }

    void run(const lgr_epilogue &ep, const lgr_outputs &out, lgr::Extremes *extremes) {
        const char *x = static_cast<const char *>(x_.const_data_ptr());
        const int64_t total = x_.numel();
        if (out.mask && total > 0) out.mask[lgr_mask_row_bytes(total) - 1] = 0; // spare bits
        lgr::for_blocks(total, op_, [=, &ep](int64_t at, int64_t n) {
            int64_t seen[2] = {0, 0};
            const lgr_status s = lgr_activation(table_, width_, x + at * bytes_, bytes_, exp2_, n,
                                                at, total, &ep, &out, seen);
            if (extremes) extremes->merge(seen);
            return s;
        });
    }

  private:
    const char *op_;
    Tensor x_;
    int32_t bytes_, exp2_, table_, width_;
};

// The result keeps the function's own format: codes of `bits`, Q.(bits - 1).
std::tuple<Tensor, Tensor, Tensor> activation(const Tensor &x, const Tensor &x_scale, int64_t table,
                                              int64_t bits) {
    const int32_t exp2 = lgr::exp2_of(x_scale, "activation"), b = lgr::to_bits(bits, "activation");
    const bool nan = exp2 == LGR_EXP2_NAN;
    Curve curve("activation", x, nan ? 0 : exp2, table, bits);
    const Tensor value = curve.fresh(aoti_torch_dtype_float32()),
                 codes = curve.fresh(lgr::code_dtype(b));
    if (nan) {
        const lgr_quantize_params none = {LGR_EXP2_NAN, b, LGR_FLOOR_ADD, 0, 0, 0, 0.0f};
        lgr_quantize_out nothing = {};
        nothing.value = value.mutable_data_ptr<float>();
        nothing.codes = codes.mutable_data_ptr();
        lgr::check(lgr_quantize_f32(nothing.value, value.numel(), &none, &nothing, nullptr),
                   "activation");
        return {value, codes, lgr::scale_of(exp2)};
    }
    const lgr_epilogue_spec spec = {b - 1, b - 1, b, LGR_FLOOR_ADD, 0, 0, 0.0};
    lgr_epilogue ep;
    lgr::check(lgr_epilogue_make(&spec, &ep), "activation");
    lgr_outputs out = {};
    out.value = value.mutable_data_ptr<float>();
    if (b <= 8) out.code8 = codes.mutable_data_ptr<int8_t>();
    else out.code32 = codes.mutable_data_ptr<int32_t>();
    curve.run(ep, out, nullptr);
    return {value, codes, lgr::scale_of(b - 1)};
}

// GELU and swish: Q27, then the output quantizer.
lgr::Coded activation_quantized(const Tensor &x, const Tensor &x_scale, int64_t table,
                                const Tensor &running, const Tensor &is_init, const Tensor &scale,
                                const Tensor &n_batches, const Tensor &n_skipped,
                                const OptTensor &threshold, int64_t bits, double clamp,
                                int64_t rounding, int64_t flags) {
    const char *op = "activation_quantized";
    const int32_t exp2 = lgr::exp2_of(x_scale, op);
    const bool nan = exp2 == LGR_EXP2_NAN;
    Curve curve(op, x, nan ? 0 : exp2, table, 32);
    const lgr::Quantized q = {
        op,
        curve.fresh(aoti_torch_dtype_float32()),
        curve.fresh(lgr::code_dtype(lgr::to_bits(bits, op))),
        1,
        lgr::state(op, running, is_init, scale, n_batches, n_skipped, threshold),
        nan ? LGR_EXP2_NAN : 27,
        0,
        false,
        threshold.has_value(),
        bits,
        rounding,
        flags,
        clamp};
    return q.run(curve, std::nullopt);
}

Tensor activation_codes(const Tensor &x, int64_t exp2, int64_t table, int64_t bits) {
    Curve curve("activation_codes", x, lgr::to_i32(exp2, "exp2"), table, bits);
    const Tensor codes = curve.fresh(lgr::codes_dtype(bits));
    lgr::run_codes("activation_codes", curve, std::nullopt, 0, bits, false, false, codes);
    return codes;
}

Tensor activation_grad(const Tensor &grad, const Tensor &x, const Tensor &x_scale, int64_t table) {
    const char *op = "activation_grad";
    STD_TORCH_CHECK(grad.scalar_type() == lgr::ScalarType::Float && lgr::same_sizes(grad, x), op,
                    ": grad must be float32 and have the shape of x");
    const bool plain = lgr::is_dense(x) && lgr::same_strides(grad, x);
    const Tensor g = plain ? grad : lgr::contiguous(grad), in = plain ? x : lgr::contiguous(x);
    const Tensor dx = lgr::fresh_like(g, aoti_torch_dtype_float32());
    const int32_t exp2 = lgr::exp2_of(x_scale, op), t = lgr::to_i32(table, "table"),
                  bytes = lgr::code_bytes(in, op);
    const float *from = g.const_data_ptr<float>();
    const char *codes = static_cast<const char *>(in.const_data_ptr());
    float *to = dx.mutable_data_ptr<float>();
    lgr::for_blocks(g.numel(), op, [=](int64_t at, int64_t n) {
        return lgr_activation_grad(t, from + at, codes + at * bytes, bytes, exp2, n, to + at);
    });
    return dx;
}
} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(linger, m) {
    m.def("activation(Tensor x, Tensor x_scale, int table, int bits) -> "
          "(Tensor value, Tensor codes, Tensor scale_now)");
    m.def("activation_quantized(Tensor x, Tensor x_scale, int table, " LGR_STATE_SCHEMA
          ", int bits, float clamp, int rounding, int flags) -> "
          "(Tensor value, Tensor codes, Tensor scale_now, Tensor mask, Tensor slope)");
    m.def("activation_codes(Tensor x, int exp2, int table, int bits) -> Tensor");
    m.def("activation_grad(Tensor grad, Tensor x, Tensor x_scale, int table) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(linger, CPU, m) {
    m.impl("activation", TORCH_BOX(&activation));
    m.impl("activation_quantized", TORCH_BOX(&activation_quantized));
    m.impl("activation_codes", TORCH_BOX(&activation_codes));
    m.impl("activation_grad", TORCH_BOX(&activation_grad));
}

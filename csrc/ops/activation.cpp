// activation.cpp - sigmoid, tanh, GELU and swish of quantized tensors, and their gradients. No arithmetic here.
#include "lgr/activation.h"
#include "lgr/chip_functions_cuda.h"
#include "ops/output.h"

namespace {
using lgr::Tensor;

constexpr int32_t kWide = 27; // exponent of the 32-bit results of GELU and swish

// One row of all elements, at the exponent of the function's results.
class Curve : public lgr::NoBias {
  public:
    Curve(const char *op, const Tensor &x, const lgr::Exponent &exp2, int64_t table, int64_t width)
        : op_(op), x_(lgr::dense(x)), exp2_(exp2), bytes_(lgr::code_bytes(x, op)),
          table_(lgr::to_i32(table, "table")), width_(lgr::to_i32(width, "width")) {
        STD_TORCH_CHECK(lgr_chip_function_has(table_, width_), op, ": table ", table, " has no ",
                        width, "-bit result");
    }
    lgr::Sums sums() const {
        lgr::Sums s = {1, x_.numel()};
        s.exp2 = kWide;
        s.watched = exp2_.scale();
        return s;
    }
    Tensor fresh(int32_t dtype) const { return lgr::fresh_like(x_, dtype); }
    void run(const lgr_epilogue &ep, const lgr_outputs &out, lgr::Extremes *extremes) {
        const char *x = static_cast<const char *>(x_.const_data_ptr());
        const int64_t total = x_.numel();
        const int32_t exp2 = exp2_.read(op_);
        lgr::for_blocks(total, op_, extremes, [&](int64_t at, int64_t n, int64_t *seen) {
            return lgr_activation(table_, width_, x + at * bytes_, bytes_, exp2, n, at, total, &ep,
                                  &out, seen);
        });
    }
    lgr_status cuda(const lgr_output_cuda &q, void *stream) const {
        return lgr_activation_cuda(table_, width_, x_.const_data_ptr(), bytes_, exp2_.data(),
                                   exp2_.given(), &q, stream);
    }

  private:
    const char *op_;
    Tensor x_;
    lgr::Exponent exp2_;
    int32_t bytes_, table_, width_;
};

// The result keeps the function's own format: codes of `bits`, Q.(bits - 1).
std::tuple<Tensor, Tensor, Tensor> activation(const Tensor &x, const Tensor &x_scale, int64_t table,
                                              int64_t bits) {
    const char *op = "activation";
    const int32_t b = lgr::to_bits(bits, op);
    Curve curve(op, x, x_scale, table, bits);
    const lgr::Results out(b, false, false, 0, [&](int32_t dtype) { return curve.fresh(dtype); });
    LGR_ON_GPU(x) {
        const Tensor now = lgr::scalar_at(x, aoti_torch_dtype_float32());
        lgr::GpuOutput to(op, out.codes, curve.sums());
        to.fix(b, b - 1, b - 1);
        to.q.out = out.rows();
        to.q.scale_now = now.mutable_data_ptr<float>();
        const lgr::DeviceQueue queue(x);
        lgr::check(curve.cuda(to.q, queue.stream()), op);
        return {*out.value, out.codes, now};
    }
    const bool nan = lgr::exp2_of(x_scale, op) == LGR_EXP2_NAN;
    if (!nan)
        curve.run(lgr::epilogue(op, {b - 1, b - 1, b, LGR_FLOOR_ADD, 0, 0, 0.0}), out.rows(),
                  nullptr);
    return {*out.value, out.codes, out.tagged(nan ? LGR_EXP2_NAN : b - 1)};
}

// GELU and swish: Q27, then the output quantizer.
lgr::Coded activation_quantized(const Tensor &x, const Tensor &x_scale, int64_t table,
                                const lgr::Output &output) {
    return lgr::quantized("activation_quantized",
                          Curve("activation_quantized", x, x_scale, table, 32), output);
}

Tensor activation_codes(const Tensor &x, int64_t exp2, int64_t table, int64_t bits) {
    Curve curve("activation_codes", x, {exp2, "exp2"}, table, bits);
    return lgr::integers("activation_codes", curve, 0, bits);
}

Tensor activation_grad(const Tensor &grad, const Tensor &x, const Tensor &x_scale, int64_t table) {
    const char *op = "activation_grad";
    STD_TORCH_CHECK(grad.scalar_type() == lgr::ScalarType::Float && lgr::same_sizes(grad, x), op,
                    ": grad must be float32 and have the shape of x");
    const bool plain = lgr::is_dense(x) && lgr::same_strides(grad, x);
    const Tensor g = plain ? grad : lgr::contiguous(grad), in = plain ? x : lgr::contiguous(x);
    const Tensor dx = lgr::fresh_like(g, aoti_torch_dtype_float32());
    const int32_t t = lgr::to_i32(table, "table"), bytes = lgr::code_bytes(in, op);
    LGR_ON_GPU(g) {
        lgr::same_device(op, g, {{"x", in}});
        const lgr::DeviceQueue queue(g);
        lgr::check(lgr_activation_grad_cuda(t, g.const_data_ptr<float>(), in.const_data_ptr(),
                                            bytes, lgr::scale_at(op, g, "x_scale", x_scale),
                                            g.numel(), dx.mutable_data_ptr<float>(),
                                            queue.stream()),
                   op);
        return dx;
    }
    const int32_t exp2 = lgr::exp2_of(x_scale, op);
    const float *from = g.const_data_ptr<float>();
    const char *codes = static_cast<const char *>(in.const_data_ptr());
    float *to = dx.mutable_data_ptr<float>();
    lgr::for_blocks(g.numel(), op, [=](int64_t at, int64_t n) {
        return lgr_activation_grad(t, from + at, codes + at * bytes, bytes, exp2, n, to + at);
    });
    return dx;
}
} // namespace

LGR_OPERATORS({"activation(Tensor x, Tensor x_scale, int table, int bits) -> "
               "(Tensor value, Tensor codes, Tensor scale_now)",
               LGR_BOX(activation)},
              {LGR_QUANTIZED("activation_quantized", "Tensor x, Tensor x_scale, int table"),
               LGR_BOX(activation_quantized)},
              {"activation_codes(Tensor x, int exp2, int table, int bits) -> Tensor",
               LGR_BOX(activation_codes)},
              {"activation_grad(Tensor grad, Tensor x, Tensor x_scale, int table) -> Tensor",
               LGR_BOX(activation_grad)});

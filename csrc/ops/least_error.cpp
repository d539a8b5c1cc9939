// least_error.cpp - what exponents cost a tensor, and the state of a weight that takes the cheaper one. No arithmetic here.
#include "lgr/least_error.h"
#include "ops/errors.h"

namespace {
using lgr::ScalarType;
using lgr::Tensor;

Tensor dense_float(const Tensor &x, const char *op) {
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, op, ": the tensor must be float32");
    return lgr::dense(x);
}

Tensor squared_errors(const Tensor &x, int64_t exp2, int64_t count, int64_t bits,
                      int64_t rounding) {
    const char *const op = "squared_errors";
    const Tensor in = dense_float(x, op);
    STD_TORCH_CHECK(count >= 1 && count <= LGR_ERROR_EXPS, op, ": count must be in [1, ",
                    int{LGR_ERROR_EXPS}, "], got ", count);
    const Tensor sum = lgr::fresh_1d(count, aoti_torch_dtype_float64());
    double *const to = sum.mutable_data_ptr<double>();
    for (int64_t i = 0; i < count; ++i) to[i] = 0.0;
    const lgr_squared_error_params how = {lgr::to_i32(exp2, "exp2"), static_cast<int32_t>(count),
                                          lgr::to_bits(bits, op), lgr::to_rounding(rounding, op)};
    lgr::add_errors(in, how, to, op);
    return sum;
}

void least_error_step(const Tensor &w, const lgr::Statistics &statistics, int64_t bits) {
    const char *const op = "least_error_step";
    const Tensor in = dense_float(w, op);
    const lgr_stats state = lgr::pointers(op, {statistics, std::nullopt}, in);
    const int32_t width = lgr::to_bits(bits, op);
    if (in.numel() == 0) return; // it says nothing
    const float peak = lgr::peak_of(in, op);
    lgr_squared_error_params how = {};
    double error[2] = {0};
    if (peak < INFINITY) {
        how = lgr_least_error_candidates(peak, width);
        lgr::add_errors(in, how, error, op);
    }
    lgr_least_error_step(&state, width, peak, &how, error);
}
} // namespace

LGR_OPERATORS({"squared_errors(Tensor x, int exp2, int count, int bits, int rounding) -> Tensor",
               LGR_BOX(squared_errors), lgr::Devices::CPU},
              {"least_error_step(Tensor w, " LGR_STATISTICS ", int bits) -> ()",
               LGR_BOX(least_error_step), lgr::Devices::CPU});

// clamp.cpp - symmetric clamp of activations and weights. No arithmetic here.
#include "ops/clamp.h"
#include "ops/box.h"

namespace {
using lgr::ScalarType;
using lgr::Tensor;

std::tuple<Tensor, Tensor> clamped(const Tensor &x, float limit, const char *op) {
    STD_TORCH_CHECK(limit >= 0.0f || limit != limit, op, ": limit must be >= 0, got ", limit);
    const Tensor y = lgr::fresh_like(x, aoti_torch_dtype_float32());
    // a NaN mean, from a NaN weight: nothing is cut, the NaN stays visible
    const Tensor mask =
        lgr::clamp_into(x, limit == limit ? limit : std::numeric_limits<float>::infinity(), y, op);
    return {y, mask};
}

std::tuple<Tensor, Tensor> clamp(const Tensor &x, double limit) {
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, "clamp: x must be float32");
    STD_TORCH_CHECK(limit >= 0.0, "clamp: limit must be >= 0, got ", limit);
    const Tensor in = lgr::dense(x);
    LGR_ON_GPU(in) {
        const Tensor y = lgr::fresh_like(in, aoti_torch_dtype_float32());
        return {y, lgr::clamp_on_gpu(in, static_cast<float>(limit), nullptr, y, "clamp")};
    }
    return clamped(in, static_cast<float>(limit), "clamp");
}

std::tuple<Tensor, Tensor> clamp_weight(const Tensor &w, double value, double factor) {
    STD_TORCH_CHECK(w.scalar_type() == ScalarType::Float, "clamp_weight: w must be float32");
    STD_TORCH_CHECK(value > 0.0 || factor > 0.0, "clamp_weight: value or factor must be positive");
    const Tensor in = lgr::dense(w);
    LGR_ON_GPU(in) {
        const Tensor y = lgr::fresh_like(in, aoti_torch_dtype_float32());
        lgr::OptTensor limit;
        if (!(value > 0.0)) limit = lgr::mean_limit_on_gpu(in, factor, nullptr, "clamp_weight");
        const Tensor mask = lgr::clamp_on_gpu(in, static_cast<float>(value),
                                              lgr::data_at<float>(limit), y, "clamp_weight");
        return {y, mask};
    }
    return clamped(in, lgr::weight_limit(in, value, factor, "clamp_weight"), "clamp_weight");
}
} // namespace

LGR_OPERATORS({"clamp(Tensor x, float limit) -> (Tensor y, Tensor mask)", LGR_BOX(clamp)},
              {"clamp_weight(Tensor w, float value, float factor) -> (Tensor y, Tensor mask)",
               LGR_BOX(clamp_weight)});

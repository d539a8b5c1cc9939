// relu.cpp - ReLU and its bounded forms on codes. No arithmetic here.
#include "lgr/relu.h"
#include "lgr/relu_cuda.h"
#include "ops/device.h"

namespace {
using lgr::Tensor;

std::tuple<Tensor, Tensor, Tensor> relu(const Tensor &x, const Tensor &scale, double high,
                                        bool grad) {
    STD_TORCH_CHECK(high > 0.0, "relu: high must be positive, got ", high);
    const Tensor in = lgr::dense(x);
    const int64_t n = in.numel();
    lgr_relu_params p = {0, lgr::code_bytes(x, "relu"), n >= lgr::kStreamValues, high};
    const Tensor value = lgr::fresh_like(in, aoti_torch_dtype_float32());
    const Tensor codes =
        lgr::fresh_like(in, p.bytes == 1 ? aoti_torch_dtype_int8() : aoti_torch_dtype_int32());
    const Tensor mask =
        lgr::fresh_1d(grad ? lgr_mask_bytes(n) : 0, aoti_torch_dtype_uint8(), lgr::place_of(in));
    const char *src = static_cast<const char *>(in.const_data_ptr());
    char *dst = static_cast<char *>(codes.mutable_data_ptr());
    float *real = value.mutable_data_ptr<float>();
    uint8_t *bits = grad ? mask.mutable_data_ptr<uint8_t>() : nullptr;
    LGR_ON_GPU(in) {
        const lgr::DeviceQueue queue(in);
        lgr::check(lgr_relu_cuda(src, n, &p, lgr::scale_at("relu", in, "scale", scale), dst, real,
                                 bits, queue.stream()),
                   "relu");
        return {value, codes, mask};
    }
    p.exp2 = lgr::exp2_of(scale, "relu");
    lgr::for_blocks(n, "relu", [=](int64_t at, int64_t k) {
        return lgr_relu(src + at * p.bytes, k, &p, dst + at * p.bytes, real + at,
                        bits ? bits + at / 8 : nullptr);
    });
    return {value, codes, mask};
}
} // namespace

LGR_OPERATORS({"relu(Tensor x, Tensor scale, float high, bool grad) -> "
               "(Tensor value, Tensor codes, Tensor mask)",
               LGR_BOX(relu)});

// chip_functions.cpp - the chips' functions on their own fixed formats, int32 to int32. No arithmetic here.
#include "lgr/chip_functions_cuda.h"
#include "lgr/softmax.h"
#include "lgr/softmax_cuda.h"
#include "ops/device.h"

namespace {
using lgr::ScalarType;
using lgr::Tensor;

Tensor int32_operand(const Tensor &x, const char *op) {
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Int, op, ": x must be int32");
    return lgr::contiguous(x);
}

Tensor chip_function(const Tensor &x, int64_t table, int64_t bits) {
    const Tensor in = int32_operand(x, "chip_function");
    const int32_t t = lgr::to_i32(table, "table"), b = lgr::to_bits(bits, "chip_function");
    STD_TORCH_CHECK(lgr_chip_function_has(t, b), "chip_function: table ", table, " has no ", bits,
                    "-bit result");
    const Tensor out = lgr::fresh_like(in, aoti_torch_dtype_int32());
    const int32_t *src = in.const_data_ptr<int32_t>();
    int32_t *dst = out.mutable_data_ptr<int32_t>();
    LGR_ON_GPU(in) {
        const lgr::DeviceQueue queue(in);
        lgr::check(lgr_chip_function_cuda(t, b, src, in.numel(), dst, queue.stream()),
                   "chip_function");
        return out;
    }
    lgr::for_blocks(in.numel(), "chip_function", [=](int64_t at, int64_t n) {
        return lgr_chip_function(t, b, src + at, n, dst + at);
    });
    return out;
}

// Along the last axis.
Tensor chip_softmax(const Tensor &x, int64_t chip, bool log) {
    const Tensor in = int32_operand(x, "chip_softmax");
    STD_TORCH_CHECK(in.dim() > 0, "chip_softmax: x must have a dimension");
    const Tensor out = lgr::fresh_like(in, aoti_torch_dtype_int32());
    const int64_t n = in.sizes()[static_cast<size_t>(in.dim() - 1)];
    const int32_t c = lgr::to_chip(chip, LGR_SOFTMAX_CHIPS, "chip_softmax");
    if (in.numel() == 0) return out;
    const int32_t *src = in.const_data_ptr<int32_t>();
    int32_t *dst = out.mutable_data_ptr<int32_t>();
    LGR_ON_GPU(in) {
        const lgr::DeviceQueue queue(in);
        lgr::check(lgr_softmax_cuda(c, log, src, in.numel() / n, n, dst, queue.stream()),
                   "chip_softmax");
        return out;
    }
    const int64_t grain = lgr::kBlock / n + 1;
    lgr::for_range(in.numel() / n, grain, "chip_softmax", [=](int64_t from, int64_t to) {
        const int32_t *s = src + from * n;
        int32_t *d = dst + from * n;
        return log ? lgr_log_softmax(s, to - from, n, d) : lgr_softmax(c, s, to - from, n, d);
    });
    return out;
}
} // namespace

LGR_OPERATORS({"chip_function(Tensor x, int table, int bits) -> Tensor", LGR_BOX(chip_function)},
              {"chip_softmax(Tensor x, int chip, bool log) -> Tensor", LGR_BOX(chip_softmax)});

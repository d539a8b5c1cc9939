// pair.h - the operands of an element-wise operator.
#pragma once
#include "ops/device.h"

namespace lgr {
// Two operands of one shape, one type and one memory order.
struct Pair {
    Tensor x, y;
    int32_t bytes;
    Pair(const Tensor &a, const Tensor &b, const char *op) : x(a), y(b), bytes(code_bytes(a, op)) {
        same_device(op, a, {{"y", b}});
        STD_TORCH_CHECK(same_sizes(a, b), op, ": x and y must have one shape");
        STD_TORCH_CHECK(code_bytes(b, op) == bytes, op, ": x and y must have one dtype");
        if (is_dense(a) && same_strides(a, b)) return;
        x = lgr::contiguous(a);
        y = lgr::contiguous(b);
    }
    const char *at_x(int64_t i) const {
        return static_cast<const char *>(x.const_data_ptr()) + i * bytes;
    }
    const char *at_y(int64_t i) const {
        return static_cast<const char *>(y.const_data_ptr()) + i * bytes;
    }
};
} // namespace lgr

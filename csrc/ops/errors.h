// errors.h - the largest value of a tensor, and its squared errors at a range of exponents. No arithmetic here.
#pragma once
#include "lgr/squared_error.h"
#include "ops/state.h"
#include <vector>

namespace lgr {
static_assert(kBlock == LGR_ERROR_BLOCK, "sums are split where threads are");

inline float peak_of(const Tensor &x, const char *op) {
    Range range;
    const float *src = x.const_data_ptr<float>();
    for_blocks(x.numel(), op, [&range, src](int64_t at, int64_t n) {
        lgr_range seen = {0, 0};
        const lgr_status s = lgr_observe_f32(src + at, n, &seen);
        range.merge(seen);
        return s;
    });
    return range.peak(false, 0.0);
}
// Blocks in parallel, their sums added in order to sum[how.n_exp2].
inline void add_errors(const Tensor &x, const lgr_squared_error_params &how, double *sum,
                       const char *op) {
    const int64_t n = x.numel(), blocks = (n + kBlock - 1) / kBlock;
    const int32_t k = how.n_exp2;
    std::vector<double> parts(static_cast<size_t>(blocks * k));
    const float *src = x.const_data_ptr<float>();
    double *part = parts.data();
    for_range(blocks, 1, op, [=, &how](int64_t b, int64_t e) {
        lgr_status bad = LGR_OK;
        for (; b < e; ++b) {
            const int64_t at = b * kBlock, count = n - at < kBlock ? n - at : kBlock;
            if (const lgr_status r = lgr_squared_error_f32(src + at, count, &how, part + b * k))
                bad = r;
        }
        return bad;
    });
    for (int64_t i = 0; i < blocks * k; ++i) sum[i % k] += part[i];
}
} // namespace lgr

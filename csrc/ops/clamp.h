// clamp.h - the clamp passes that clamp.cpp and fold_bn.cpp share.
#pragma once
#include "lgr/clamp.h"
#include "lgr/clamp_cuda.h"
#include "ops/device.h"
#include <vector>

namespace lgr {
// y may be x. Returns the mask.
inline Tensor clamp_into(const Tensor &x, float limit, const Tensor &y, const char *op) {
    const Tensor mask = fresh_1d(lgr_mask_bytes(x.numel()), aoti_torch_dtype_uint8());
    const float *src = x.const_data_ptr<float>();
    float *dst = y.mutable_data_ptr<float>();
    uint8_t *m = mask.mutable_data_ptr<uint8_t>();
    for_blocks(x.numel(), op, [=](int64_t at, int64_t n) {
        return lgr_clamp_f32(src + at, n, limit, dst + at, m + at / 8);
    });
    return mask;
}

// value > 0 wins, else factor * mean|x|; the sum's parts lie at fixed places.
inline float weight_limit(const Tensor &x, double value, double factor, const char *op) {
    if (value > 0.0) return static_cast<float>(value);
    const float *src = x.const_data_ptr<float>();
    const int64_t n = x.numel(), blocks = (n + kBlock - 1) / kBlock;
    std::vector<double> parts(static_cast<size_t>(blocks));
    double *part = parts.data();
    for_range(blocks, 2, op, [=](int64_t b, int64_t e) {
        lgr_status bad = LGR_OK;
        for (; b < e; ++b) {
            const int64_t at = b * kBlock, k = n - at < kBlock ? n - at : kBlock;
            if (const lgr_status r = lgr_abs_sum_f32(src + at, k, part + b)) bad = r;
        }
        return bad;
    });
    return lgr_mean_limit(part, blocks, n, factor);
}
// The same on a GPU. limit_at: where the limit is, or nullptr.
inline Tensor clamp_on_gpu(const Tensor &x, float limit, const float *limit_at, const Tensor &y,
                           const char *op) {
    const Tensor mask = scratch_at(x, lgr_mask_bytes(x.numel()));
    const DeviceQueue queue(x);
    check(lgr_clamp_f32_cuda(x.const_data_ptr<float>(), x.numel(), limit, limit_at,
                             y.mutable_data_ptr<float>(), mask.mutable_data_ptr<uint8_t>(),
                             queue.stream()),
          op);
    return mask;
}
// factor * mean|x|, one float32; parts: those of a sum that is known, or nullptr.
inline Tensor mean_limit_on_gpu(const Tensor &x, double factor, const Tensor *parts,
                                const char *op) {
    const Tensor limit = scalar_at(x, aoti_torch_dtype_float32()),
                 sums = parts ? *parts
                              : fresh_1d((x.numel() + kBlock - 1) / kBlock,
                                         aoti_torch_dtype_float64(), place_of(x));
    const DeviceQueue queue(x);
    check(lgr_mean_limit_cuda(parts ? nullptr : x.const_data_ptr<float>(), x.numel(), factor,
                              sums.mutable_data_ptr<double>(), sums.numel(),
                              limit.mutable_data_ptr<float>(), queue.stream()),
          op);
    return limit;
}
} // namespace lgr

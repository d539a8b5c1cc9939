// mask.cpp - gradients through saved bits and slopes. No arithmetic here.
#include "lgr/mask.h"
#include "lgr/quantize_cuda.h"
#include "ops/box.h"
#include "ops/device.h"
#include <vector>

namespace {
using lgr::ScalarType;
using lgr::Tensor;

// out: a fresh tensor like grad, or grad itself.
void masked(const Tensor &grad, const Tensor &mask, int64_t row, const Tensor &out) {
    const int64_t n = grad.numel();
    STD_TORCH_CHECK(row >= 0 && (row == 0 || n % row == 0), "mask_grad: row must divide ", n,
                    ", got ", row);
    const int64_t rows = row ? n / row : 0,
                  want = row ? rows * lgr_mask_row_bytes(row) : lgr_mask_bytes(n);
    STD_TORCH_CHECK(mask.numel() == want && mask.is_contiguous(), "mask_grad: mask must have ",
                    want, " bytes, got ", mask.numel());
    STD_TORCH_CHECK(mask.is_cpu() == grad.is_cpu(), "mask_grad: mask must be where grad is");
    const float *g = grad.const_data_ptr<float>();
    const uint8_t *m = mask.const_data_ptr<uint8_t>();
    float *to = out.mutable_data_ptr<float>();
    LGR_ON_GPU(grad) {
        const lgr::DeviceQueue queue(grad);
        return lgr::check(lgr_mask_grad_f32_cuda(g, m, n, row, to, queue.stream()), "mask_grad");
    }
    if (row == 0) {
        lgr::for_blocks(n, "mask_grad", [=](int64_t at, int64_t k) {
            return lgr_mask_grad_f32(g + at, m + at / 8, k, to + at);
        });
    } else {
        lgr::for_range(rows, 2 * lgr::kBlock / row + 1, "mask_grad", [=](int64_t b, int64_t e) {
            return lgr_mask_grad_rows_f32(g + b * row, m + b * lgr_mask_row_bytes(row), e - b, row,
                                          to + b * row);
        });
    }
}

void check_grad(const Tensor &grad) {
    STD_TORCH_CHECK(grad.scalar_type() == ScalarType::Float, "mask_grad: grad must be float32");
    STD_TORCH_CHECK(lgr::is_dense(grad),
                    "mask_grad: grad must be dense, in the memory order of the mask");
}

Tensor mask_grad(const Tensor &grad, const Tensor &mask, int64_t row) {
    check_grad(grad);
    const Tensor out = lgr::fresh_like(grad, aoti_torch_dtype_float32());
    masked(grad, mask, row, out);
    return out;
}

void mask_grad_(const Tensor &grad, const Tensor &mask) {
    check_grad(grad);
    masked(grad, mask, 0, grad);
}

Tensor threshold_grad(const Tensor &grad, const Tensor &slope, const Tensor &scale) {
    STD_TORCH_CHECK(grad.scalar_type() == ScalarType::Float &&
                        slope.scalar_type() == ScalarType::Float,
                    "threshold_grad: grad and slope must be float32");
    STD_TORCH_CHECK(lgr::same_sizes(grad, slope),
                    "threshold_grad: grad and slope must have one shape");
    STD_TORCH_CHECK(scale.numel() == 1 && scale.is_cpu() == grad.is_cpu() &&
                        slope.is_cpu() == grad.is_cpu(),
                    "threshold_grad: slope and one scale must be where grad is");
    const bool direct = lgr::is_dense(slope) && lgr::same_strides(grad, slope);
    const Tensor g = direct ? grad : lgr::contiguous(grad),
                 s = direct ? slope : lgr::contiguous(slope);
    const float *gp = g.const_data_ptr<float>(), *sp = s.const_data_ptr<float>();
    const int64_t n = g.numel(), blocks = (n + lgr::kBlock - 1) /
                                          lgr::kBlock; // fixed places, whatever the threads
    const Tensor out = lgr::fresh_1d(1, aoti_torch_dtype_float32(), lgr::place_of(g));
    float *to = out.mutable_data_ptr<float>();
    LGR_ON_GPU(g) {
        const Tensor sums = lgr::fresh_1d(blocks, aoti_torch_dtype_float64(), lgr::place_of(g));
        const lgr::DeviceQueue queue(g);
        lgr::check(lgr_threshold_grad_f32_cuda(gp, sp, n, scale.const_data_ptr<float>(),
                                               sums.mutable_data_ptr<double>(), to, queue.stream()),
                   "threshold_grad");
        return out;
    }
    std::vector<double> parts(static_cast<size_t>(blocks));
    double *part = parts.data();
    lgr::for_range(blocks, 2, "threshold_grad", [=](int64_t b, int64_t e) {
        lgr_status bad = LGR_OK;
        for (; b < e; ++b) {
            const int64_t at = b * lgr::kBlock, k = n - at < lgr::kBlock ? n - at : lgr::kBlock;
            if (const lgr_status r = lgr_slope_sum_f32(gp + at, sp + at, k, part + b)) bad = r;
        }
        return bad;
    });
    *to = lgr_threshold_grad(part, blocks, lgr::exp2_of(scale, "threshold_grad"));
    return out;
}
} // namespace

LGR_OPERATORS({"mask_grad(Tensor grad, Tensor mask, SymInt row=0) -> Tensor", LGR_BOX(mask_grad)},
              {"mask_grad_(Tensor(a!) grad, Tensor mask) -> ()", LGR_BOX(mask_grad_)},
              {"threshold_grad(Tensor grad, Tensor slope, Tensor scale) -> Tensor",
               LGR_BOX(threshold_grad)});

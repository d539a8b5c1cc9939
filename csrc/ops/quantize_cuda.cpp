// quantize_cuda.cpp - the CUDA side of quantize, mask_grad and threshold_grad. No arithmetic here.
#if LGR_HAVE_CUDA
#include "lgr/quantize_cuda.h"
#include "lgr/mask.h"
#include "ops/cuda_stream.h"
#include "ops/state.h"
#include <torch/csrc/stable/accelerator.h>

namespace {
using lgr::ScalarType;
using lgr::Tensor;
using torch::stable::accelerator::DeviceGuard;

Tensor on_device(const Tensor &like, const int64_t *sizes, const int64_t *strides, int64_t dim,
                 int32_t dtype) {
    AtenTensorHandle h = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
        dim, sizes, strides, dtype, aoti_torch_device_type_cuda(), like.get_device_index(), &h));
    return Tensor(h);
}
Tensor on_device_like(const Tensor &x, int32_t dtype) {
    return on_device(x, x.sizes().data(), x.strides().data(), x.dim(), dtype);
}
Tensor on_device_1d(const Tensor &like, int64_t n, int32_t dtype) {
    const int64_t one = 1;
    return on_device(like, &n, &one, 1, dtype);
}

lgr::Made make(const Tensor &x, const Tensor &running, const Tensor &is_init, const Tensor &scale,
               const Tensor &n_batches, const Tensor &n_skipped, int64_t settings,
               const std::optional<Tensor> &threshold, double clamp, bool grad) {
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, "quantize: x must be float32");
    for (const Tensor *t : {&running, &is_init, &scale, &n_batches, &n_skipped})
        STD_TORCH_CHECK(t->numel() == 1 && t->is_cuda() &&
                            t->get_device_index() == x.get_device_index(),
                        "quantize: every state tensor must have one element on the device of x");
    STD_TORCH_CHECK(!threshold || (threshold->numel() == 1 && threshold->is_cuda()),
                    "quantize: threshold must have one element on the device of x");
    const DeviceGuard guard(x.get_device_index());
    const Tensor in = lgr::dense(x);
    const int64_t n = in.numel();
    lgr_stats st = {};
    st.running = running.mutable_data_ptr<float>();
    st.is_init = lgr::flag("quantize", is_init);
    st.scale = scale.mutable_data_ptr<float>();
    st.n_batches = n_batches.mutable_data_ptr<int64_t>();
    st.n_skipped = n_skipped.mutable_data_ptr<int64_t>();
    st.threshold = threshold ? threshold->const_data_ptr<float>() : nullptr;
    const lgr::Settings how = lgr::unpack(settings, "quantize");
    lgr_quantize_params p = {};
    p.bits = how.bits;
    p.rounding = how.rounding;
    p.relu = how.relu;
    p.clamp = static_cast<float>(clamp);
    const int32_t f32 = aoti_torch_dtype_float32();
    const Tensor value = on_device_like(in, f32),
                 codes = on_device_like(in, lgr::code_dtype(p.bits));
    std::optional<Tensor> mask, slope;
    const Tensor now = on_device(in, nullptr, nullptr, 0, f32);
    const Tensor scratch = on_device_1d(in, LGR_QUANTIZE_CUDA_SCRATCH, aoti_torch_dtype_uint8());
    lgr_quantize_out out = {};
    out.value = value.mutable_data_ptr<float>();
    out.codes = codes.mutable_data_ptr();
    if (grad) {
        mask = on_device_1d(in, lgr_mask_bytes(n), aoti_torch_dtype_uint8());
        out.mask = mask->mutable_data_ptr<uint8_t>();
    }
    if (grad && threshold) {
        slope = on_device_like(in, f32);
        out.slope = slope->mutable_data_ptr<float>();
    }
    lgr::check(lgr_quantize_state_f32_cuda(in.const_data_ptr<float>(), n, &st, &p, how.observe,
                                           &out, now.mutable_data_ptr<float>(),
                                           scratch.mutable_data_ptr(),
                                           lgr::current_cuda_stream(x.get_device_index())),
               "quantize");
    return {value, codes, now, mask, slope};
}

using Forms = lgr::QuantizeForms<make>;

Tensor mask_grad(const Tensor &grad, const Tensor &mask, int64_t row) {
    STD_TORCH_CHECK(grad.scalar_type() == ScalarType::Float, "mask_grad: grad must be float32");
    STD_TORCH_CHECK(lgr::is_dense(grad),
                    "mask_grad: grad must be dense, in the memory order of the mask");
    const int64_t n = grad.numel();
    STD_TORCH_CHECK(row >= 0 && (row == 0 || n % row == 0), "mask_grad: row must divide ", n,
                    ", got ", row);
    const int64_t want = row ? n / row * lgr_mask_row_bytes(row) : lgr_mask_bytes(n);
    STD_TORCH_CHECK(mask.numel() == want && mask.is_contiguous() && mask.is_cuda(),
                    "mask_grad: mask must have ", want, " bytes on the device of grad, got ",
                    mask.numel());
    const DeviceGuard guard(grad.get_device_index());
    const Tensor out = on_device_like(grad, aoti_torch_dtype_float32());
    lgr::check(lgr_mask_grad_f32_cuda(grad.const_data_ptr<float>(), mask.const_data_ptr<uint8_t>(),
                                      n, row, out.mutable_data_ptr<float>(),
                                      lgr::current_cuda_stream(grad.get_device_index())),
               "mask_grad");
    return out;
}

Tensor threshold_grad(const Tensor &grad, const Tensor &slope, const Tensor &scale) {
    STD_TORCH_CHECK(grad.scalar_type() == ScalarType::Float &&
                        slope.scalar_type() == ScalarType::Float,
                    "threshold_grad: grad and slope must be float32");
    STD_TORCH_CHECK(lgr::same_sizes(grad, slope),
                    "threshold_grad: grad and slope must have one shape");
    STD_TORCH_CHECK(scale.numel() == 1 && scale.is_cuda() && slope.is_cuda(),
                    "threshold_grad: slope and one scale must be on the device of grad");
    const DeviceGuard guard(grad.get_device_index());
    const bool direct = lgr::is_dense(slope) && lgr::same_strides(grad, slope);
    const Tensor g = direct ? grad : lgr::contiguous(grad),
                 s = direct ? slope : lgr::contiguous(slope);
    const int64_t n = g.numel();
    const Tensor parts =
        on_device_1d(g, (n + LGR_SUM_BLOCK - 1) / LGR_SUM_BLOCK, aoti_torch_dtype_float64());
    const Tensor out = on_device_1d(g, 1, aoti_torch_dtype_float32());
    lgr::check(lgr_threshold_grad_f32_cuda(g.const_data_ptr<float>(), s.const_data_ptr<float>(), n,
                                           scale.const_data_ptr<float>(),
                                           parts.mutable_data_ptr<double>(),
                                           out.mutable_data_ptr<float>(),
                                           lgr::current_cuda_stream(grad.get_device_index())),
               "threshold_grad");
    return out;
}
} // namespace

STABLE_TORCH_LIBRARY_IMPL(linger, CUDA, m) {
    m.impl("quantize", TORCH_BOX(&Forms::plain));
    m.impl("quantize_mask", TORCH_BOX(&Forms::mask));
    m.impl("quantize_slope", TORCH_BOX(&Forms::slope));
    m.impl("mask_grad", TORCH_BOX(&mask_grad));
    m.impl("threshold_grad", TORCH_BOX(&threshold_grad));
}
#endif

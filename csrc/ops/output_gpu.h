// output_gpu.h - the output quantizer on a GPU: its job, and the call of an operator's kernels. No arithmetic here.
#pragma once
#include "lgr/output_cuda.h"
#include "ops/sums.h"

namespace lgr {
// The job of an output quantizer on a GPU, for sums of which x is an operand or a result; its tensors live as long as it does.
struct GpuOutput {
    lgr_output_cuda q = {};
    Tensor scratch, bias_codes;
    OptTensor bias;

    GpuOutput(const char *op, const Tensor &x, const Sums &s, bool reads_scales = true)
        : scratch(scratch_at(x, LGR_OUTPUT_CUDA_SCRATCH)),
          bias_codes(absent(aoti_torch_dtype_int32(), place_of(x))) {
        if (s.scale_a) q.scale_a = scale_at(op, x, "a scale", *s.scale_a);
        if (s.scale_b) q.scale_b = scale_at(op, x, "a scale", *s.scale_b);
        if (s.watched) q.watched = scale_at(op, x, "a scale", *s.watched);
        if (s.number) q.number = scale_at(op, x, "a number", *s.number);
        q.exp2 = s.exp2;
        q.o = s.o;
        q.sat32 = s.sat32;
        q.scratch = scratch.mutable_data_ptr();
        if (!reads_scales) q.scale_a = q.scale_b = q.watched = q.number = nullptr;
        if (!s.bias || !*s.bias) return;
        same_device(op, x, {{"bias", *s.bias}});
        bias = lgr::contiguous(**s.bias);
        STD_TORCH_CHECK(bias->scalar_type() == ScalarType::Float && bias->numel() == s.o, op,
                        ": bias must be float32 with ", s.o, " elements");
        bias_codes = fresh_1d(s.o, aoti_torch_dtype_int32(), place_of(x));
        q.bias = bias->const_data_ptr<float>();
        q.bias_codes = bias_codes.mutable_data_ptr<int32_t>();
    }
    // Codes at a known exponent, no state.
    void fix(int32_t bits, int32_t from, int32_t to) {
        q.fixed = 1;
        q.bits = bits;
        q.rounding = LGR_FLOOR_ADD;
        q.exp2 = from;
        q.out_exp2 = to;
    }
};
// The training form on a GPU: nothing is read back. Returns the scale.
template <class Kernel>
Tensor quantized_on_gpu(const char *op, Kernel &kernel, const Sums &sums, const lgr_stats &state,
                        const Format &how, const Results &results) {
    const Tensor now = scalar_at(results.codes, aoti_torch_dtype_float32());
    GpuOutput to(op, results.codes, sums);
    to.q.state = state;
    to.q.bits = how.bits;
    to.q.rounding = how.rounding;
    to.q.relu = how.relu;
    to.q.observe = how.observe;
    to.q.clamp = how.clamp;
    to.q.out = results.rows();
    to.q.scale_now = now.mutable_data_ptr<float>();
    const DeviceQueue queue(results.codes);
    check(kernel.cuda(to.q, queue.stream()), op);
    return now;
}
} // namespace lgr

// conv_grad.h - one call of the float gradients of a convolution: shared memory, threads. No arithmetic here.
#pragma once
#include "lgr/conv_grad.h"
#include "ops/convolution.h"

namespace lgr {
// Everything above the line of `g` is set. The same bits for every number of threads.
inline void run_conv_grad(lgr_conv_grad &g, const char *op) {
    check(lgr_conv_grad_begin(&g), op);
    const Tensor shared =
        fresh_1d(lgr_conv_grad_shared_bytes(&g) / 4 + 1, aoti_torch_dtype_float32());
    g.shared = shared.mutable_data_ptr<float>();
    const lgr_conv_grad *job = &g;
    const int64_t weights = g.p.o * g.cg * g.p.kh * g.p.kw, blocks = lgr_conv_grad_blocks(job),
                  bytes = lgr_conv_grad_scratch_bytes(job);
    torch::stable::parallel_for(0, blocks, blocks * kTaskWeights / (weights + 1) + 1,
                                [=](int64_t b, int64_t e) { lgr_conv_grad_pack(job, b, e); });
    torch::stable::parallel_for(0, g.units, 1, [=](int64_t b, int64_t e) {
        lgr_conv_grad_run(job, b, e, thread_scratch(bytes));
    });
    torch::stable::parallel_for(0, g.p.o, g.p.o * kTaskWeights / (weights * g.slices + 1) + 1,
                                [=](int64_t b, int64_t e) { lgr_conv_grad_end(job, b, e); });
}
} // namespace lgr

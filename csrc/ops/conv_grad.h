// conv_grad.h - one call of the float gradients of a convolution: shared memory, threads. No arithmetic here.
#pragma once
#include "lgr/conv_grad.h"
#include "ops/image.h"

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

// Which gradients are wanted, as bits, and the tensors for them: x channels last, w like the weight.
enum { LGR_WANT_X = 1, LGR_WANT_W = 2, LGR_WANT_B = 4 };
struct ConvGradients {
    Tensor x, w, b;
    // dy: [n, o, oh, ow], or [n, o, ow]; fresh_weight(): a tensor like the weight, whose strides are w's.
    template <class Fresh>
    ConvGradients(const char *op, lgr_conv_grad &g, const Tensor &dy, const Image &w_sizes,
                  int64_t want, Fresh &&fresh_weight)
        : x(want & LGR_WANT_X ? fresh_image(g.p.n, g.p.c, g.p.h, g.p.w, dy.dim(), kFloat())
                              : absent(kFloat())),
          w(want & LGR_WANT_W ? fresh_weight() : absent(kFloat())),
          b(want & LGR_WANT_B ? fresh_1d(g.p.o, kFloat()) : absent(kFloat())) {
        const Image d = Image::of(dy);
        const int64_t oh = lgr_conv_out_h(&g.p), ow = lgr_conv_out_w(&g.p);
        STD_TORCH_CHECK(dy.scalar_type() == ScalarType::Float, op, ": dy must be float32");
        STD_TORCH_CHECK(d.n == g.p.n && d.c == g.p.o && d.h == oh && d.w == ow, op,
                        ": dy must have the shape of the result, ", g.p.n, " x ", g.p.o, " x ", oh,
                        " x ", ow);
        g.dy = dy.const_data_ptr<float>();
        g.ds_n = d.step_n, g.ds_o = d.step_c, g.ds_h = d.step_h, g.ds_w = d.step_w;
        g.ws_o = w_sizes.step_n, g.ws_c = w_sizes.step_c;
        g.ws_h = w_sizes.step_h, g.ws_w = w_sizes.step_w;
        if (want & LGR_WANT_X) g.gx = x.mutable_data_ptr<float>();
        if (want & LGR_WANT_W) g.gw = w.mutable_data_ptr<float>();
        if (want & LGR_WANT_B) g.gb = b.mutable_data_ptr<float>();
        run_conv_grad(g, op);
    }
    std::tuple<Tensor, Tensor, Tensor> all() const { return {x, w, b}; }

  private:
    static int32_t kFloat() { return aoti_torch_dtype_float32(); }
};
} // namespace lgr

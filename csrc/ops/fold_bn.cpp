// fold_bn.cpp - batch normalisation folded into weights, and its gradients. No arithmetic here.
#include "lgr/fold_bn.h"
#include "lgr/fold_bn_cuda.h"
#include "ops/clamp.h"
#include "ops/box.h"

namespace {
using lgr::ScalarType;
using lgr::Tensor;
using OptTensor = std::optional<Tensor>;

// Checked, contiguous inputs; they stay alive while the kernel reads them.
struct Fold {
    Tensor w, mean, var;
    OptTensor bias, gamma, beta;
    lgr_fold_bn_params p = {};
    int64_t channels = 0;

    Fold(const Tensor &weight, const OptTensor &b, const OptTensor &g, const OptTensor &bt,
         const Tensor &m, const Tensor &v, double eps, int64_t groups, bool transposed)
        : w(lgr::contiguous(weight)), mean(m), var(v) {
        STD_TORCH_CHECK(w.dim() >= 2, "fold_bn: w must have at least 2 dimensions, got ", w.dim());
        STD_TORCH_CHECK(w.scalar_type() == ScalarType::Float, "fold_bn: w must be float32");
        STD_TORCH_CHECK(groups >= 1 && w.size(0) % groups == 0, "fold_bn: groups must divide ",
                        w.size(0), ", got ", groups);
        STD_TORCH_CHECK(eps >= 0.0, "fold_bn: eps must be >= 0, got ", eps);
        int64_t inner = 1;
        for (int64_t d = 2; d < w.dim(); ++d) inner *= w.size(d);
        p.groups = transposed ? groups : 1;
        p.n_in = transposed ? w.size(0) / groups : 1;
        p.per_group = transposed ? w.size(1) : w.size(0);
        p.inner = transposed ? inner : inner * w.size(1);
        p.eps = eps;
        channels = p.groups * p.per_group;
        mean = vector(m, "mean");
        var = vector(v, "var");
        if (b) bias = vector(*b, "bias");
        if (g) gamma = vector(*g, "gamma");
        if (bt) beta = vector(*bt, "beta");
    }
    Tensor vector(const Tensor &t, const char *name) const {
        STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float && t.numel() == channels,
                        "fold_bn: ", name, " must be float32 with ", channels, " elements, got ",
                        t.numel());
        lgr::same_device("fold_bn", w, {{name, t}});
        return lgr::contiguous(t);
    }
    static const float *data(const OptTensor &t) {
        return t ? t->const_data_ptr<float>() : nullptr;
    }
    lgr_fold_bn_in in() const {
        return {w.const_data_ptr<float>(),
                data(bias),
                data(gamma),
                data(beta),
                mean.const_data_ptr<float>(),
                var.const_data_ptr<float>()};
    }
    int64_t grain() const { return 2 * lgr::kBlock / (p.n_in * p.inner + 1) + 1; }
};

using Folded = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Folded fold_on_gpu(const Fold &f, const Tensor &wf, const Tensor &bf, double clamp_weight,
                   double clamp_factor, double clamp_bias) {
    const bool mean = !(clamp_weight > 0.0) && clamp_factor > 0.0;
    const Tensor sums =
        lgr::fresh_1d(mean ? f.channels : 0, aoti_torch_dtype_float64(), lgr::place_of(f.w));
    const lgr_fold_bn_in in = f.in();
    const lgr::DeviceQueue queue(f.w);
    lgr::check(
        lgr_fold_bn_f32_cuda(&f.p, &in, wf.mutable_data_ptr<float>(), bf.mutable_data_ptr<float>(),
                             mean ? sums.mutable_data_ptr<double>() : nullptr, queue.stream()),
        "fold_bn");
    Tensor w_mask = lgr::scratch_at(f.w, 0), b_mask = lgr::scratch_at(f.w, 0);
    OptTensor limit;
    if (mean) limit = lgr::mean_limit_on_gpu(f.w, clamp_factor, &sums, "fold_bn");
    if (clamp_weight > 0.0 || mean)
        w_mask = lgr::clamp_on_gpu(wf, static_cast<float>(clamp_weight), lgr::data_at<float>(limit),
                                   wf, "fold_bn");
    if (clamp_bias > 0.0)
        b_mask = lgr::clamp_on_gpu(bf, static_cast<float>(clamp_bias), nullptr, bf, "fold_bn");
    return {wf, bf, w_mask, b_mask};
}

Folded fold_bn(const Tensor &w, const OptTensor &b, const OptTensor &gamma, const OptTensor &beta,
               const Tensor &mean, const Tensor &var, double eps, int64_t groups, bool transposed,
               double clamp_weight, double clamp_factor, double clamp_bias) {
    const Fold f(w, b, gamma, beta, mean, var, eps, groups, transposed);
    const Tensor wf = lgr::fresh_like(f.w, aoti_torch_dtype_float32());
    const Tensor bf = lgr::fresh_1d(f.channels, aoti_torch_dtype_float32(), lgr::place_of(f.w));
    LGR_ON_GPU(f.w) return fold_on_gpu(f, wf, bf, clamp_weight, clamp_factor, clamp_bias);
    std::vector<double> sums(static_cast<size_t>(f.channels));
    const lgr_fold_bn_in in = f.in();
    const lgr_fold_bn_params p = f.p;
    float *wp = wf.mutable_data_ptr<float>(), *bp = bf.mutable_data_ptr<float>();
    double *sp = sums.data();
    lgr::for_range(f.channels, f.grain(), "fold_bn", [=](int64_t from, int64_t to) {
        return lgr_fold_bn_f32(&p, &in, from, to, wp, bp, sp);
    });
    Tensor w_mask = lgr::absent(aoti_torch_dtype_uint8()),
           b_mask = lgr::absent(aoti_torch_dtype_uint8());
    if (clamp_weight > 0.0 || clamp_factor > 0.0) {
        const float limit = clamp_weight > 0.0
                                ? static_cast<float>(clamp_weight)
                                : lgr_mean_limit(sp, f.channels, f.w.numel(), clamp_factor);
        w_mask = lgr::clamp_into(
            wf, limit == limit ? limit : std::numeric_limits<float>::infinity(), wf, "fold_bn");
    }
    if (clamp_bias > 0.0)
        b_mask = lgr::clamp_into(bf, static_cast<float>(clamp_bias), bf, "fold_bn");
    return {wf, bf, w_mask, b_mask};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>
fold_bn_backward(const Tensor &gw, const Tensor &gb, const Tensor &w, const OptTensor &b,
                 const OptTensor &gamma, const Tensor &mean, const Tensor &var,
                 const Tensor &w_mask, const Tensor &b_mask, double eps, int64_t groups,
                 bool transposed) {
    const Fold f(w, b, gamma, std::nullopt, mean, var, eps, groups, transposed);
    STD_TORCH_CHECK(lgr::same_sizes(gw, w) && gb.numel() == f.channels,
                    "fold_bn_backward: gw and gb must have the shapes of w and mean");
    STD_TORCH_CHECK(w_mask.numel() == 0 || w_mask.numel() == lgr_mask_bytes(w.numel()),
                    "fold_bn_backward: w_mask has a wrong size");
    STD_TORCH_CHECK(b_mask.numel() == 0 || b_mask.numel() == lgr_mask_bytes(f.channels),
                    "fold_bn_backward: b_mask has a wrong size");
    const Tensor gwc = lgr::contiguous(gw), gbc = lgr::contiguous(gb);
    const int32_t f32 = aoti_torch_dtype_float32();
    lgr::same_device("fold_bn_backward", f.w,
                     {{"gw", gw}, {"gb", gb}, {"w_mask", w_mask}, {"b_mask", b_mask}});
    const auto vector = [&] { return lgr::fresh_1d(f.channels, f32, lgr::place_of(f.w)); };
    const Tensor dw = lgr::fresh_like(f.w, f32), db = vector(), dgamma = vector(), dbeta = vector(),
                 dmean = vector(), dvar = vector();
    lgr_fold_bn_grad g = {};
    g.gw = gwc.const_data_ptr<float>();
    g.gb = gbc.const_data_ptr<float>();
    if (w_mask.numel()) g.w_mask = w_mask.const_data_ptr<uint8_t>();
    if (b_mask.numel()) g.b_mask = b_mask.const_data_ptr<uint8_t>();
    g.w = dw.mutable_data_ptr<float>();
    g.bias = db.mutable_data_ptr<float>();
    g.gamma = dgamma.mutable_data_ptr<float>();
    g.beta = dbeta.mutable_data_ptr<float>();
    g.mean = dmean.mutable_data_ptr<float>();
    g.var = dvar.mutable_data_ptr<float>();
    const lgr_fold_bn_in in = f.in();
    const lgr_fold_bn_params p = f.p;
    LGR_ON_GPU(f.w) {
        const lgr::DeviceQueue queue(f.w);
        lgr::check(lgr_fold_bn_backward_f32_cuda(&p, &in, &g, queue.stream()), "fold_bn_backward");
        return {dw, db, dgamma, dbeta, dmean, dvar};
    }
    lgr::for_range(f.channels, f.grain(), "fold_bn_backward", [=](int64_t from, int64_t to) {
        return lgr_fold_bn_backward_f32(&p, &in, from, to, &g);
    });
    return {dw, db, dgamma, dbeta, dmean, dvar};
}
} // namespace

LGR_OPERATORS(
    {"fold_bn(Tensor w, Tensor? b, Tensor? gamma, Tensor? beta, Tensor mean, Tensor var, "
     "float eps, int groups, "
     "bool transposed, float clamp_weight, float clamp_factor, float clamp_bias) -> "
     "(Tensor w_folded, Tensor b_folded, Tensor w_mask, Tensor b_mask)",
     LGR_BOX(fold_bn)},
    {"fold_bn_backward(Tensor gw, Tensor gb, Tensor w, Tensor? b, Tensor? gamma, Tensor mean, "
     "Tensor var, "
     "Tensor w_mask, Tensor b_mask, float eps, int groups, bool transposed) -> "
     "(Tensor gw_in, Tensor gb_in, Tensor ggamma, Tensor gbeta, Tensor gmean, Tensor gvar)",
     LGR_BOX(fold_bn_backward)});

// gru.cpp - one direction of a GRU layer on codes, and its gradients. No arithmetic here.
#include "lgr/gru.h"
#include "ops/recurrent_gpu.h"
#include "ops/recurrent_results.h"

namespace {
using lgr::OptTensor;
using lgr::Tensor;

constexpr int kOrder[] = {0, 1, 2};       // r z n: W_ih
constexpr int kHidden[] = {2, 0, 1};      // n r z: W_hh
constexpr int kBiasInput[] = {1, 2, 3};   // planes of db: n of W_hh, r, z, n of W_ih
constexpr int kBiasHidden[] = {1, 2, 0};

// value, codes, scale, h_n, its codes, peak, saved, codes of h0
using Results = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Results gru(const lgr::RecurrentOperands &operands, const OptTensor &b_ih, const OptTensor &b_hh,
            const Tensor &h_scale, const OptTensor &h0, const lgr::RecurrentWalk &walk, bool save) {
    LGR_ON_GPU(operands.x) {
        const lgr::RecurrentOnGpu layer("gru", 3, operands, h_scale, walk);
        const auto r = layer.forward(b_ih, b_hh, h0, std::nullopt, save);
        return {r.value, r.codes, r.scale, r.h, r.h_codes, r.peak, r.saved, r.h0_codes};
    }
    lgr::Recurrent layer("gru", 3, operands, h_scale, walk);
    const Tensor h_given = layer.state(h0, layer.p.q_h, 8);
    const lgr_recurrent_weights w = layer.pack(b_ih, b_hh);
    lgr::RecurrentResults out(layer, save);
    if (!layer.nan) {
        lgr_gru_io io = {};
        out.bind(io, layer, h_given);
        out.run(layer, w, io, lgr_gru_forward, "gru");
    }
    return {out.value, out.codes, out.scale, out.h, out.h_codes, out.peak, out.saved, h_given};
}

// dx, dw_ih, dw_hh, db_ih, db_hh, dh0, slope sum
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients gru_backward(const OptTensor &dy, const OptTensor &dhn,
                       const lgr::RecurrentOperands &operands, const Tensor &h_scale,
                       const Tensor &h0, const Tensor &codes, const Tensor &saved,
                       const lgr::RecurrentWalk &walk, bool want_x, bool want_slope) {
    LGR_ON_GPU(operands.x) {
        const lgr::RecurrentOnGpu layer("gru_backward", 3, operands, h_scale, walk);
        const Tensor none = lgr::absent(aoti_torch_dtype_int32(), lgr::place_of(operands.x));
        const auto g = layer.backward({dy, dhn, std::nullopt, h0, none, codes, saved});
        const Tensor of_x = layer.planes(g, 1, 3), sums = layer.total(of_x); // r z n
        const auto [dw, db] = layer.hidden_gradients(g);
        return {layer.dx(of_x, want_x),
                layer.product(of_x, layer.inputs()),
                dw,
                sums,
                db,
                g.dh0,
                g.slope};
    }
    const lgr::Recurrent layer("gru_backward", 3, operands, h_scale, walk);
    lgr::RecurrentBackward both(layer, kOrder, kHidden, want_x);
    double slope = 0.0;
    if (layer.nan || saved.numel() == 0) {
        both.none();
    } else {
        lgr_gru_grad g = {};
        both.bind(g, dy, dhn, h0, codes, saved, "gru_backward");
        slope = both.run(g, want_slope, lgr_gru_backward, lgr_gru_sums);
    }
    return {both.dx,
            both.matrix(false),
            both.matrix(true),
            both.bias(kBiasInput),
            both.bias(kBiasHidden),
            both.dh0,
            lgr::scalar_of(static_cast<float>(slope))};
}
} // namespace

LGR_OPERATORS({"gru(" LGR_RECURRENT_SCHEMA
               "Tensor? b_ih, Tensor? b_hh, Tensor h_scale, Tensor? h0, " LGR_WALK_SCHEMA
               ", bool save) -> (Tensor value, Tensor codes, Tensor scale, Tensor h_n, "
               "Tensor h_codes, Tensor peak, Tensor saved, Tensor h0_codes)",
               LGR_BOX(gru)},
              {"gru_backward(Tensor? dy, Tensor? dhn, " LGR_RECURRENT_SCHEMA
               "Tensor h_scale, Tensor h0, Tensor codes, Tensor saved, " LGR_WALK_SCHEMA
               ", bool want_x, bool want_slope) -> (Tensor dx, Tensor dw_ih, Tensor dw_hh, "
               "Tensor db_ih, Tensor db_hh, Tensor dh0, Tensor slope)",
               LGR_BOX(gru_backward)});

// lstm.cpp - one direction of an LSTM layer on codes, and its gradients. No arithmetic here.
#include "lgr/lstm.h"
#include "ops/recurrent_gpu.h"
#include "ops/recurrent_results.h"

namespace {
using lgr::OptTensor;
using lgr::Tensor;

constexpr int kOrder[] = {0, 1, 2, 3};

// value, codes, scale, h_n, its codes, c_n, its codes, peak, saturated, saved, codes of h0 and c0
using Results = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                           Tensor, Tensor, Tensor>;

Results lstm(const lgr::RecurrentOperands &operands, const OptTensor &b_ih, const OptTensor &b_hh,
             const Tensor &h_scale, const OptTensor &h0, const OptTensor &c0,
             const lgr::RecurrentWalk &walk, bool save) {
    LGR_ON_GPU(operands.x) {
        const lgr::RecurrentOnGpu layer("lstm", 4, operands, h_scale, walk);
        const auto r = layer.forward(b_ih, b_hh, h0, c0, save);
        return {r.value,    r.codes, r.scale,      r.h,     r.h_codes,  *r.c,
                *r.c_codes, r.peak,  *r.saturated, r.saved, r.h0_codes, *r.c0_codes};
    }
    lgr::Recurrent layer("lstm", 4, operands, h_scale, walk);
    const lgr_recurrent &p = layer.p;
    const lgr_lstm_cell cell = lgr_lstm_cell_format(p.chip);
    const Tensor h_given = layer.state(h0, p.q_h, 8),
                 c_given = layer.state(c0, cell.exp2, cell.bits);
    const lgr_recurrent_weights w = layer.pack(b_ih, b_hh);
    lgr::RecurrentResults out(layer, save);
    Tensor cn = layer.states(aoti_torch_dtype_int32()),
           cv = layer.states(aoti_torch_dtype_float32()), saturated = lgr::zeroed_count();
    if (layer.nan) {
        lgr::zeroed(cn);
        lgr::filled(cv, lgr_exp2_scale(LGR_EXP2_NAN));
    } else {
        lgr_lstm_io io = {};
        out.bind(io, layer, h_given);
        io.c0 = lgr::data_or_null<int32_t>(c_given);
        io.cn = cn.mutable_data_ptr<int32_t>();
        const lgr_recurrent_seen seen = out.run(layer, w, io, lgr_lstm_forward, "lstm");
        *saturated.mutable_data_ptr<int64_t>() = seen.saturated;
        lgr::check(
            lgr_dequantize_s32_f32(io.cn, cn.numel(), cell.exp2, cv.mutable_data_ptr<float>()),
            "lstm");
    }
    return {out.value, out.codes, out.scale, out.h,     out.h_codes, cv,
            cn,        out.peak,  saturated, out.saved, h_given,     c_given};
}

// dx, dw_ih, dw_hh, db, dh0, dc0, slope sum
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients lstm_backward(const OptTensor &dy, const OptTensor &dhn, const OptTensor &dcn,
                        const lgr::RecurrentOperands &operands, const Tensor &h_scale,
                        const Tensor &h0, const Tensor &c0, const Tensor &codes,
                        const Tensor &saved, const lgr::RecurrentWalk &walk, bool want_x,
                        bool want_slope) {
    LGR_ON_GPU(operands.x) {
        const lgr::RecurrentOnGpu layer("lstm_backward", 4, operands, h_scale, walk);
        const auto g = layer.backward({dy, dhn, dcn, h0, c0, codes, saved});
        const Tensor gates = layer.planes(g, 0, 4);
        return {layer.dx(gates, want_x),
                layer.product(gates, layer.inputs()),
                layer.product(gates, g.before),
                layer.total(gates),
                g.dh0,
                g.dc0,
                g.slope};
    }
    const lgr::Recurrent layer("lstm_backward", 4, operands, h_scale, walk);
    lgr::RecurrentBackward both(layer, kOrder, kOrder, want_x);
    Tensor dc0 = layer.states(aoti_torch_dtype_float32());
    double slope = 0.0;
    if (layer.nan || saved.numel() == 0) {
        both.none();
        lgr::zeroed(dc0);
    } else {
        lgr_lstm_grad g = {};
        both.bind(g, dy, dhn, h0, codes, saved, "lstm_backward");
        const Tensor kept_c0 = layer.kept_state(c0, lgr::ScalarType::Int);
        const OptTensor cn = lgr::dense_or_none(dcn);
        STD_TORCH_CHECK(!cn || cn->numel() == dc0.numel(),
                        "lstm_backward: a gradient does not fit its result");
        g.c0 = lgr::data_or_null<int32_t>(kept_c0);
        g.dcn = lgr::data_or_null<float>(cn);
        g.dc0 = dc0.mutable_data_ptr<float>();
        slope = both.run(g, want_slope, lgr_lstm_backward, lgr_lstm_sums);
    }
    return {both.dx,
            both.matrix(false),
            both.matrix(true),
            both.bias(kOrder),
            both.dh0,
            dc0,
            lgr::scalar_of(static_cast<float>(slope))};
}
} // namespace

LGR_OPERATORS({"lstm(" LGR_RECURRENT_SCHEMA
               "Tensor? b_ih, Tensor? b_hh, Tensor h_scale, Tensor? h0, "
               "Tensor? c0, " LGR_WALK_SCHEMA ", bool save) -> "
               "(Tensor value, Tensor codes, Tensor scale, Tensor h_n, Tensor h_codes, Tensor c_n, "
               "Tensor c_codes, Tensor peak, Tensor saturated, Tensor saved, "
               "Tensor h0_codes, Tensor c0_codes)",
               LGR_BOX(lstm)},
              {"lstm_backward(Tensor? dy, Tensor? dhn, Tensor? dcn, " LGR_RECURRENT_SCHEMA
               "Tensor h_scale, Tensor h0, Tensor c0, Tensor codes, Tensor saved, " LGR_WALK_SCHEMA
               ", bool want_x, bool want_slope) -> "
               "(Tensor dx, Tensor dw_ih, Tensor dw_hh, Tensor db, Tensor dh0, Tensor dc0, "
               "Tensor slope)",
               LGR_BOX(lstm_backward)});

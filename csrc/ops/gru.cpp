// gru.cpp - one direction of a GRU layer on codes, and its gradients. No arithmetic here.
#include "lgr/gru.h"
#include "ops/recurrent.h"

namespace {
using lgr::OptTensor;
using lgr::Tensor;

constexpr int kOrder[] = {0, 1, 2};       // r z n: W_ih
constexpr int kHidden[] = {2, 0, 1};      // n r z: W_hh
constexpr int kBiasInput[] = {1, 2, 3};   // planes of db: n of W_hh, r, z, n of W_ih
constexpr int kBiasHidden[] = {1, 2, 0};

// value, codes, scale, h_n, its codes, peak, saved, codes of h0
using Results = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Results gru(const Tensor &x, const Tensor &x_scale, const Tensor &w_ih, const Tensor &ih_scale,
            const Tensor &w_hh, const Tensor &hh_scale, const OptTensor &b_ih,
            const OptTensor &b_hh, const Tensor &h_scale, const OptTensor &h0,
            const Tensor &offsets, const Tensor &counts, int64_t chip, bool reverse, int64_t batch,
            int64_t stride, bool save) {
    lgr::Recurrent layer("gru", 3,
                         {x, w_ih, w_hh, lgr::exp2_of(x_scale, "gru"),
                          lgr::exp2_of(ih_scale, "gru"), lgr::exp2_of(hh_scale, "gru"),
                          lgr::exp2_of(h_scale, "gru"), offsets, counts, chip, reverse, batch,
                          stride});
    const lgr_recurrent &p = layer.p;
    const int32_t f32 = aoti_torch_dtype_float32(), s8 = aoti_torch_dtype_int8();
    const Tensor h_codes = layer.state(h0, p.q_h, 8);
    const lgr_recurrent_weights w = layer.pack(b_ih, b_hh);
    Tensor value = layer.rows_like(f32), codes = layer.rows_like(s8), hn = layer.states(s8),
           hv = layer.states(f32);
    Tensor saved = layer.saved(save);
    const float none = lgr_exp2_scale(LGR_EXP2_NAN);
    if (layer.nan)
        return {lgr::filled(value, none),
                lgr::zeroed(codes),
                lgr::scale_of(LGR_EXP2_NAN),
                lgr::filled(hv, none),
                lgr::zeroed(hn),
                lgr::scalar_of(none),
                saved,
                h_codes};
    if (layer.leaves_rows()) { // rows that no step writes
        lgr::zeroed(value);
        lgr::zeroed(codes);
    }
    const lgr_gru_io io = {layer.x(),
                           lgr::data_or_null<int8_t>(h_codes),
                           codes.mutable_data_ptr<int8_t>(),
                           value.mutable_data_ptr<float>(),
                           hn.mutable_data_ptr<int8_t>(),
                           save ? saved.mutable_data_ptr() : nullptr};
    const lgr_recurrent_seen seen =
        layer.forward([&](int32_t r0, int32_t r1, void *scratch, lgr_recurrent_seen *mine) {
            lgr_gru_forward(layer.engine, &p, &w, &io, r0, r1, scratch, mine);
        });
    lgr::check(lgr_dequantize_s8_f32(io.hn, hn.numel(), p.q_h, hv.mutable_data_ptr<float>()),
               "gru");
    return {value, codes,  lgr::scale_of(p.q_h),
            hv,    hn,     lgr::scalar_of(lgr_float_from_bits(seen.peak)),
            saved, h_codes};
}

// dx, dw_ih, dw_hh, db_ih, db_hh, dh0, slope sum
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients gru_backward(const OptTensor &dy, const OptTensor &dhn, const Tensor &x,
                       const Tensor &x_scale, const Tensor &w_ih, const Tensor &ih_scale,
                       const Tensor &w_hh, const Tensor &hh_scale, const Tensor &h_scale,
                       const Tensor &h0, const Tensor &codes, const Tensor &saved,
                       const Tensor &offsets, const Tensor &counts, int64_t chip, bool reverse,
                       int64_t batch, int64_t stride, bool want_x, bool want_slope) {
    const int32_t ex = lgr::exp2_of(x_scale, "gru"), e_ih = lgr::exp2_of(ih_scale, "gru"),
                  e_hh = lgr::exp2_of(hh_scale, "gru"), e_h = lgr::exp2_of(h_scale, "gru");
    const lgr::Recurrent layer(
        "gru_backward", 3,
        {x, w_ih, w_hh, ex, e_ih, e_hh, e_h, offsets, counts, chip, reverse, batch, stride});
    const lgr_recurrent &p = layer.p;
    const int32_t f32 = aoti_torch_dtype_float32();
    const int64_t hp = layer.blocks * LGR_UNITS, h3 = 3 * int64_t{p.h},
                  fi = lgr_recurrent_panel_floats(3, p.h, p.d),
                  fh = lgr_recurrent_panel_floats(3, p.h, p.h);
    Tensor dx = want_x ? lgr::fresh_like(lgr::contiguous(x), f32) : lgr::absent(f32),
           dh0 = layer.states(f32);
    if (layer.nan || saved.numel() == 0) { // a NaN passes no gradient
        const int64_t wi[] = {h3, p.d}, wh[] = {h3, p.h};
        return {lgr::zeroed(dx),
                lgr::zeroed(lgr::fresh(wi, 2, f32)),
                lgr::zeroed(lgr::fresh(wh, 2, f32)),
                lgr::zeroed(lgr::fresh_1d(h3, f32)),
                lgr::zeroed(lgr::fresh_1d(h3, f32)),
                lgr::zeroed(dh0),
                lgr::scalar_of(0.0f)};
    }
    const Tensor kept_codes = layer.kept(codes, p.rows * p.h, false),
                 kept_saved = layer.kept_saved(saved),
                 kept_h0 = layer.kept(h0, int64_t{p.batch} * p.h, true);
    const OptTensor y = lgr::dense_or_none(dy), hn = lgr::dense_or_none(dhn);
    STD_TORCH_CHECK((!y || y->numel() == codes.numel()) && (!hn || hn->numel() == dh0.numel()),
                    "gru_backward: a gradient does not fit its result");
    Tensor ph = layer.panels(true, kHidden, e_hh),
           pi = want_x ? layer.panels(false, kOrder, e_ih) : lgr::absent(f32);
    if (want_x && layer.leaves_rows()) lgr::zeroed(dx);
    lgr_gru_grad g = {};
    g.x = layer.x();
    g.y = kept_codes.const_data_ptr<int8_t>();
    g.h0 = lgr::data_or_null<int8_t>(kept_h0);
    g.saved = kept_saved.const_data_ptr();
    g.inv_x = lgr_exp2_scale(-ex);
    g.inv_h = lgr_exp2_scale(-e_h);
    g.w_ih = lgr::data_or_null<float>(pi);
    g.w_hh = ph.const_data_ptr<float>();
    g.dy = lgr::data_or_null<float>(y);
    g.dhn = lgr::data_or_null<float>(hn);
    g.dx = want_x ? dx.mutable_data_ptr<float>() : nullptr;
    g.dh0 = dh0.mutable_data_ptr<float>();
    Tensor sums = layer.accumulator(fi + fh + 4 * hp);
    g.dw_ih = sums.mutable_data_ptr<float>();
    g.dw_hh = g.dw_ih + fi;
    g.db = g.dw_hh + fh;
    const double slope = layer.backward(
        [&](const lgr_recurrent_chunk *c, int32_t r0, int32_t r1, double *mine) {
            lgr_gru_grad of = g;
            of.slope = want_slope ? mine : nullptr;
            lgr_gru_backward(layer.engine, &p, &of, c, r0, r1);
        },
        [&](const lgr_recurrent_chunk *c, int64_t b0, int64_t b1) {
            lgr_gru_sums(layer.engine, &p, &g, c, b0, b1);
        });
    ph = pi = lgr::absent(f32); // freed before the gradients are made
    const float *acc = sums.const_data_ptr<float>();
    return {dx,
            layer.gradient(false, kOrder, acc, g.inv_x),
            layer.gradient(true, kHidden, acc + fi, g.inv_h),
            layer.bias_gradient(acc + fi + fh, kBiasInput),
            layer.bias_gradient(acc + fi + fh, kBiasHidden),
            dh0,
            lgr::scalar_of(static_cast<float>(slope))};
}
} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(linger, m) {
    m.def("gru(" LGR_RECURRENT_SCHEMA
          "Tensor? b_ih, Tensor? b_hh, Tensor h_scale, Tensor? h0, " LGR_WALK_SCHEMA
          ", bool save) -> (Tensor value, Tensor codes, Tensor scale, Tensor h_n, "
          "Tensor h_codes, Tensor peak, Tensor saved, Tensor h0_codes)");
    m.def("gru_backward(Tensor? dy, Tensor? dhn, " LGR_RECURRENT_SCHEMA
          "Tensor h_scale, Tensor h0, Tensor codes, Tensor saved, " LGR_WALK_SCHEMA
          ", bool want_x, bool want_slope) -> (Tensor dx, Tensor dw_ih, Tensor dw_hh, "
          "Tensor db_ih, Tensor db_hh, Tensor dh0, Tensor slope)");
}
STABLE_TORCH_LIBRARY_IMPL(linger, CPU, m) {
    m.impl("gru", TORCH_BOX(&gru));
    m.impl("gru_backward", TORCH_BOX(&gru_backward));
}

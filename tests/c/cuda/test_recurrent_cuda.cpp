// test_recurrent_cuda.cpp - LSTM and GRU: results, states and what backward needs against the C reference.
#include "kernels/recurrent/recurrent_sizes.h"
#include "lgr/gru.h"
#include "lgr/lstm.h"
#include "lgr/recurrent_cuda.h"
#include "quantized_test.h"

struct net {
    int gates;
    lgr_recurrent p = {};
    std::vector<int64_t> off;
    std::vector<int32_t> n;
    int64_t units;
};
static net some_net()
{
    net k;
    k.gates = chance(2) ? 4 : 3;
    k.p.chip = (int32_t)(random_bits() % 3);
    k.p.steps = (int32_t)pick({1, 2, 5});
    k.p.batch = (int32_t)pick({1, 3, 17});
    k.p.d = (int32_t)pick({1, 5, 20, 33});
    k.p.h = (int32_t)pick({1, 7, 16, 20});
    k.p.reverse = chance(2);
    const bool ragged = chance(2);
    k.p.row_stride = ragged ? 1 : k.p.steps;
    int64_t rows = 0;
    for (int32_t t = 0; t < k.p.steps; ++t) {
        k.n.push_back(ragged ? k.p.batch - t * (k.p.batch - 1) / k.p.steps : k.p.batch);
        k.off.push_back(ragged ? rows : t);
        rows += k.n.back();
    }
    k.p.rows = rows;
    k.units = lgr_padded(k.p.h, LGR_UNITS);
    return k;
}

// Padded units of what is saved are nobody's.
static void forget_padding(const net &k, host<uint8_t> &saved)
{
    const lgr_saved_planes n = lgr_saved(k.p.chip, k.gates);
    const int64_t size = lgr_saved_block(k.p.chip, k.gates), blocks = k.units / LGR_UNITS;
    const int64_t real = k.p.h - (blocks - 1) * LGR_UNITS; // units of the last block
    for (int64_t row = 0; row < k.p.rows; ++row) {
        uint8_t *at = saved.data() + ((row + 1) * blocks - 1) * size;
        for (int plane = 0; plane < n.n32 + n.n16 + n.n8; ++plane) {
            const int bytes = plane < n.n32 ? 4 : plane < n.n32 + n.n16 ? 2 : 1;
            memset(at + real * bytes, 0, (size_t)((LGR_UNITS - real) * bytes));
            at += LGR_UNITS * bytes;
        }
    }
}
template <class T> static void random_codes(host<T> &v)
{
    for (size_t i = 0; i < v.size(); ++i)
        v[(int64_t)i] = (T)((int32_t)(random_bits() % 65536) - 32768);
}

struct scales {
    float x, ih, hh, h;
};

// Gradients of one call: sums over rows and gates of what the kernel gives, against the C reference.
struct backward_call {
    const net &k;
    const host<scales> &s;
    const host<int8_t> &x, &wi, &wh, &y;
    const int8_t *h0;
    const int32_t *c0;
    const host<uint8_t> &saved;
};
static void backward(const backward_call &c, lgr_recurrent_cuda_grad j)
{
    static const int order[] = {0, 1, 2, 3}, hidden[] = {2, 0, 1},
                     planes[2][2][4] = {{{1, 2, 3}, {1, 2, 0}}, {{0, 1, 2, 3}, {0, 1, 2, 3}}};
    const net &k = c.k;
    const lgr_recurrent &p = k.p;
    const bool lstm = k.gates == 4, arcs = !lstm && p.chip == LGR_ARCS;
    const int64_t cells = p.rows * p.h, states = (int64_t)p.batch * p.h, h = p.h, d = p.d,
                  hp = k.units, gh = k.gates * h;
    const int *second = lstm ? order : hidden;
    const int32_t ei = lgr_scale_exp2(c.s.data()->ih), eh = lgr_scale_exp2(c.s.data()->hh);
    const float inv_x = lgr_exp2_scale(-5), inv_h = lgr_exp2_scale(-p.q_h);
    host<float> dy(cells), dhn(states), dcn(states);
    for (int64_t i = 0; i < cells; ++i) dy[i] = random_unit();
    for (int64_t i = 0; i < states; ++i) dhn[i] = random_unit(), dcn[i] = random_unit();
    const bool with_y = !chance(4), with_n = chance(2), with_slope = chance(2);
    // there
    device<float> ddy(cells), ddhn(states), ddcn(states), dg(p.rows * 4 * hp), before(cells),
        reset(cells), dh0(states), dc0(states);
    device<double> parts((p.batch + 15) / 16);
    device<float> slope(1);
    device<int64_t> scratch(lgr_recurrent_cuda_grad_bytes(&p, k.gates) / 8 + 1);
    ddy.put(dy.data());
    ddhn.put(dhn.data());
    ddcn.put(dcn.data());
    if (with_y) j.dy = ddy.data();
    if (with_n) j.dhn = ddhn.data();
    if (with_n && lstm) j.dcn = ddcn.data();
    j.dg = dg.data();
    j.h_before = before.data();
    if (arcs) j.reset = reset.data();
    j.dh0 = dh0.data();
    if (lstm) j.dc0 = dc0.data();
    j.slope_parts = parts.data();
    if (with_slope) j.slope = slope.data();
    j.scratch = scratch.data();
    CHECK((lstm ? lgr_lstm_backward_cuda : lgr_gru_backward_cuda)(&j, nullptr) == LGR_OK);
    const host<float> g = dg.get(), hb = before.get(), rh = reset.get();
    // here
    host<float> pi(lgr_recurrent_panel_floats(k.gates, p.h, p.d)),
        ph(lgr_recurrent_panel_floats(k.gates, p.h, p.h)), ai((int64_t)pi.size()),
        ah((int64_t)ph.size()), db(4 * hp), dx(p.rows * d), dh2(states), dc2(states);
    lgr_recurrent_panels(k.gates, order, c.wi.data(), p.h, p.d, lgr_exp2_scale(-ei), pi.data());
    lgr_recurrent_panels(k.gates, second, c.wh.data(), p.h, p.h, lgr_exp2_scale(-eh), ph.data());
    double sum = 0.0;
    double *const at = with_slope ? &sum : nullptr;
    const float *gy = with_y ? dy.data() : nullptr, *gh_n = with_n ? dhn.data() : nullptr;
    const lgr_lstm_grad l = {c.x.data(),     c.y.data(), c.h0,       c.c0,
                             c.saved.data(), inv_x,      inv_h,      pi.data(),
                             ph.data(),      gy,         gh_n,       with_n ? dcn.data() : nullptr,
                             dx.data(),      dh2.data(), dc2.data(), ai.data(),
                             ah.data(),      db.data(),  at};
    const lgr_gru_grad r = {c.x.data(), c.y.data(), c.h0,      c.saved.data(),
                            inv_x,      inv_h,      pi.data(), ph.data(),
                            gy,         gh_n,       dx.data(), dh2.data(),
                            ai.data(),  ah.data(),  db.data(), at};
    host<int64_t> room(lgr_recurrent_backward_bytes(&p, k.gates, p.batch) / 8 + 8);
    lgr_recurrent_chunk part = lgr_recurrent_chunks(&p, k.gates, 0, p.batch, room.data());
    while (lgr_recurrent_chunk_next(&p, &part)) {
        if (lstm) lgr_lstm_backward(LGR_RECURRENT_REF, &p, &l, &part, 0, p.batch);
        else lgr_gru_backward(LGR_RECURRENT_REF, &p, &r, &part, 0, p.batch);
        if (lstm) lgr_lstm_sums(LGR_RECURRENT_REF, &p, &l, &part, 0, 4 * hp / LGR_UNITS);
        else lgr_gru_sums(LGR_RECURRENT_REF, &p, &r, &part, 0, 4 * hp / LGR_UNITS);
    }
    host<float> wi2(gh * d), wh2(gh * h), wi1(gh * d), wh1(gh * h), db1(4 * hp), dx1(p.rows * d);
    lgr_recurrent_store(k.gates, order, ai.data(), p.h, p.d, inv_x, wi2.data());
    lgr_recurrent_store(k.gates, second, ah.data(), p.h, p.h, inv_h, wh2.data());
    for (int64_t row = 0; row < p.rows; ++row)
        for (int gate = 0; gate < k.gates; ++gate)
            for (int64_t u = 0; u < h; ++u) {
                const float gi = g.data()[(row * 4 + planes[lstm][0][gate]) * hp + u],
                            gr = g.data()[(row * 4 + planes[lstm][1][gate]) * hp + u];
                const float *state = (arcs && gate == 2 ? rh : hb).data() + row * h;
                for (int64_t i = 0; i < d; ++i) {
                    wi1[(gate * h + u) * d + i] += gi * (float)c.x.data()[row * d + i] * inv_x;
                    dx1[row * d + i] +=
                        gi * (float)c.wi.data()[(gate * h + u) * d + i] * lgr_exp2_scale(-ei);
                }
                for (int64_t i = 0; i < h; ++i) wh1[(gate * h + u) * h + i] += gr * state[i];
            }
    for (int64_t row = 0; row < p.rows; ++row)
        for (int64_t i = 0; i < 4 * hp; ++i) db1[i] += g.data()[row * 4 * hp + i];
    CHECK(nearly(dh0, dh2) && nearly(wi1, wi2) && nearly(wh1, wh2) && nearly(db1, db) &&
          nearly(dx1, dx));
    if (lstm) CHECK(nearly(dc0, dc2));
    if (with_slope) {
        const double got = (double)slope.get().data()[0];
        CHECK(fabs(got - sum) <= 1e-4 * (1.0 + fabs(sum)));
    }
}

static void one()
{
    net k = some_net();
    lgr_recurrent &p = k.p;
    const int64_t cells = p.rows * p.h, states = (int64_t)p.batch * p.h,
                  gh = (int64_t)k.gates * p.h;
    const bool lstm = k.gates == 4, venus = p.chip == LGR_VENUS;
    host<scales> s(1);
    s[0] = {lgr_exp2_scale(5), lgr_exp2_scale(6 + (int32_t)(random_bits() % 4)),
            lgr_exp2_scale(6 + (int32_t)(random_bits() % 4)),
            lgr_exp2_scale(6 + (int32_t)(random_bits() % 3))};
    if (chance(8)) s[0].hh = not_a_number();
    host<int8_t> x(p.rows * p.d), wi(gh * p.d), wh(gh * p.h), h0(states);
    host<int32_t> bi(gh), bh(gh), c0(states);
    host<float> b_real(gh), h_real(states), c_real(states);
    fill_bytes(x.data(), (int64_t)x.size());
    fill_bytes(wi.data(), (int64_t)wi.size());
    fill_bytes(wh.data(), (int64_t)wh.size());
    fill_bytes(h0.data(), states);
    random_codes(c0);
    random_codes(bi);
    for (int64_t i = 0; i < gh; ++i) bh[i] = chance(3) ? (int32_t)random_bits() : 77;
    for (int64_t i = 0; i < gh; ++i) b_real[i] = random_unit();
    for (int64_t i = 0; i < states; ++i)
        h_real[i] = 1.5f * random_unit(), c_real[i] = 3.0f * random_unit();
    const bool real_bias = chance(2), with_h0 = chance(2), real_states = chance(2);
    if (chance(10)) b_real[gh - 1] = not_a_number();
    if (chance(10)) h_real[states - 1] = not_a_number();

    // on the device
    device<scales> ds(1);
    device<int64_t> off(p.steps);
    device<int32_t> n(p.steps), dbi(gh), dbh(gh), dc0(states), cn(states), c0_out(states);
    device<int8_t> dx(p.rows * p.d), dwi(gh * p.d), dwh(gh * p.h), dh0(states), y(cells),
        hn(states), h0_out(states);
    device<float> db(gh), dh_real(states), dc_real(states), value(cells), hv(states), cv(states),
        scale(1), peak(1);
    device<int64_t> saturated(1);
    device<uint8_t> saved(lgr_recurrent_saved_bytes(&p, k.gates));
    device<int64_t> scratch(lgr_recurrent_cuda_bytes(&p, k.gates) / 8 + 1);
    ds.put(s.data());
    off.put(k.off.data());
    n.put(k.n.data());
    dx.put(x.data());
    dwi.put(wi.data());
    dwh.put(wh.data());
    dh0.put(h0.data());
    dbi.put(bi.data());
    dbh.put(bh.data());
    dc0.put(c0.data());
    db.put(b_real.data());
    dh_real.put(h_real.data());
    dc_real.put(c_real.data());
    lgr_recurrent_cuda_job j = {};
    j.p = p;
    j.p.off = off.data();
    j.p.n = n.data();
    j.x_scale = &ds.data()->x;
    j.ih_scale = &ds.data()->ih;
    j.hh_scale = &ds.data()->hh;
    j.h_scale = &ds.data()->h;
    j.x = dx.data();
    j.w_ih = dwi.data();
    j.w_hh = dwh.data();
    if (real_bias) j.b_ih.real = db.data();
    else j.b_ih.codes = dbi.data();
    j.b_hh.codes = dbh.data();
    if (with_h0 && real_states) j.h0.real = dh_real.data(), j.c0.real = dc_real.data();
    if (with_h0 && !real_states) j.h0.codes = dh0.data(), j.c0.codes = dc0.data();
    j.y = y.data();
    j.value = value.data();
    j.h_codes = hn.data();
    j.h0_codes = h0_out.data();
    j.h_value = hv.data();
    j.saved = saved.data();
    j.scale = scale.data();
    j.peak = peak.data();
    j.scratch = scratch.data();
    if (lstm) {
        j.c_codes = cn.data();
        j.c0_codes = c0_out.data();
        j.c_value = cv.data();
        j.saturated = saturated.data();
    }
    CHECK((lstm ? lgr_lstm_cuda : lgr_gru_cuda)(&j, nullptr) == LGR_OK);

    // on the CPU, as csrc/ops/recurrent.h runs it
    bool nan = s[0].hh != s[0].hh;
    p.off = k.off.data();
    p.n = k.n.data();
    const int32_t q = lgr_scale_exp2(s[0].h);
    p.q_h = nan ? 7 : q;
    p.exp2_ih = nan ? 0 : 5 + lgr_scale_exp2(s[0].ih);
    p.exp2_hh = nan ? 0 : q + lgr_scale_exp2(s[0].hh);
    host<int32_t> bias_codes(gh);
    lgr_quantize_bias_f32_s32(b_real.data(), gh, p.exp2_ih, bias_codes.data());
    const auto has_nan = [](const host<float> &v) {
        lgr_range r = {0, 0};
        lgr_observe_f32(v.data(), (int64_t)v.size(), &r);
        return r.abs > 0x7f800000;
    };
    nan = nan || (real_bias && has_nan(b_real)) || (with_h0 && real_states && has_nan(h_real));
    const auto state_codes = [&](const host<float> &v, int32_t exp2, int32_t bits, void *to) {
        const lgr_quantize_params how = {exp2, bits, LGR_FLOOR_ADD, 0, 0, 0, 0.0f};
        lgr_quantize_out out = {};
        out.codes = to;
        CHECK(lgr_quantize_f32(v.data(), (int64_t)v.size(), &how, &out, nullptr) == LGR_OK);
    };
    if (real_states) {
        state_codes(h_real, p.q_h, 8, h0.data());
        state_codes(c_real, venus ? 7 : 15, venus ? 16 : 32, c0.data());
    }
    host<int8_t> y2(cells), hn2(states);
    host<float> value2(cells, nan ? not_a_number() : 0.0f),
        hv2(states, nan ? not_a_number() : 0.0f), cv2 = hv2;
    host<int32_t> cn2(states);
    host<uint8_t> saved2((int64_t)lgr_recurrent_saved_bytes(&p, k.gates));
    lgr_recurrent_seen seen = {0, 0};
    if (!nan) {
        const int64_t vectors = k.units * k.gates;
        host<int32_t> v(4 * vectors);
        host<int8_t> packed[2];
        for (int i = 0; i < 2; ++i) {
            const int32_t columns = i ? p.h : p.d;
            packed[i] =
                host<int8_t>(lgr_recurrent_packed_bytes(LGR_RECURRENT_REF, k.gates, p.h, columns));
            lgr_recurrent_pack(LGR_RECURRENT_REF, k.gates, (i ? wh : wi).data(), p.h, columns,
                               packed[i].data(), v.data() + i * vectors);
            const host<int32_t> &b = i ? bh : real_bias ? bias_codes : bi;
            lgr_recurrent_vector(k.gates, b.data(), p.h, v.data() + (2 + i) * vectors);
        }
        const lgr_recurrent_weights w = {
            packed[0].data(),       packed[1].data(),       v.data(), v.data() + vectors,
            v.data() + 2 * vectors, v.data() + 3 * vectors, 1};
        const lgr_lstm_io io = {x.data(),
                                with_h0 ? h0.data() : nullptr,
                                with_h0 ? c0.data() : nullptr,
                                y2.data(),
                                value2.data(),
                                hn2.data(),
                                cn2.data(),
                                saved2.data()};
        const lgr_gru_io gru = {x.data(),   with_h0 ? h0.data() : nullptr,
                                y2.data(),  value2.data(),
                                hn2.data(), saved2.data()};
        host<int64_t> room(lgr_recurrent_forward_bytes(&p, k.gates, p.batch) / 8 + 8);
        if (lstm) lgr_lstm_forward(LGR_RECURRENT_REF, &p, &w, &io, 0, p.batch, room.data(), &seen);
        else lgr_gru_forward(LGR_RECURRENT_REF, &p, &w, &gru, 0, p.batch, room.data(), &seen);
        lgr_dequantize_s8_f32(hn2.data(), states, p.q_h, hv2.data());
        lgr_dequantize_s32_f32(cn2.data(), states, venus ? 7 : 15, cv2.data());
        host<uint8_t> got = saved.get();
        forget_padding(k, got);
        forget_padding(k, saved2);
        CHECK(memcmp(got.data(), saved2.data(), got.size()) == 0);
        CHECK(h0_out == (with_h0 ? h0 : host<int8_t>(states)));
    }
    if (!nan) {
        lgr_recurrent_cuda_grad g = {};
        g.p = j.p;
        g.x_scale = j.x_scale;
        g.ih_scale = j.ih_scale;
        g.hh_scale = j.hh_scale;
        g.h_scale = j.h_scale;
        g.w_hh = j.w_hh;
        g.y = j.y;
        if (with_h0) g.h0 = h0_out.data();
        if (with_h0 && lstm) g.c0 = c0_out.data();
        g.saved = j.saved;
        backward({k, s, x, wi, wh, y2, with_h0 ? h0.data() : nullptr, with_h0 ? c0.data() : nullptr,
                  saved2},
                 g);
    }
    CHECK(y == y2 && value == value2 && hn == hn2 && hv == hv2);
    CHECK(scale == host<float>(1, lgr_exp2_scale(nan ? LGR_EXP2_NAN : p.q_h)));
    CHECK(peak == host<float>(1, nan ? not_a_number() : lgr_float_from_bits(seen.peak)));
    if (lstm) CHECK(cn == cn2 && cv == cv2 && saturated == host<int64_t>(1, seen.saturated));
}

int main()
{
    const int cases = cases_of(60);
    for (int i = 0; i < cases; ++i) one();
    return 0;
}

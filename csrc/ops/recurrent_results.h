// recurrent_results.h - the tensors that LSTM and GRU adapters take and give alike. No arithmetic here.
#pragma once
#include "ops/recurrent.h"

namespace lgr {
template <class T> const T *data_or_null(const Tensor &t) {
    return t.numel() ? t.const_data_ptr<T>() : nullptr;
}
template <class T> const T *data_or_null(const OptTensor &t) {
    return t ? t->const_data_ptr<T>() : nullptr;
}
inline OptTensor dense_or_none(const OptTensor &t) {
    return t ? OptTensor(lgr::contiguous(*t)) : std::nullopt;
}
inline Tensor filled(Tensor t, float v) {
    float *p = t.mutable_data_ptr<float>();
    for (int64_t i = 0, n = t.numel(); i < n; ++i) p[i] = v;
    return t;
}
inline Tensor zeroed(Tensor t) {
    const int64_t n = t.numel();
    if (n)
        memset(t.mutable_data_ptr(), 0,
               static_cast<size_t>(n) * (t.scalar_type() == ScalarType::Char ? 1 : 4));
    return t;
}
// A count, 0.
inline Tensor zeroed_count() {
    Tensor t = fresh_1d(1, aoti_torch_dtype_int64());
    *t.mutable_data_ptr<int64_t>() = 0;
    return t;
}
// A 0-dim float32.
inline Tensor scalar_of(float v) {
    Tensor t = fresh(nullptr, 0, aoti_torch_dtype_float32());
    *t.mutable_data_ptr<float>() = v;
    return t;
}

// What forward returns of both layers.
struct RecurrentResults {
    // Filled where an operand is NaN; rows that no step writes are 0.
    RecurrentResults(const Recurrent &layer, bool save)
        : value(layer.rows_like(aoti_torch_dtype_float32())),
          codes(layer.rows_like(aoti_torch_dtype_int8())),
          scale(scale_of(layer.nan ? LGR_EXP2_NAN : layer.p.q_h)),
          h(layer.states(aoti_torch_dtype_float32())),
          h_codes(layer.states(aoti_torch_dtype_int8())),
          peak(scalar_of(lgr_exp2_scale(LGR_EXP2_NAN))), saved(layer.saved(save)) {
        if (layer.nan || layer.leaves_rows()) zeroed(codes);
        if (layer.nan) {
            filled(value, lgr_exp2_scale(LGR_EXP2_NAN));
            filled(h, lgr_exp2_scale(LGR_EXP2_NAN));
            zeroed(h_codes);
        } else if (layer.leaves_rows()) zeroed(value);
    }
    // Where the kernel writes.
    template <class Io> void bind(Io &io, const Recurrent &layer, const Tensor &h0) {
        io.x = layer.x();
        io.h0 = data_or_null<int8_t>(h0);
        io.y = codes.mutable_data_ptr<int8_t>();
        io.value = value.mutable_data_ptr<float>();
        io.hn = h_codes.mutable_data_ptr<int8_t>();
        io.saved = saved.numel() ? saved.mutable_data_ptr() : nullptr;
    }
    // All entries through forward(engine, p, w, io, r0, r1, scratch, seen); returns what they saw.
    template <class Io, class Forward>
    lgr_recurrent_seen run(const Recurrent &layer, const lgr_recurrent_weights &w, const Io &io,
                           Forward *forward, const char *op) {
        const lgr_recurrent_seen seen =
            layer.forward([&](int32_t r0, int32_t r1, void *scratch, lgr_recurrent_seen *mine) {
                forward(layer.engine, &layer.p, &w, &io, r0, r1, scratch, mine);
            });
        check(lgr_dequantize_s8_f32(h_codes.const_data_ptr<int8_t>(), h_codes.numel(), layer.p.q_h,
                                    h.mutable_data_ptr<float>()),
              op);
        *peak.mutable_data_ptr<float>() = lgr_float_from_bits(seen.peak);
        return seen;
    }

    Tensor value, codes, scale, h, h_codes, peak, saved;
};

// What backward takes and gives of both layers; orders are those of the gates of W_ih and W_hh in the kernel.
class RecurrentBackward {
  public:
    RecurrentBackward(const Recurrent &layer, const int *order, const int *hidden, bool want_x)
        : dx(want_x ? fresh_like(layer.input(), aoti_torch_dtype_float32())
                    : absent(aoti_torch_dtype_float32())),
          dh0(layer.states(aoti_torch_dtype_float32())), layer_(layer), order_(order),
          hidden_(hidden), sums_(absent(aoti_torch_dtype_float32())), pi_(sums_), ph_(sums_),
          codes_(sums_), saved_(sums_), h0_(sums_) {}
    // Fills g from what forward saved and the gradients of its results.
    template <class Grad>
    void bind(Grad &g, const OptTensor &dy, const OptTensor &dhn, const Tensor &h0,
              const Tensor &codes, const Tensor &saved, const char *op) {
        codes_ = layer_.kept_codes(codes);
        saved_ = layer_.kept_saved(saved);
        h0_ = layer_.kept_state(h0, ScalarType::Char);
        dy_ = dense_or_none(dy);
        dhn_ = dense_or_none(dhn);
        STD_TORCH_CHECK((!dy || dy->numel() == codes.numel()) &&
                            (!dhn || dhn->numel() == dh0.numel()),
                        op, ": a gradient does not fit its result");
        ph_ = layer_.panels(true, hidden_);
        if (dx.numel()) pi_ = layer_.panels(false, order_);
        if (layer_.leaves_rows()) zeroed(dx);
        sums_ = layer_.accumulator();
        g.x = layer_.x();
        g.y = codes_.const_data_ptr<int8_t>();
        g.h0 = data_or_null<int8_t>(h0_);
        g.saved = saved_.const_data_ptr();
        g.inv_x = lgr_exp2_scale(-layer_.ex);
        g.inv_h = lgr_exp2_scale(-layer_.e_h);
        g.w_ih = data_or_null<float>(pi_);
        g.w_hh = ph_.const_data_ptr<float>();
        g.dy = data_or_null<float>(dy_);
        g.dhn = data_or_null<float>(dhn_);
        g.dx = dx.numel() ? dx.mutable_data_ptr<float>() : nullptr;
        g.dh0 = dh0.mutable_data_ptr<float>();
        g.dw_ih = sums_.mutable_data_ptr<float>();
        g.dw_hh = g.dw_ih + layer_.sums_of(false);
        g.db = g.dw_hh + layer_.sums_of(true);
    }
    // A NaN passes no gradient.
    void none() {
        zeroed(dx);
        zeroed(dh0);
    }
    // steps(engine, p, g, chunk, r0, r1), then sums(engine, p, g, chunk, b0, b1). Returns the slopes' sum, 0 where not wanted.
    template <class Grad, class Steps, class Sums>
    double run(const Grad &g, bool want_slope, Steps *steps, Sums *sums) {
        const double slope = layer_.backward(
            [&](const lgr_recurrent_chunk *c, int32_t r0, int32_t r1, double *mine) {
                Grad of = g;
                of.slope = want_slope ? mine : nullptr;
                steps(layer_.engine, &layer_.p, &of, c, r0, r1);
            },
            [&](const lgr_recurrent_chunk *c, int64_t b0, int64_t b1) {
                sums(layer_.engine, &layer_.p, &g, c, b0, b1);
            });
        ph_ = pi_ = absent(aoti_torch_dtype_float32()); // before gradients are made
        return slope;
    }
    Tensor matrix(bool hidden) const {
        return layer_.gradient(hidden, hidden ? hidden_ : order_,
                               sums(hidden ? layer_.sums_of(false) : 0));
    }
    Tensor bias(const int *from) const {
        return layer_.bias_gradient(sums(layer_.sums_of(false) + layer_.sums_of(true)), from);
    }

    Tensor dx, dh0;

  private:
    const float *sums(int64_t at) const {
        return sums_.numel() ? sums_.const_data_ptr<float>() + at : nullptr;
    }
    const Recurrent &layer_;
    const int *order_, *hidden_;
    Tensor sums_, pi_, ph_, codes_, saved_, h0_;
    OptTensor dy_, dhn_;
};
} // namespace lgr

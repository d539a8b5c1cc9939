// recurrent_gpu.h - LSTM and GRU layers on a GPU: jobs of the kernels, and the matrix products behind them. No arithmetic here.
#pragma once
#include "lgr/gru.h"
#include "lgr/quantize_cuda.h"
#include "lgr/recurrent_cuda.h"
#include "ops/recurrent_shape.h"

namespace lgr {
// One direction of one layer; nothing is read back, so the kernels make of impossible exponents and offsets what the CPU refuses.
class RecurrentOnGpu : public RecurrentShape {
  public:
    RecurrentOnGpu(const char *op, int gates, const RecurrentOperands &a, const Tensor &h_scale,
                   const RecurrentWalk &walk)
        : RecurrentShape(op, gates, a, walk), x_scale_(scale_at(op, x_, "x_scale", a.x_scale)),
          ih_scale_(scale_at(op, x_, "ih_scale", a.ih_scale)),
          hh_scale_(scale_at(op, x_, "hh_scale", a.hh_scale)),
          h_scale_(scale_at(op, x_, "h_scale", h_scale)) {
        same_device(op, x_,
                    {{"w_ih", w_ih_}, {"w_hh", w_hh_}, {"offsets", offsets_}, {"counts", counts_}});
    }

    // What forward returns; c..., saturated: LSTM.
    struct Results {
        Tensor value, codes, scale, h, h_codes, peak, saved, h0_codes;
        OptTensor c, c_codes, c0_codes, saturated;
    };
    Results forward(const OptTensor &b_ih, const OptTensor &b_hh, const OptTensor &h0,
                    const OptTensor &c0, bool save) const {
        const int32_t f32 = aoti_torch_dtype_float32(), s8 = aoti_torch_dtype_int8(),
                      s32 = aoti_torch_dtype_int32();
        const bool lstm = gates_ == 4;
        const int64_t bytes = save ? saved_bytes() : 0;
        Results r = {rows_like(f32), rows_like(s8),      scalar_at(x_, f32),    states(f32),
                     states(s8),     scalar_at(x_, f32), scratch_at(x_, bytes), given_codes(h0, s8),
                     std::nullopt,   std::nullopt,       std::nullopt,          std::nullopt};
        auto j = job<lgr_recurrent_cuda_job>();
        j.x = x_.const_data_ptr<int8_t>();
        j.w_ih = w_ih_.const_data_ptr<int8_t>();
        const int64_t vector = int64_t{gates_} * p.h, state = int64_t{p.batch} * p.h;
        const OptTensor kept[] = {dense(b_ih), dense(b_hh), dense(h0), dense(c0)};
        for (const OptTensor *t : {&h0, &c0})
            if (*t) check_state(**t);
        j.b_ih = given("a bias", kept[0], vector, ScalarType::Int);
        j.b_hh = given("a bias", kept[1], vector, ScalarType::Int);
        j.h0 = given("a state", kept[2], state, ScalarType::Char);
        j.y = r.codes.mutable_data_ptr<int8_t>();
        j.value = r.value.mutable_data_ptr<float>();
        j.h_codes = r.h_codes.mutable_data_ptr<int8_t>();
        j.h_value = r.h.mutable_data_ptr<float>();
        if (h0) j.h0_codes = r.h0_codes.mutable_data_ptr<int8_t>();
        if (lstm) {
            r.c = states(f32);
            r.c_codes = states(s32);
            r.c0_codes = given_codes(c0, s32);
            r.saturated = fresh_1d(1, aoti_torch_dtype_int64(), place_of(x_));
            j.c0 = given("a state", kept[3], state, ScalarType::Int);
            j.c_codes = r.c_codes->mutable_data_ptr<int32_t>();
            j.c_value = r.c->mutable_data_ptr<float>();
            j.saturated = r.saturated->mutable_data_ptr<int64_t>();
            if (c0) j.c0_codes = r.c0_codes->mutable_data_ptr<int32_t>();
        }
        if (bytes) j.saved = r.saved.mutable_data_ptr();
        j.scale = r.scale.mutable_data_ptr<float>();
        j.peak = r.peak.mutable_data_ptr<float>();
        const Tensor scratch = scratch_at(x_, lgr_recurrent_cuda_bytes(&p, gates_));
        j.scratch = scratch.mutable_data_ptr();
        const DeviceQueue queue(x_);
        check((lstm ? lgr_lstm_cuda : lgr_gru_cuda)(&j, queue.stream()), op_);
        return r;
    }

    struct Backward {
        OptTensor dy, dhn, dcn;
        Tensor h0, c0, codes, saved;
    };
    // Gradients; gates: [rows][plane][h], LSTM i f g o, GRU: n of W_hh, r, z, n of W_ih.
    struct Gradients {
        Tensor gates, before, reset, dh0, dc0, slope;
    };
    Gradients backward(const Backward &b) const {
        const int32_t f32 = aoti_torch_dtype_float32(), f64 = aoti_torch_dtype_float64();
        const bool lstm = gates_ == 4, resets = !lstm && lgr_gru_resets_state(p.chip);
        const Place here = place_of(x_);
        const int64_t hp = (p.h + LGR_UNITS - 1) / LGR_UNITS * LGR_UNITS, cells = p.rows * p.h,
                      all[] = {p.rows, 4, hp}, rows[] = {p.rows, p.h};
        const Tensor dg = fresh(all, 3, f32, here),
                     slopes = fresh_1d((p.batch + 15) / 16, f64, here),
                     scratch = scratch_at(x_, lgr_recurrent_cuda_grad_bytes(&p, gates_));
        Gradients g = {dg,
                       fresh(rows, 2, f32, here),
                       resets ? fresh(rows, 2, f32, here) : absent(f32, here),
                       states(f32),
                       states(f32),
                       scalar_at(x_, f32)};
        const OptTensor dy = dense(b.dy), dhn = dense(b.dhn), dcn = dense(b.dcn);
        for (const OptTensor *t : {&dhn, &dcn})
            STD_TORCH_CHECK(!*t || (*t)->numel() == g.dh0.numel(), op_,
                            ": a gradient does not fit its result");
        STD_TORCH_CHECK(!dy || dy->numel() == cells, op_, ": a gradient does not fit its result");
        const Tensor codes = kept_codes(b.codes), saved = kept_saved(b.saved),
                     h0 = kept_state(b.h0, ScalarType::Char),
                     c0 = kept_state(b.c0, ScalarType::Int);
        auto j = job<lgr_recurrent_cuda_grad>();
        j.y = codes.const_data_ptr<int8_t>();
        if (h0.numel()) j.h0 = h0.const_data_ptr<int8_t>();
        if (c0.numel()) j.c0 = c0.const_data_ptr<int32_t>();
        j.saved = saved.const_data_ptr();
        j.dy = data_at<float>(dy);
        j.dhn = data_at<float>(dhn);
        j.dcn = data_at<float>(dcn);
        j.dg = dg.mutable_data_ptr<float>();
        j.h_before = g.before.mutable_data_ptr<float>();
        if (resets) j.reset = g.reset.mutable_data_ptr<float>();
        j.dh0 = g.dh0.mutable_data_ptr<float>();
        if (lstm) j.dc0 = g.dc0.mutable_data_ptr<float>();
        j.slope_parts = slopes.mutable_data_ptr<double>();
        j.slope = g.slope.mutable_data_ptr<float>();
        j.scratch = scratch.mutable_data_ptr();
        const DeviceQueue queue(x_);
        check((lstm ? lgr_lstm_backward_cuda : lgr_gru_backward_cuda)(&j, queue.stream()), op_);
        g.gates = torch::stable::contiguous(narrowed(g.gates, 2, 0, p.h));
        return g;
    }
    // [rows][count * h] of planes from `first` on.
    Tensor planes(const Gradients &g, int64_t first, int64_t count) const {
        const Tensor some = narrowed(g.gates, 1, first, count);
        return torch::stable::reshape(some, {p.rows, count * p.h});
    }
    static Tensor product(const Tensor &gates, const Tensor &columns) { // gates^T columns
        return torch::stable::matmul(torch::stable::transpose(gates, 0, 1), columns);
    }
    static Tensor total(const Tensor &gates) {
        const int64_t rows[] = {0};
        return torch::stable::sum(gates, torch::headeronly::IntHeaderOnlyArrayRef(rows, 1));
    }
    // GRU: gradients of W_hh and of its bias in the order r z n, whose planes are 1, 2 and 0.
    std::tuple<Tensor, Tensor> hidden_gradients(const Gradients &g) const {
        const int32_t f32 = aoti_torch_dtype_float32();
        const int64_t h = p.h, sizes[] = {3 * h, h};
        const Tensor dw = fresh(sizes, 2, f32, place_of(x_)),
                     db = fresh_1d(3 * h, f32, place_of(x_));
        const Tensor rz = planes(g, 1, 2), n = planes(g, 0, 1);
        put(dw, 0, product(rz, g.before));
        put(dw, 2 * h, product(n, g.reset.numel() ? g.reset : g.before));
        put(db, 0, total(rz));
        put(db, 2 * h, total(n));
        return {dw, db};
    }
    // x in real units, [rows][d].
    Tensor inputs() const { return torch::stable::reshape(real(x_, x_scale_), {p.rows, p.d}); }
    Tensor dx(const Tensor &gates, bool wanted) const {
        if (!wanted) return absent(aoti_torch_dtype_float32(), place_of(x_));
        const Tensor flat = torch::stable::matmul(gates, real(w_ih_, ih_scale_));
        return torch::stable::reshape(flat,
                                      std::vector<int64_t>(x_.sizes().begin(), x_.sizes().end()));
    }

  private:
    template <class Job> Job job() const {
        Job j = {};
        j.p = p;
        j.x_scale = x_scale_;
        j.ih_scale = ih_scale_;
        j.hh_scale = hh_scale_;
        j.h_scale = h_scale_;
        j.w_hh = w_hh_.const_data_ptr<int8_t>();
        return j;
    }
    static Tensor narrowed(Tensor t, int64_t dim, int64_t at, int64_t n) {
        return torch::stable::narrow(t, dim, at, n);
    }
    static void put(const Tensor &to, int64_t at, const Tensor &rows) {
        Tensor part = narrowed(to, 0, at, rows.size(0));
        torch::stable::copy_(part, rows);
    }
    static OptTensor dense(const OptTensor &t) {
        return t ? OptTensor(lgr::contiguous(*t)) : std::nullopt;
    }
    lgr_real_or_codes given(const char *name, const OptTensor &t, int64_t n,
                            ScalarType codes) const {
        lgr_real_or_codes v = {};
        if (!t) return v;
        same_device(op_, x_, {{name, t}});
        STD_TORCH_CHECK(t->numel() == n, op_, ": ", name, " must have ", n, " elements, got ",
                        t->numel());
        const bool real = t->scalar_type() == ScalarType::Float;
        STD_TORCH_CHECK(real || t->scalar_type() == codes, op_, ": ", name,
                        " must be float32, or codes of int8 (h) or int32 (c, biases)");
        if (real) v.real = t->const_data_ptr<float>();
        else v.codes = t->const_data_ptr();
        return v;
    }
    Tensor given_codes(const OptTensor &given, int32_t dtype) const {
        return given ? fresh(given->sizes().data(), given->dim(), dtype, place_of(x_))
                     : absent(dtype, place_of(x_));
    }
    Tensor real(const Tensor &codes, const float *scale) const {
        const Tensor v = fresh_like(codes, aoti_torch_dtype_float32());
        const DeviceQueue queue(x_);
        check(lgr_dequantize_f32_cuda(codes.const_data_ptr(), 1, codes.numel(), scale, 1,
                                      v.mutable_data_ptr<float>(), queue.stream()),
              op_);
        return v;
    }
    const float *x_scale_, *ih_scale_, *hh_scale_, *h_scale_;
};
} // namespace lgr

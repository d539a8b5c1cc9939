// recurrent.h - what the LSTM and GRU adapters share on the CPU: packed weights, states, threads. No arithmetic here.
#pragma once
#include "lgr/quantize.h"
#include "ops/recurrent_shape.h"
#include <cstring>
#include <vector>

namespace lgr {
// The exponent of a power of two, LGR_EXP2_NAN for NaN.
inline int32_t power_of(const Tensor &scale, const char *op, const char *name) {
    const int32_t e = exp2_of(scale, op);
    const float v = *scale.const_data_ptr<float>();
    STD_TORCH_CHECK(v != v || (e != LGR_EXP2_NAN && lgr_exp2_scale(e) == v), op, ": ", name,
                    " must be a power of two, got ", v);
    return e;
}

class Recurrent : public RecurrentShape {
  public:
    Recurrent(const char *op, int gates, const RecurrentOperands &a, const Tensor &h_scale,
              const RecurrentWalk &walk)
        : RecurrentShape(op, gates, a, walk), ex(power_of(a.x_scale, op, "x_scale")),
          e_ih(power_of(a.ih_scale, op, "ih_scale")), e_hh(power_of(a.hh_scale, op, "hh_scale")),
          e_h(power_of(h_scale, op, "h_scale")), nan(ex == LGR_EXP2_NAN || e_ih == LGR_EXP2_NAN ||
                                                     e_hh == LGR_EXP2_NAN || e_h == LGR_EXP2_NAN) {
        p.exp2_ih = nan ? 0 : ex + e_ih;
        p.q_h = nan ? 7 : e_h;
        p.exp2_hh = nan ? 0 : e_h + e_hh;
        STD_TORCH_CHECK(lgr_recurrent_check(&p, gates) == LGR_OK, op,
                        ": offsets and counts must stay inside x (", p.rows, " rows, batch ",
                        p.batch, ", ", p.steps, " steps), and the exponents ", p.exp2_ih, ", ",
                        p.exp2_hh, " (sums), ", p.q_h, " (state) inside what the chip shifts");
        engine = lgr_recurrent_pick();
        blocks = (p.h + LGR_UNITS - 1) / LGR_UNITS;
    }

    const int8_t *x() const { return x_.const_data_ptr<int8_t>(); }
    // For backward; empty where nothing is kept.
    Tensor saved(bool wanted) const {
        return fresh_1d(wanted && !nan ? saved_bytes() : 0, aoti_torch_dtype_uint8());
    }
    // Codes of a given state: int8 or int32 as they are, float32 quantized. Empty: none.
    Tensor state(const OptTensor &given, int32_t exp2, int32_t bits) {
        if (!given) return absent(quantized_dtype(bits));
        const Tensor in = lgr::contiguous(*given);
        check_state(in);
        if (in.scalar_type() != ScalarType::Float) {
            STD_TORCH_CHECK(in.scalar_type() == (bits <= 8 ? ScalarType::Char : ScalarType::Int),
                            op_, ": state codes must be int8 (h) or int32 (c)");
            Tensor copy =
                fresh_like(in, quantized_dtype(bits)); // an output must not be an argument
            memcpy(copy.mutable_data_ptr(), in.const_data_ptr(),
                   static_cast<size_t>(in.numel()) * static_cast<size_t>(code_bytes(in, op_)));
            return copy;
        }
        const Tensor codes = fresh_like(in, quantized_dtype(bits));
        const lgr_quantize_params how = {exp2, bits, LGR_FLOOR_ADD, 0, 0, 0, 0.0f};
        lgr_quantize_out out = {};
        out.codes = codes.mutable_data_ptr();
        lgr_range seen = {0, 0};
        check(lgr_quantize_f32(in.const_data_ptr<float>(), in.numel(), &how, &out, &seen), op_);
        nan = nan || seen.abs > 0x7f800000;
        return codes;
    }
    // Packs weights and biases for the engine; the result lives as long as this object.
    lgr_recurrent_weights pack(const OptTensor &b_ih, const OptTensor &b_hh) {
        const int64_t n = blocks * gates_ * LGR_UNITS;
        vectors_ = fresh_1d(4 * n, aoti_torch_dtype_int32());
        int32_t *v = vectors_.mutable_data_ptr<int32_t>();
        packed_[0] = matrix(w_ih_, p.d, v);
        packed_[1] = matrix(w_hh_, p.h, v + n);
        const int64_t most_i = bias(b_ih, p.exp2_ih, v + 2 * n),
                      most_h = bias(b_hh, p.exp2_hh, v + 3 * n);
        const bool wide =
            most_i + (int64_t{p.d} << 14) > INT32_MAX || most_h + (int64_t{p.h} << 14) > INT32_MAX;
        return {packed_[0].const_data_ptr(),
                packed_[1].const_data_ptr(),
                v,
                v + n,
                v + 2 * n,
                v + 3 * n,
                wide};
    }
    // run(r0, r1, scratch, seen) over all entries; entries are independent, so any split gives the same bits.
    static constexpr int64_t kMostEntries = 64; // their sums stay in the cache
    template <class F> lgr_recurrent_seen forward(F &&run) const {
        std::atomic<int32_t> peak{0};
        std::atomic<int64_t> saturated{0};
        torch::stable::parallel_for(0, p.batch, 4, [&](int64_t b, int64_t e) {
            lgr_recurrent_seen seen = {0, 0};
            for (int64_t at = b; at < e; at += kMostEntries) {
                const auto r0 = static_cast<int32_t>(at),
                           r1 = static_cast<int32_t>(e - at < kMostEntries ? e : at + kMostEntries);
                const int64_t bytes = lgr_recurrent_forward_bytes(&p, gates_, r1 - r0);
                run(r0, r1, thread_scratch(bytes), &seen);
            }
            int32_t cur = peak.load();
            while (seen.peak > cur && !peak.compare_exchange_weak(cur, seen.peak)) {}
            saturated += seen.saturated;
        });
        return {peak.load(), saturated.load()};
    }

    // Groups of entries go backward through a chunk of steps side by side, then blocks of the weight gradients take its sums. Their
    // sizes depend on the batch alone, and rows are summed in order: the number of threads does not change a bit.
    static constexpr int64_t kGroupEntries = 8, kMostTogether = 128, kGrainBlocks = 4;
    // steps(chunk, r0, r1, slope), then sums(chunk, b0, b1) into the accumulator that they share. Returns the slopes' sum.
    template <class Steps, class Sums> double backward(Steps &&steps, Sums &&sums) const {
        double total = 0.0;
        for (int32_t first = 0; first < p.batch; first += kMostTogether) {
            const int32_t left = p.batch - first,
                          n = left < kMostTogether ? left : static_cast<int32_t>(kMostTogether);
            const int64_t wanted = (n + kGroupEntries - 1) / kGroupEntries,
                          size = (n + wanted - 1) / wanted, groups = (n + size - 1) / size;
            std::vector<double> slopes(static_cast<size_t>(groups), 0.0);
            lgr_recurrent_chunk c = lgr_recurrent_chunks(
                &p, gates_, first, n, thread_scratch(lgr_recurrent_backward_bytes(&p, gates_, n)));
            while (lgr_recurrent_chunk_next(&p, &c)) {
                torch::stable::parallel_for(0, groups, 1, [&](int64_t b, int64_t e) {
                    for (int64_t i = b; i < e; ++i) {
                        const auto r0 = static_cast<int32_t>(i * size),
                                   r1 = static_cast<int32_t>(r0 + size < n ? r0 + size : n);
                        steps(&c, first + r0, first + r1, &slopes[static_cast<size_t>(i)]);
                    }
                });
                if (c.rows == 0) continue;
                torch::stable::parallel_for(0, 4 * blocks, kGrainBlocks,
                                            [&](int64_t b, int64_t e) { sums(&c, b, e); });
            }
            for (const double s : slopes) total += s;
        }
        return total;
    }
    // Floats of the accumulator of one matrix.
    int64_t sums_of(bool hidden) const {
        return lgr_recurrent_panel_floats(gates_, p.h, hidden ? p.h : p.d);
    }
    // A zeroed accumulator of both matrices and the biases.
    Tensor accumulator() const {
        const int64_t floats = sums_of(false) + sums_of(true) + 4 * blocks * LGR_UNITS;
        Tensor t = fresh_1d(floats, aoti_torch_dtype_float32());
        memset(t.mutable_data_ptr(), 0, static_cast<size_t>(floats) * sizeof(float));
        return t;
    }
    // Float panels of a matrix, its gates in `order`.
    Tensor panels(bool hidden, const int *order) const {
        const int32_t k = hidden ? p.h : p.d;
        Tensor out =
            fresh_1d(lgr_recurrent_panel_floats(gates_, p.h, k), aoti_torch_dtype_float32());
        const Tensor &w = hidden ? w_hh_ : w_ih_;
        lgr_recurrent_panels(gates_, order, w.const_data_ptr<int8_t>(), p.h, k,
                             lgr_exp2_scale(hidden ? -e_hh : -e_ih), out.mutable_data_ptr<float>());
        return out;
    }
    // Gradient of a matrix from its accumulator; nullptr: 0.
    Tensor gradient(bool hidden, const int *order, const float *sums) const {
        const int64_t k = hidden ? p.h : p.d, sizes[] = {int64_t{gates_} * p.h, k};
        Tensor out = fresh(sizes, 2, aoti_torch_dtype_float32());
        if (sums)
            lgr_recurrent_store(gates_, order, sums, p.h, static_cast<int32_t>(k),
                                lgr_exp2_scale(hidden ? -e_h : -ex), out.mutable_data_ptr<float>());
        else memset(out.mutable_data_ptr(), 0, static_cast<size_t>(out.numel()) * sizeof(float));
        return out;
    }
    // The gradient of a bias: gate g from the blocks at from[g] of its accumulator; nullptr: 0.
    Tensor bias_gradient(const float *sums, const int *from) const {
        Tensor out = fresh_1d(int64_t{gates_} * p.h, aoti_torch_dtype_float32());
        float *to = out.mutable_data_ptr<float>();
        for (int g = 0; g < gates_; ++g)
            if (sums)
                memcpy(to + int64_t{g} * p.h, sums + from[g] * blocks * LGR_UNITS,
                       static_cast<size_t>(p.h) * sizeof(float));
            else memset(to + int64_t{g} * p.h, 0, static_cast<size_t>(p.h) * sizeof(float));
        return out;
    }
    // Whether some rows of x belong to no step: their gradient is 0.
    bool leaves_rows() const {
        int64_t covered = 0;
        for (int32_t t = 0; t < p.steps; ++t) covered += p.n[t];
        return covered != p.rows;
    }

    int32_t ex, e_ih, e_hh, e_h; // exponents, LGR_EXP2_NAN for NaN
    bool nan; // an operand holds a NaN: so does every result
    lgr_recurrent_engine engine;
    int64_t blocks;

  private:
    Tensor matrix(const Tensor &w, int32_t k, int32_t *sums) const {
        Tensor out =
            fresh_1d(lgr_recurrent_packed_bytes(engine, gates_, p.h, k), aoti_torch_dtype_int8());
        lgr_recurrent_pack(engine, gates_, w.const_data_ptr<int8_t>(), p.h, k,
                           out.mutable_data_ptr(), sums);
        return out;
    }
    int64_t bias(const OptTensor &given, int32_t exp2, int32_t *out) {
        if (!given) return lgr_recurrent_vector(gates_, nullptr, p.h, out);
        const Tensor in = lgr::contiguous(*given);
        const int64_t n = int64_t{gates_} * p.h;
        STD_TORCH_CHECK(in.numel() == n, op_, ": a bias must have ", n, " elements, got ",
                        in.numel());
        if (in.scalar_type() == ScalarType::Int)
            return lgr_recurrent_vector(gates_, in.const_data_ptr<int32_t>(), p.h, out);
        STD_TORCH_CHECK(in.scalar_type() == ScalarType::Float, op_,
                        ": a bias must be float32, or int32 codes");
        std::vector<int32_t> codes(static_cast<size_t>(n));
        lgr_range seen = {0, 0};
        check(lgr_observe_f32(in.const_data_ptr<float>(), n, &seen), op_);
        check(lgr_quantize_bias_f32_s32(in.const_data_ptr<float>(), n, exp2, codes.data()), op_);
        nan = nan || seen.abs > 0x7f800000;
        return lgr_recurrent_vector(gates_, codes.data(), p.h, out);
    }

    Tensor vectors_, packed_[2];
};

} // namespace lgr

// recurrent_shape.h - the arguments of LSTM and GRU operators, and their geometry, checked; on every device. No arithmetic here.
#pragma once
#include "lgr/recurrent.h"
#include "ops/output.h"

// The schema text of the weights, and of where the rows of a step are.
#define LGR_RECURRENT_SCHEMA                                                                       \
    "Tensor x, Tensor x_scale, Tensor w_ih, Tensor ih_scale, Tensor w_hh, Tensor hh_scale, "
#define LGR_WALK_SCHEMA                                                                            \
    "Tensor offsets, Tensor counts, int chip, bool reverse, int batch, int stride"

namespace lgr {

// The arguments behind LGR_RECURRENT_SCHEMA and LGR_WALK_SCHEMA.
struct RecurrentOperands {
    Tensor x, x_scale, w_ih, ih_scale, w_hh, hh_scale;
};
struct RecurrentWalk {
    Tensor offsets, counts;
    int64_t chip;
    bool reverse;
    int64_t batch, stride;
};
template <> struct Argument<RecurrentOperands> {
    static constexpr size_t count = 6;
    static RecurrentOperands take(StableIValue *at) {
        using One = Argument<Tensor>;
        return {One::take(at),     One::take(at + 1), One::take(at + 2),
                One::take(at + 3), One::take(at + 4), One::take(at + 5)};
    }
};
template <> struct Argument<RecurrentWalk> {
    static constexpr size_t count = 6;
    static RecurrentWalk take(StableIValue *at) {
        return {Argument<Tensor>::take(at),      Argument<Tensor>::take(at + 1),
                Argument<int64_t>::take(at + 2), Argument<bool>::take(at + 3),
                Argument<int64_t>::take(at + 4), Argument<int64_t>::take(at + 5)};
    }
};

// The operands of one direction of one layer, checked; p: their geometry, without exponents.
class RecurrentShape {
  public:
    RecurrentShape(const char *op, int gates, const RecurrentOperands &a, const RecurrentWalk &walk)
        : op_(op), gates_(gates), x_(lgr::contiguous(a.x)), w_ih_(lgr::contiguous(a.w_ih)),
          w_hh_(lgr::contiguous(a.w_hh)), offsets_(lgr::contiguous(walk.offsets)),
          counts_(lgr::contiguous(walk.counts)) {
        for (const Tensor *t : {&x_, &w_ih_, &w_hh_})
            STD_TORCH_CHECK(t->scalar_type() == ScalarType::Char, op,
                            ": x, w_ih and w_hh must be int8 codes");
        STD_TORCH_CHECK(offsets_.scalar_type() == ScalarType::Long &&
                            counts_.scalar_type() == ScalarType::Int &&
                            offsets_.numel() == counts_.numel(),
                        op, ": offsets must be int64 and counts int32, one of each per step");
        STD_TORCH_CHECK(
            w_ih_.dim() == 2 && w_hh_.dim() == 2 && x_.dim() >= 2 &&
                w_hh_.size(0) == gates * w_hh_.size(1) && w_ih_.size(0) == w_hh_.size(0) &&
                x_.size(x_.dim() - 1) == w_ih_.size(1),
            op, ": x must be [..., D], w_ih [", gates, " * H, D] and w_hh [", gates, " * H, H]");
        p.chip = to_i32(walk.chip, "chip");
        p.steps = to_i32(offsets_.numel(), "steps");
        p.batch = to_i32(walk.batch, "batch");
        p.d = to_i32(w_ih_.size(1), "D");
        p.h = to_i32(w_hh_.size(1), "H");
        p.reverse = walk.reverse;
        p.rows = p.d ? x_.numel() / p.d : 0;
        p.row_stride = walk.stride;
        p.off = offsets_.const_data_ptr<int64_t>();
        p.n = counts_.const_data_ptr<int32_t>();
    }
    const Tensor &input() const { return x_; }
    Tensor rows_like(int32_t dtype) const { // [..., H]
        std::vector<int64_t> sizes(x_.sizes().begin(), x_.sizes().end());
        sizes.back() = p.h;
        return fresh(sizes.data(), x_.dim(), dtype, place_of(x_));
    }
    Tensor states(int32_t dtype) const { // [1, batch, H]
        const int64_t sizes[] = {1, p.batch, p.h};
        return fresh(sizes, 3, dtype, place_of(x_));
    }

    void check_state(const Tensor &t) const {
        STD_TORCH_CHECK(t.numel() == int64_t{p.batch} * p.h, op_, ": a state must have ", p.batch,
                        " x ", p.h, " elements, got ", t.numel());
    }
    int64_t saved_bytes() const { return lgr_recurrent_saved_bytes(&p, gates_); }
    // What forward gave backward, each in one block: codes of the result and of the given states, which may be absent.
    Tensor kept_codes(const Tensor &t) const { return kept(t, ScalarType::Char, p.rows * p.h); }
    Tensor kept_saved(const Tensor &t) const { return kept(t, ScalarType::Byte, saved_bytes()); }
    Tensor kept_state(const Tensor &t, ScalarType type) const {
        return t.numel() ? kept(t, type, int64_t{p.batch} * p.h) : t;
    }

    lgr_recurrent p{};

  private:
    Tensor kept(const Tensor &t, ScalarType type, int64_t n) const {
        same_device(op_, x_, {{"what forward saved", t}});
        STD_TORCH_CHECK(t.scalar_type() == type && t.numel() == n, op_,
                        ": what forward saved does not fit x");
        return lgr::contiguous(t);
    }

  protected:
    const char *op_;
    int gates_;
    Tensor x_, w_ih_, w_hh_, offsets_, counts_;
};
} // namespace lgr

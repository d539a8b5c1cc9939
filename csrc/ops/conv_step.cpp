// conv_step.cpp - a training step of a convolution, one operator per direction: quantizes the weight, computes, and keeps
// for backward what it needs of the weight in one tensor. No arithmetic here.
#include "ops/conv_grad.h"
#include "ops/quantize.h"

namespace {
using lgr::OptTensor;
using lgr::Tensor;
using Ints = std::vector<int64_t>;

// What is kept of the weight: this head, then int8 codes, then mask bits, both contiguous.
struct Kept {
    int32_t x_exp2, w_exp2, dim, spare;
    int64_t o, c, kh, kw;

    static constexpr int64_t kCodes = 64; // where the codes start
    int64_t numel() const { return o * c * kh * kw; }
    int64_t mask_at() const { return kCodes + (numel() + 63) / 64 * 64; }
    int64_t bytes() const { return mask_at() + lgr_mask_bytes(numel()); }
    lgr::Image image() const { return {o, c, kh, kw, c * kh * kw, kh * kw, kw, 1}; }
    Tensor fresh(int32_t dtype) const {
        const int64_t sizes[] = {o, c, dim == 3 ? kw : kh, kw};
        return lgr::fresh(sizes, dim == 3 ? 3 : 4, dtype);
    }
    static Kept read(const char *op, const Tensor &t) {
        Kept k = {};
        const bool whole =
            t.scalar_type() == lgr::ScalarType::Byte && t.is_contiguous() && t.numel() >= kCodes;
        if (whole) memcpy(&k, t.const_data_ptr(), sizeof k);
        STD_TORCH_CHECK(whole && k.bytes() == t.numel(), op, ": kept is not what conv_step made");
        return k;
    }
};
static_assert(sizeof(Kept) <= Kept::kCodes, "the codes start behind the head");

lgr::State state_at(const std::vector<Tensor> &t, size_t at) {
    return {{t[at], t[at + 1], t[at + 2], t[at + 3], t[at + 4]}, std::nullopt};
}

// Everything that can be refused is, before a state moves.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>
conv_step(const Tensor &x, const Tensor &x_scale, const Tensor &w, const OptTensor &bias,
          const std::vector<Tensor> &states, const Ints &geometry, int64_t weight_settings,
          int64_t settings, double clamp) {
    const char *op = "conv_step";
    STD_TORCH_CHECK(states.size() == 10, op, ": needs the five state tensors of weight and result");
    STD_TORCH_CHECK(x.scalar_type() == lgr::ScalarType::Char, op, ": x must be int8 codes");
    lgr::check_float(w, op, "w");
    const lgr_conv_params p = lgr::conv_params(op, x, w, lgr::Geometry::of(op, geometry));
    lgr::check(lgr_conv_check(&p), op);
    const lgr::FormatArguments format = lgr::unpacked(settings, clamp);
    const lgr::Format of_weight = lgr::unpacked(weight_settings, 0.0).checked(op);
    format.checked(op);
    STD_TORCH_CHECK(of_weight.bits <= 8, op, ": the weight must have at most 8 bits");
    STD_TORCH_CHECK(!bias ||
                        (bias->scalar_type() == lgr::ScalarType::Float && bias->numel() == p.o),
                    op, ": bias must be float32 with ", p.o, " elements");
    const lgr::State weight_state = state_at(states, 0);
    const lgr::Output output = {state_at(states, 5), format};
    const lgr_stats of_w = lgr::pointers(op, weight_state, x);
    lgr::pointers(op, output.state, x);

    const Tensor in = lgr::contiguous(w);
    const lgr::Image sizes = lgr::Image::of(in);
    Kept k = {lgr::exp2_of(x_scale, op),
              0,
              static_cast<int32_t>(w.dim()),
              0,
              sizes.n,
              sizes.c,
              sizes.h,
              sizes.w};
    const Tensor kept = lgr::fresh_1d(k.bytes(), aoti_torch_dtype_uint8());
    uint8_t *at = kept.mutable_data_ptr<uint8_t>();
    int8_t *codes = reinterpret_cast<int8_t *>(at + Kept::kCodes);
    memset(
        at, 0,
        Kept::kCodes); // and what lies between codes and mask: the same step keeps the same bytes
    memset(codes + k.numel(), 0, static_cast<size_t>(k.mask_at() - Kept::kCodes - k.numel()));
    const lgr::BiasLimit limit = lgr::bias_limit(bias, x_scale);
    lgr_quantize_params how = {};
    how.bits = of_weight.bits;
    how.rounding = of_weight.rounding;
    lgr_quantize_out to = {};
    to.codes = codes;
    to.mask = at + k.mask_at();
    k.w_exp2 = lgr::with_state(in, of_w, how, limit.cap, of_weight.observe, to, op);
    if (k.w_exp2 == LGR_EXP2_NAN) memset(codes, 0, static_cast<size_t>(k.bytes() - Kept::kCodes));
    const Tensor w_scale = lgr::scale_of(limit.nan ? LGR_EXP2_NAN : k.w_exp2);
    if (limit.nan) k.w_exp2 = LGR_EXP2_NAN;
    memcpy(at, &k, sizeof k);
    lgr::Images images(op, p, x, codes, true, {&x_scale, &w_scale, &bias});
    const auto [value, y, scale, mask, slope] = lgr::quantized(op, images, output);
    return {value, y, scale, mask, kept};
}

std::tuple<Tensor, Tensor, Tensor> conv_step_backward(const Tensor &dy, const Tensor &x,
                                                      const Tensor &mask, const Tensor &kept,
                                                      const Ints &geometry, int64_t want) {
    const char *op = "conv_step_backward";
    const Kept k = Kept::read(op, kept);
    STD_TORCH_CHECK(x.scalar_type() == lgr::ScalarType::Char && x.dim() == k.dim &&
                        dy.dim() == k.dim,
                    op, ": x and dy must have the dimensions of the weight, x int8 codes");
    lgr_conv_grad g = {};
    g.p = lgr::conv_params(op, lgr::Image::of(x), k.image(), lgr::Geometry::of(op, geometry));
    lgr::check(lgr_conv_check(&g.p), op);
    const int64_t pixels = g.p.n * lgr_conv_out_h(&g.p) * lgr_conv_out_w(&g.p);
    STD_TORCH_CHECK(mask.scalar_type() == lgr::ScalarType::Byte && mask.is_contiguous() &&
                        mask.numel() == pixels * lgr_mask_row_bytes(g.p.o),
                    op, ": mask must have ", pixels * lgr_mask_row_bytes(g.p.o), " bytes, got ",
                    mask.numel());
    const uint8_t *at = kept.const_data_ptr<uint8_t>();
    g.x = x.const_data_ptr<int8_t>();
    g.w = reinterpret_cast<const int8_t *>(at + Kept::kCodes);
    g.mask = mask.const_data_ptr<uint8_t>();
    g.w_mask = at + k.mask_at();
    g.x_exp2 = k.x_exp2;
    g.w_exp2 = k.w_exp2;
    return lgr::ConvGradients(op, g, dy, k.image(), want,
                              [&] { return k.fresh(aoti_torch_dtype_float32()); })
        .all();
}

// The weight that a step has kept: scale of x, codes, scale, mask.
std::tuple<Tensor, Tensor, Tensor, Tensor> conv_step_weight(const Tensor &kept) {
    const Kept k = Kept::read("conv_step_weight", kept);
    const uint8_t *at = kept.const_data_ptr<uint8_t>();
    const Tensor codes = k.fresh(aoti_torch_dtype_int8()),
                 mask = lgr::fresh_1d(lgr_mask_bytes(k.numel()), aoti_torch_dtype_uint8());
    memcpy(codes.mutable_data_ptr(), at + Kept::kCodes, static_cast<size_t>(k.numel()));
    memcpy(mask.mutable_data_ptr(), at + k.mask_at(), static_cast<size_t>(mask.numel()));
    return {lgr::scale_of(k.x_exp2), codes, lgr::scale_of(k.w_exp2), mask};
}
} // namespace

LGR_OPERATORS({"conv_step(Tensor x, Tensor x_scale, Tensor w, Tensor? bias, Tensor(a!)[] states, "
               "int[] geometry, int weight_settings, int settings, float clamp) -> "
               "(Tensor value, Tensor codes, Tensor scale_now, Tensor mask, Tensor kept)",
               LGR_BOX(conv_step), lgr::Devices::CPU},
              {"conv_step_backward(Tensor dy, Tensor x, Tensor mask, Tensor kept, int[] geometry, "
               "int want) -> (Tensor gx, Tensor gw, Tensor gb)",
               LGR_BOX(conv_step_backward), lgr::Devices::CPU},
              {"conv_step_weight(Tensor kept) -> "
               "(Tensor x_scale, Tensor codes, Tensor w_scale, Tensor mask)",
               LGR_BOX(conv_step_weight), lgr::Devices::CPU});

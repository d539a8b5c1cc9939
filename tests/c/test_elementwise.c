/* test_elementwise.c - masks, add, clamp, average pooling: each instruction set gives the reference's bytes. */
#include "harness.h"
#include "lgr/add.h"
#include "lgr/mul.h"
#include "lgr/rescale.h"
#include "lgr/avg_pool.h"
#include "lgr/clamp.h"
#include "lgr/fold_bn.h"
#include "lgr/mask.h"
#include "lgr/scale_bias.h"

static float *floats(struct block b) { return (float *)(void *)b.data; }
static int same(struct block a, struct block b)
{
    return a.bytes == b.bytes && memcmp(a.data, b.data, a.bytes) == 0;
}

static void masks_equal_reference(void)
{
    static const int64_t widths[] = {1, 3, 8, 15, 16, 17, 48};
    for (int k = 0; k < N_SIZES; ++k)
        for (int w = 0; w < 7; ++w) {
            const int64_t n = sizes[k], o = widths[w], bytes = n * lgr_mask_row_bytes(o);
            struct block g = block_new(4 * n * o, 4), m = block_new(bytes, 1),
                         flat = block_new(lgr_mask_bytes(n), 0);
            struct block want[2] = {block_new(4 * n * o, 0), block_new(4 * n, 0)};
            struct block got[2] = {block_new(4 * n * o, 4), block_new(4 * n, 4)};
            double want_sum = 0, got_sum = 0;
            fill_floats(floats(g), n * o, 3.0f, 0);
            fill_bytes((int8_t *)m.data, bytes);
            fill_bytes((int8_t *)flat.data, lgr_mask_bytes(n));
            isa_use(0);
            CHECK(lgr_mask_grad_rows_f32(floats(g), m.data, n, o, floats(want[0])) == LGR_OK);
            CHECK(lgr_mask_grad_f32(floats(g), flat.data, n, floats(want[1])) == LGR_OK);
            for (int64_t i = 0; i < n * o; ++i) floats(g)[i] = random_unit();
            CHECK(lgr_slope_sum_f32(floats(g), floats(g), n * o, &want_sum) == LGR_OK);
            for (int i = 0; i < N_ISA; ++i) {
                if (!isa_use(isa_masks[i])) continue;
                CHECK(lgr_slope_sum_f32(floats(g), floats(g), n * o, &got_sum) == LGR_OK);
                CHECK(memcmp(&got_sum, &want_sum, sizeof got_sum) == 0);
            }
            fill_floats(floats(g), n * o, 3.0f, 0);
            isa_use(0);
            CHECK(lgr_mask_grad_rows_f32(floats(g), m.data, n, o, floats(want[0])) == LGR_OK);
            CHECK(lgr_mask_grad_f32(floats(g), flat.data, n, floats(want[1])) == LGR_OK);
            for (int i = 0; i < N_ISA; ++i) {
                if (!isa_use(isa_masks[i])) continue;
                CHECK(lgr_mask_grad_rows_f32(floats(g), m.data, n, o, floats(got[0])) == LGR_OK);
                CHECK(lgr_mask_grad_f32(floats(g), flat.data, n, floats(got[1])) == LGR_OK);
                CHECK(same(got[0], want[0]) && same(got[1], want[1]));
            }
            for (int i = 0; i < 2; ++i) {
                block_end(want[i]);
                block_end(got[i]);
            }
            block_end(g);
            block_end(m);
            block_end(flat);
        }
}

static void clamps_equal_reference(void)
{
    for (int k = 0; k < N_SIZES; ++k)
        for (int round = 0; round < 20; ++round) {
            const int64_t n = sizes[k];
            const float limit = round % 4 == 0 ? INFINITY : round % 4 == 1 ? 0.0f : 8.0f;
            struct block x = block_new(4 * n, 4), y = block_new(4 * n, 0),
                         m = block_new(lgr_mask_bytes(n), 0);
            struct block y2 = block_new(4 * n, 4), m2 = block_new(lgr_mask_bytes(n), 1);
            double sum = 0, sum2 = 0;
            fill_floats(floats(x), n, 20.0f, round % 2);
            isa_use(0);
            CHECK(lgr_clamp_f32(floats(x), n, limit, floats(y), m.data) == LGR_OK);
            CHECK(lgr_abs_sum_f32(floats(x), n, &sum) == LGR_OK);
            for (int i = 0; i < N_ISA; ++i) {
                if (!isa_use(isa_masks[i])) continue;
                CHECK(lgr_clamp_f32(floats(x), n, limit, floats(y2), m2.data) == LGR_OK);
                CHECK(lgr_abs_sum_f32(floats(x), n, &sum2) == LGR_OK);
                CHECK(same(y, y2) && same(m, m2));
                CHECK(memcmp(&sum, &sum2, sizeof sum) == 0 || (sum != sum && sum2 != sum2));
            }
            block_end(x);
            block_end(y);
            block_end(m);
            block_end(y2);
            block_end(m2);
        }
    CHECK(lgr_clamp_f32(NULL, 0, lgr_exp2_scale(LGR_EXP2_NAN), NULL, NULL) == LGR_E_RANGE);
}

struct sums {
    struct block value, codes, mask, slope;
    lgr_range range;
};
/* Results that nobody asks for change the way the others are computed. */
static struct sums add(const struct block x, const struct block y, int64_t n,
                       const struct lgr_add_params *p, int round)
{
    struct sums r = {block_new(4 * n, round % 8 < 4 ? 4 : 0),
                     block_new((p->bits <= 8 ? 1 : 4) * n, 0),
                     block_new(lgr_mask_bytes(n), 1),
                     block_new(4 * n, 0),
                     {0, 0}};
    const struct lgr_quantize_out out = {
        round % 13 ? floats(r.value) : NULL, round % 17 ? r.codes.data : NULL,
        round % 3 ? r.mask.data : NULL, round % 7 < 3 ? floats(r.slope) : NULL};
    CHECK(lgr_add(x.data, y.data, n, p, &out, round % 4 ? &r.range : NULL) == LGR_OK);
    return r;
}
static void end(struct sums r)
{
    block_end(r.value);
    block_end(r.codes);
    block_end(r.mask);
    block_end(r.slope);
}

static void add_equals_reference(void)
{
    for (int k = 0; k < N_SIZES; ++k)
        for (int round = 0; round < 300; ++round) {
            const int64_t n = sizes[k];
            const int32_t e = (int32_t)(random_bits() % 12) - 4;
            struct lgr_add_params p = {
                .exp2_x = e + (int32_t)(random_bits() % 30),
                .exp2_y = e + (int32_t)(random_bits() % (round % 2 ? 30 : 4)),
                .exp2 = round % 29 == 0 ? LGR_EXP2_NAN : e,
                .bits = round % 5 == 0   ? 4
                        : round % 5 == 1 ? 16
                                         : 8,
                .bytes = round % 6 == 0 ? 4 : 1,
                .rounding = round % 3 == 0 ? (int32_t)(random_bits() % 4) : LGR_FLOOR_ADD,
                .relu = round % 4 == 0,
                .no_slope = round % 11 == 0,
                .minus = round % 2,
                .stream = round % 8 > 2,
                .clamp = round % 7 == 0 ? 1.25f : 0.0f,
            };
            struct block x = block_new(n * p.bytes, p.bytes), y = block_new(n * p.bytes, 0);
            fill_bytes((int8_t *)x.data, n * p.bytes);
            fill_bytes((int8_t *)y.data, n * p.bytes);
            isa_use(0);
            const struct sums want = add(x, y, n, &p, round);
            for (int i = 0; i < N_ISA; ++i) {
                if (!isa_use(isa_masks[i])) continue;
                const struct sums got = add(x, y, n, &p, round);
                CHECK(same(got.value, want.value) && same(got.codes, want.codes));
                CHECK(same(got.mask, want.mask) && same(got.slope, want.slope));
                CHECK(got.range.abs == want.range.abs && got.range.max == want.range.max);
                end(got);
            }
            end(want);
            block_end(x);
            block_end(y);
        }
    const struct lgr_add_params bad = {
        .exp2_x = 3, .exp2_y = 3, .exp2 = 4, .bits = 8, .bytes = 1, .rounding = 1};
    const struct lgr_quantize_out out = {0};
    const int8_t one = 1;
    CHECK(lgr_add(&one, &one, 1, &bad, &out, NULL) == LGR_E_RANGE); /* the chip shifts right only */
}

static void products_equal_reference(void)
{
    for (int k = 0; k < N_SIZES; ++k)
        for (int round = 0; round < 100; ++round) {
            const int64_t n = sizes[k];
            const int32_t bytes = round % 4 == 0 ? 4 : 1;
            const lgr_epilogue_spec spec = {
                (int32_t)(random_bits() % 16), 0, 8, LGR_FLOOR_ADD, round % 3 == 0, 0,
                round % 5 == 0 ? 1.25 : 0.0};
            lgr_epilogue ep;
            CHECK(lgr_epilogue_make(&spec, &ep) == LGR_OK);
            struct block x = block_new(n * bytes, bytes), y = block_new(n * bytes, bytes);
            fill_bytes((int8_t *)x.data, n * bytes);
            fill_bytes((int8_t *)y.data, n * bytes);
            struct block want[4];
            for (int i = -1; i < N_ISA; ++i) { /* the reference first */
                if (!isa_use(i < 0 ? 0 : isa_masks[i])) continue;
                struct block got[4] = {block_new(4 * n, 4), block_new(n, 0), block_new(4 * n, 0),
                                       block_new(lgr_mask_row_bytes(n), 0)};
                lgr_outputs out = {.value = floats(got[0]),
                                   .code8 = (int8_t *)got[1].data,
                                   .slope = floats(got[2]),
                                   .mask = (uint8_t *)got[3].data};
                if (n > 0) out.mask[lgr_mask_row_bytes(n) - 1] = 0;
                int64_t amax[2] = {0, 0};
                const int64_t first = n > 16 ? 16 : n;
                CHECK(lgr_mul(x.data, y.data, bytes, first, 0, n, &ep, &out, amax) == LGR_OK);
                CHECK(lgr_mul((char *)x.data + first * bytes, (char *)y.data + first * bytes, bytes,
                              n - first, n > 16 ? 16 : 0, n > 16 ? n : n - first, &ep, &out,
                              amax) == LGR_OK);
                for (int j = 0; j < 4; ++j) {
                    if (i < 0) {
                        want[j] = got[j];
                        continue;
                    }
                    CHECK(same(got[j], want[j]));
                    block_end(got[j]);
                }
            }
            for (int j = 0; j < 4; ++j) block_end(want[j]);
            block_end(x);
            block_end(y);
        }
}

static void table_of_rescaled_codes_equals_single_codes(void)
{
    for (int round = 0; round < 300; ++round) {
        const int64_t n = 600; /* long enough for the table */
        const struct lgr_rescale_params p = {.exp2_x = (int32_t)(random_bits() % 30),
                                             .exp2 = (int32_t)(random_bits() % 30),
                                             .bits = round % 2 ? 8 : 16,
                                             .bytes = 1,
                                             .rounding = (int32_t)(random_bits() % 4)};
        const int64_t bytes = p.bits <= 8 ? 1 : 4;
        struct block x = block_new(n, 0), value = block_new(4 * n, 4), slope = block_new(4 * n, 0),
                     codes = block_new(bytes * n, 0), mask = block_new(lgr_mask_bytes(n), 0);
        fill_bytes((int8_t *)x.data, n);
        const struct lgr_quantize_out out = {floats(value), codes.data, mask.data, floats(slope)};
        CHECK(lgr_rescale(x.data, n, &p, &out) == LGR_OK);
        for (int64_t i = 0; i < n; ++i) {
            float v, s;
            int32_t code = 0;
            uint8_t m;
            const struct lgr_quantize_out one = {&v, &code, &m, &s};
            CHECK(lgr_rescale((int8_t *)x.data + i, 1, &p, &one) == LGR_OK);
            CHECK(memcmp(&v, floats(value) + i, 4) == 0 && memcmp(&s, floats(slope) + i, 4) == 0);
            CHECK(memcmp(&code, (char *)codes.data + i * bytes, (size_t)bytes) == 0);
            CHECK(m == (((uint8_t *)mask.data)[i / 8] >> (i % 8) & 1));
        }
        block_end(x);
        block_end(value);
        block_end(slope);
        block_end(codes);
        block_end(mask);
    }
}

static void pooling_equals_reference(void)
{
    static const int64_t channels[] = {1, 3, 8, 13, 32};
    for (int round = 0; round < 400; ++round) {
        struct lgr_avg_pool_params p = {
            .n = 2, .h = 1 + random_bits() % 9, .w = 1 + random_bits() % 9};
        p.c = channels[round % 5];
        p.kh = (int32_t)(1 + random_bits() % 4);
        p.kw = (int32_t)(1 + random_bits() % 4);
        p.sh = (int32_t)(1 + random_bits() % 2);
        p.sw = (int32_t)(1 + random_bits() % 2);
        p.pad_top = (int32_t)(random_bits() % (unsigned)(p.kh + 1));
        p.pad_left = (int32_t)(random_bits() % (unsigned)(p.kw + 1));
        p.oh = (p.h + 2 * p.pad_top - p.kh) / p.sh + 1;
        p.ow = (p.w + 2 * p.pad_left - p.kw) / p.sw + 1;
        if (p.h + 2 * p.pad_top < p.kh || p.w + 2 * p.pad_left < p.kw) continue;
        p.bytes = round % 7 == 0 ? 4 : 1;
        p.exp2 = round % 31 == 0 ? LGR_EXP2_NAN : 5;
        const int64_t in = p.n * p.h * p.w * p.c, out = p.n * p.oh * p.ow * p.c;
        struct block x = block_new(in * p.bytes, p.bytes), q = block_new(out * p.bytes, 0),
                     v = block_new(4 * out, 0);
        struct block q2 = block_new(out * p.bytes, 0), v2 = block_new(4 * out, 4);
        fill_bytes((int8_t *)x.data, in * p.bytes);
        isa_use(0);
        CHECK(lgr_avg_pool(x.data, &p, 0, p.n, q.data, floats(v)) == LGR_OK);
        for (int i = 0; i < N_ISA; ++i) {
            if (!isa_use(isa_masks[i])) continue;
            CHECK(lgr_avg_pool(x.data, &p, 0, 1, q2.data, floats(v2)) == LGR_OK);
            CHECK(lgr_avg_pool(x.data, &p, 1, 2, q2.data, floats(v2)) == LGR_OK);
            CHECK(same(q, q2) && same(v, v2));
        }
        block_end(x);
        block_end(q);
        block_end(v);
        block_end(q2);
        block_end(v2);
    }
}

static void divider_is_the_nearest_integer_except_at_ties(void)
{
    for (int32_t d = 1; d <= 1024; ++d) {
        const lgr_divider v = lgr_make_divider(d);
        for (int64_t s = -130 * d; s <= 130 * d; s += 1 + d / 16) {
            const int64_t twice = 2 * s + d,
                          down = twice >= 0 ? twice / (2 * d) : -((-twice + 2 * d - 1) / (2 * d));
            const int tie = twice % (2 * d) == 0;
            CHECK(lgr_divide(s, v) == down || (tie && lgr_divide(s, v) == down - 1));
        }
    }
    const lgr_divider three = lgr_make_divider(3), most = lgr_make_divider(LGR_DIVISOR_MAX - 1);
    CHECK(three.recip == 715827883 && three.shift == 31); /* 29 + 2 */
    CHECK(lgr_divide((int64_t)INT32_MAX * (LGR_DIVISOR_MAX - 1), most) == INT32_MAX);
    CHECK(lgr_divide((int64_t)INT32_MIN * (LGR_DIVISOR_MAX - 1), most) == INT32_MIN);
}

static void scale_and_fold_stay_inside_their_buffers(void)
{
    int8_t x[24], y[24], w[3] = {-128, 1, 127};
    int32_t b[3] = {INT32_MIN, 0, INT32_MAX};
    fill_bytes(x, 24);
    for (int32_t s = -63; s <= 63; ++s)
        CHECK(lgr_scale_bias_s8_s8(x, w, b, 2, 3, 4, s, y) == LGR_OK);
    CHECK(lgr_scale_bias_s8_s8(x, w, b, 2, 3, 4, 64, y) == LGR_E_RANGE);

    const struct lgr_fold_bn_params p = {
        .groups = 2, .n_in = 3, .per_group = 2, .inner = 5, .eps = 1e-5};
    struct block wt = block_new(4 * 60, 4), gw = block_new(4 * 60, 0),
                 folded = block_new(4 * 60, 0);
    float mean[4] = {0, 1, 2, 3}, var[4] = {1, 1, 4, 0}, gb[4] = {1, 1, 1, 1}, bias[4], grad[4];
    fill_floats(floats(wt), 60, 1.0f, 0);
    fill_floats(floats(gw), 60, 1.0f, 0);
    const struct lgr_fold_bn_in in = {floats(wt), NULL, NULL, NULL, mean, var};
    const struct lgr_fold_bn_grad g = {.gw = floats(gw), .gb = gb, .var = grad};
    CHECK(lgr_fold_bn_f32(&p, &in, 0, 4, floats(folded), bias, NULL) == LGR_OK);
    CHECK(lgr_fold_bn_backward_f32(&p, &in, 0, 4, &g) == LGR_OK);
    CHECK(lgr_fold_bn_f32(&p, &in, 0, 5, floats(folded), bias, NULL) == LGR_E_RANGE);
    block_end(wt);
    block_end(gw);
    block_end(folded);
}

int main(void)
{
    masks_equal_reference();
    clamps_equal_reference();
    add_equals_reference();
    products_equal_reference();
    table_of_rescaled_codes_equals_single_codes();
    pooling_equals_reference();
    divider_is_the_nearest_integer_except_at_ties();
    scale_and_fold_stay_inside_their_buffers();
    puts("test_elementwise: ok");
    return 0;
}

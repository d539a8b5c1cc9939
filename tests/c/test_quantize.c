/* test_quantize.c - quantize, observe, dequantize: each instruction set gives the reference's bytes. */
#include "harness.h"
#include "lgr/quantize.h"

struct result {
    struct block value, codes, mask, slope;
    lgr_range range;
};

static struct result run(const float *x, int64_t n, const struct lgr_quantize_params *p, int with)
{
    const int shift = with & 8 ? 4 : 0;
    struct result r = {block_new(4 * n, shift),
                       block_new((p->bits <= 8 ? 1 : 4) * n, shift),
                       block_new(lgr_mask_bytes(n), shift),
                       block_new(4 * n, shift),
                       {0, 0}};
    const struct lgr_quantize_out out = {
        (float *)(void *)r.value.data, with & 1 ? r.codes.data : NULL,
        with & 2 ? r.mask.data : NULL, with & 4 ? (float *)(void *)r.slope.data : NULL};
    CHECK(lgr_quantize_f32(x, n, p, &out, &r.range) == LGR_OK);
    return r;
}
static int same(struct block a, struct block b)
{
    return a.bytes == b.bytes && memcmp(a.data, b.data, a.bytes) == 0;
}
static void end(struct result r)
{
    block_end(r.value);
    block_end(r.codes);
    block_end(r.mask);
    block_end(r.slope);
}

static void quantize_equals_reference(void)
{
    static const int bits[] = {2, 4, 8, 9, 16, 17, 32};
    for (int k = 0; k < N_SIZES; ++k)
        for (int round = 0; round < 600; ++round) {
            const int64_t n = sizes[k];
            struct block x = block_new(4 * n, round % 2 ? 4 : 0);
            fill_floats((float *)(void *)x.data, n, 40.0f, round % 5 == 0);
            const struct lgr_quantize_params p = {
                .exp2 = round % 23 == 0 ? LGR_EXP2_NAN : (int32_t)(random_bits() % 27) - 3,
                .bits = bits[random_bits() % 7],
                .rounding = (int32_t)(random_bits() % 4),
                .relu = round % 3 == 0,
                .no_slope = round % 7 == 0,
                .stream = round % 2,
                .clamp = round % 4 ? 0.0f : 8.0f,
            };
            const int with = (int)(random_bits() % 16);
            isa_use(0);
            const struct result want = run((const float *)(const void *)x.data, n, &p, with);
            for (int i = 0; i < N_ISA; ++i) {
                if (!isa_use(isa_masks[i])) continue;
                const struct result got = run((const float *)(const void *)x.data, n, &p, with);
                CHECK(same(got.value, want.value) && same(got.codes, want.codes));
                CHECK(same(got.mask, want.mask) && same(got.slope, want.slope));
                CHECK(got.range.abs == want.range.abs && got.range.max == want.range.max);
                end(got);
            }
            end(want);
            block_end(x);
        }
}

static void observe_equals_reference(void)
{
    for (int k = 0; k < N_SIZES; ++k)
        for (int round = 0; round < 50; ++round) {
            struct block x = block_new(4 * sizes[k], 4);
            fill_floats((float *)(void *)x.data, sizes[k], 4.0f, round % 2);
            lgr_range want = {0, 0};
            isa_use(0);
            CHECK(lgr_observe_f32((const float *)(const void *)x.data, sizes[k], &want) == LGR_OK);
            CHECK((want.abs > 0x7f800000) == (round % 2 && sizes[k] > 0));
            for (int i = 0; i < N_ISA; ++i) {
                lgr_range got = {0, 0};
                if (!isa_use(isa_masks[i])) continue;
                CHECK(lgr_observe_f32((const float *)(const void *)x.data, sizes[k], &got) ==
                      LGR_OK);
                CHECK(got.abs == want.abs && got.max == want.max);
            }
            block_end(x);
        }
}

static void dequantize_equals_reference(void)
{
    for (int k = 0; k < N_SIZES; ++k) {
        const int64_t n = sizes[k];
        struct block x = block_new(n, 1), want = block_new(4 * n, 0), got = block_new(4 * n, 4);
        fill_bytes((int8_t *)x.data, n);
        isa_use(0);
        CHECK(lgr_dequantize_s8_f32((int8_t *)x.data, n, 7, (float *)(void *)want.data) == LGR_OK);
        for (int i = 0; i < N_ISA; ++i) {
            if (!isa_use(isa_masks[i])) continue;
            CHECK(lgr_dequantize_s8_f32((int8_t *)x.data, n, 7, (float *)(void *)got.data) ==
                  LGR_OK);
            CHECK(same(got, want));
        }
        block_end(x);
        block_end(want);
        block_end(got);
    }
}

static void statistics_follow_the_rule(void)
{
    float running = 0, scale = 1;
    uint8_t is_init = 0;
    int64_t n_batches = 0, n_skipped = 0;
    const lgr_stats s = {&running, &is_init, &scale, &n_batches, &n_skipped, NULL};
    const float nan = lgr_exp2_scale(LGR_EXP2_NAN);
    CHECK(lgr_stats_guess(&s, 8, LGR_EXP2_MAX) == LGR_EXP2_NONE);
    CHECK(lgr_stats_step(&s, 8, LGR_EXP2_MAX, 0, 1.0f) == 7 &&
          !is_init); /* own range, not stored */
    CHECK(lgr_stats_step(&s, 8, LGR_EXP2_MAX, 1, nan) == LGR_EXP2_NAN && n_skipped == 1 &&
          !is_init);
    CHECK(lgr_stats_step(&s, 8, LGR_EXP2_MAX, 1, INFINITY) == 0 && n_skipped == 2 && !is_init);
    CHECK(lgr_stats_step(&s, 8, LGR_EXP2_MAX, 1, 2.0f) == 6 && is_init && running == 2.0f);
    CHECK(scale == 64.0f && n_batches == 1);
    CHECK(lgr_stats_step(&s, 8, LGR_EXP2_MAX, 1, INFINITY) == 6 && n_batches == 1 &&
          n_skipped == 3);
    CHECK(lgr_stats_step(&s, 8, 4, 1, 2.0f) == 4 && scale == 16.0f); /* capped, and stored so */
    CHECK(lgr_stats_guess(&s, 8, 3) == 3);
    CHECK(lgr_log2_nearest(lgr_float_from_bits(0x3fb504f3)) == 0);
    CHECK(lgr_log2_nearest(lgr_float_from_bits(0x3fb504f4)) == 1);
    float t = 2.5f;
    const lgr_stats q = {&running, &is_init, &scale, &n_batches, &n_skipped, &t};
    CHECK(lgr_stats_step(&q, 8, LGR_EXP2_MAX, 1, 99.0f) == 4 && scale == 16.0f); /* rint(4.5) */
    CHECK(lgr_threshold_moves(t, 8, LGR_EXP2_MAX) && !lgr_threshold_moves(t, 8, 3));
    CHECK(!lgr_threshold_moves(9.0f, 8, LGR_EXP2_MAX) && lgr_threshold_exp2(9.0f, 8, 99) == 0);
    t = nan;
    CHECK(lgr_stats_step(&q, 8, LGR_EXP2_MAX, 0, 1.0f) == LGR_EXP2_NAN);
}

static void arithmetic_has_no_overflow(void)
{
    CHECK(lgr_rsh_s64(INT64_MAX, 63) == 1 && lgr_rsh_s64(INT64_MIN, 63) == -1);
    CHECK(lgr_rsh_s64(-1, 1) == 0 && lgr_rsh_s64(1, 1) == 1 && lgr_rsh_s64(-3, 1) == -1);
    CHECK(lgr_rsh_s64(INT64_MAX, 1) == (int64_t)1 << 62 && lgr_rsh_s32(INT32_MAX, 31) == 1);
    CHECK(lgr_lsh_s64(1, 62) == (int64_t)1 << 62 && lgr_lsh_s64(2, 62) == INT64_MAX);
    CHECK(lgr_lsh_s64(-3, 63) == INT64_MIN && lgr_lsh_s64(0, 99) == 0);
    CHECK(lgr_shift_mode_s64(-5, 1, LGR_FLOOR) == -3 && lgr_shift_mode_s64(-5, 1, LGR_CEIL) == -2);
    CHECK(lgr_shift_mode_s64(5, 1, LGR_HALF_EVEN) == 2 &&
          lgr_shift_mode_s64(7, 1, LGR_HALF_EVEN) == 4);
    CHECK(lgr_bias_cap(1.0f, 10) == 20 && lgr_bias_cap(0.99f, 10) == 21);
    CHECK(lgr_bias_cap(0.0f, 3) == LGR_EXP2_MAX && lgr_bias_cap(INFINITY, 3) == LGR_EXP2_MAX);
}

static void bad_arguments_are_refused(void)
{
    const struct lgr_quantize_params p = {.exp2 = 3, .bits = 8, .rounding = 1};
    struct lgr_quantize_params q = p;
    const struct lgr_quantize_out out = {0};
    const float x = 0;
    CHECK(lgr_quantize_f32(&x, -1, &p, &out, NULL) == LGR_E_RANGE);
    CHECK(lgr_quantize_f32(NULL, 1, &p, &out, NULL) == LGR_E_NULL);
    CHECK(lgr_quantize_f32(NULL, 0, &p, &out, NULL) == LGR_OK);
    q.bits = 33;
    CHECK(lgr_quantize_f32(&x, 1, &q, &out, NULL) == LGR_E_RANGE);
    q = p;
    q.exp2 = 127;
    CHECK(lgr_quantize_f32(&x, 1, &q, &out, NULL) == LGR_E_RANGE);
    q = p;
    q.rounding = 4;
    CHECK(lgr_quantize_f32(&x, 1, &q, &out, NULL) == LGR_E_RANGE);
    CHECK(lgr_status_str(LGR_E_RANGE) != NULL && lgr_status_str((lgr_status)-99) != NULL);
}

int main(void)
{
    quantize_equals_reference();
    observe_equals_reference();
    dequantize_equals_reference();
    statistics_follow_the_rule();
    arithmetic_has_no_overflow();
    bad_arguments_are_refused();
    puts("test_quantize: ok");
    return 0;
}

/* test_functions.c - chip functions, softmax, activations, GLU: each instruction set gives the reference's bytes. */
#include "harness.h"
#include "lgr/glu.h"
#include "lgr/softmax.h"

static int32_t *words(struct block b) { return (int32_t *)(void *)b.data; }
static float *floats(struct block b) { return (float *)(void *)b.data; }
static int same(struct block a, struct block b)
{
    return a.bytes == b.bytes && memcmp(a.data, b.data, a.bytes) == 0;
}
/* Limits, segment ends of every table, then all magnitudes. */
static void fill_words(int32_t *x, int64_t n, int bits)
{
    for (int64_t i = 0; i < n; ++i) {
        const lgr_pwl *p = &lgr_chip_tables[random_bits() % LGR_N_TABLES];
        const uint32_t end = p->thr[random_bits() % 15], any = random_bits() ^ random_bits() << 16;
        switch (random_bits() % 6) {
        case 0: x[i] = (int32_t)end; break;
        case 1: x[i] = -(int32_t)end; break;
        case 2: x[i] = random_bits() % 2 ? INT32_MIN : INT32_MAX; break;
        default: x[i] = (int32_t)any >> random_bits() % 32;
        }
        x[i] = (int32_t)lgr_sat(x[i], bits);
    }
}

static void functions_equal_reference(void)
{
    static const int widths[] = {8, 16, 32};
    for (int t = 0; t < LGR_N_TABLES; ++t)
        for (int w = 0; w < 3; ++w)
            for (int k = 0; k < N_SIZES; ++k) {
                const int64_t n = sizes[k];
                struct block x = block_new(4 * n, 4), want = block_new(4 * n, 0),
                             got = block_new(4 * n, 4);
                fill_words(words(x), n, lgr_chip_tables[t].bits);
                isa_use(0);
                const lgr_status s = lgr_chip_function(t, widths[w], words(x), n, words(want));
                CHECK(s == (lgr_chip_function_has(t, widths[w]) ? LGR_OK : LGR_E_RANGE));
                for (int i = 0; s == LGR_OK && i < N_ISA; ++i) {
                    if (!isa_use(isa_masks[i])) continue;
                    CHECK(lgr_chip_function(t, widths[w], words(x), n, words(got)) == LGR_OK);
                    CHECK(same(got, want));
                    memcpy(got.data, x.data, x.bytes); /* in place */
                    CHECK(lgr_chip_function(t, widths[w], words(got), n, words(got)) == LGR_OK);
                    CHECK(same(got, want));
                }
                block_end(x);
                block_end(want);
                block_end(got);
            }
}

static void rows_equal_reference(void)
{
    for (int k = 1; k < N_SIZES; ++k)
        for (int kind = 0; kind < 3; ++kind) {
            const int64_t n = sizes[k], rows = 1 + k % 4;
            struct block x = block_new(4 * n * rows, 4), want = block_new(4 * n * rows, 0),
                         got = block_new(4 * n * rows, 4);
            fill_words(words(x), n * rows, 32);
            if (k % 3 == 0)
                for (int64_t i = 0; i < n; ++i) words(x)[i] = INT32_MIN;
            for (int i = -1; i < N_ISA; ++i) {
                if (!isa_use(i < 0 ? 0 : isa_masks[i])) continue;
                int32_t *y = words(i < 0 ? want : got);
                if (kind == 2) CHECK(lgr_log_softmax(words(x), rows, n, y) == LGR_OK);
                else CHECK(lgr_softmax(kind, words(x), rows, n, y) == LGR_OK);
                CHECK(i < 0 || same(got, want));
            }
            memcpy(got.data, x.data, x.bytes); /* in place */
            if (kind == 2) CHECK(lgr_log_softmax(words(got), rows, n, words(got)) == LGR_OK);
            else CHECK(lgr_softmax(kind, words(got), rows, n, words(got)) == LGR_OK);
            CHECK(same(got, want));
            block_end(x);
            block_end(want);
            block_end(got);
        }
}

static lgr_epilogue quantizer(int32_t acc_exp2, int32_t out_exp2)
{
    const lgr_epilogue_spec spec = {acc_exp2, out_exp2, 8, LGR_FLOOR_ADD, 0, 0, 0.0};
    lgr_epilogue ep;
    CHECK(lgr_epilogue_make(&spec, &ep) == LGR_OK);
    return ep;
}

/* Results of one call, each in its own block. */
struct results {
    struct block code, value, mask;
    int64_t amax[2];
};
static struct results results_new(int64_t n, int64_t mask_bytes)
{
    struct results r = {block_new(n, 1), block_new(4 * n, 4), block_new(mask_bytes, 1), {0, 0}};
    memset(r.mask.data, 0, r.mask.bytes);
    return r;
}
static lgr_outputs outputs_of(struct results *r)
{
    lgr_outputs out = {0};
    out.code8 = (int8_t *)r->code.data;
    out.value = floats(r->value);
    out.mask = r->mask.data;
    return out;
}
static void results_end(struct results r)
{
    block_end(r.code);
    block_end(r.value);
    block_end(r.mask);
}

/* kind 0..7: the tables; 8: softmax, 9: log-softmax; 10..12: GLU of the chips */
static void run(int kind, const int8_t *x, int64_t n, int32_t *scratch, struct results *r)
{
    const lgr_outputs out = outputs_of(r);
    if (kind < 8) {
        const int wide = kind >= LGR_VENUSA_GELU;
        const lgr_epilogue ep = quantizer(wide ? 27 : 7, wide ? 4 : 7);
        CHECK(lgr_activation(kind, wide ? 32 : 8, x, 1, 4, n, 0, n, &ep, &out, r->amax) == LGR_OK);
    } else if (kind < 10) {
        const lgr_epilogue ep = quantizer(15, kind == 8 ? 8 : 3);
        CHECK(lgr_softmax_codes(1, kind == 9, x, 1, 4, 0, 1, n, scratch, &ep, &out, r->amax) ==
              LGR_OK);
    } else {
        const int chip = kind - 10;
        const lgr_epilogue ep = quantizer(4 + lgr_glu_gate_exp2(chip), 5);
        CHECK(lgr_glu(chip, x, 4, 1, n, 0, 0, n, &ep, &out, r->amax) == LGR_OK);
    }
}

static void codes_equal_reference(void)
{
    for (int kind = 0; kind < 13; ++kind)
        for (int k = 1; k < N_SIZES; ++k) {
            const int64_t n = sizes[k], m = lgr_mask_row_bytes(n);
            struct block x = block_new(2 * n, 1),
                         scratch = block_new(4 * lgr_softmax_scratch(n), 0);
            fill_bytes((int8_t *)x.data, 2 * n);
            struct results want = results_new(n, m), got = results_new(n, m);
            isa_use(0);
            run(kind, (const int8_t *)x.data, n, words(scratch), &want);
            for (int i = 0; i < N_ISA; ++i) {
                if (!isa_use(isa_masks[i])) continue;
                got.amax[0] = got.amax[1] = 0;
                run(kind, (const int8_t *)x.data, n, words(scratch), &got);
                CHECK(same(got.code, want.code) && same(got.value, want.value));
                CHECK(same(got.mask, want.mask));
                CHECK(got.amax[0] == want.amax[0] && got.amax[1] == want.amax[1]);
            }
            results_end(want);
            results_end(got);
            block_end(x);
            block_end(scratch);
        }
}

static void gradients_stay_inside(void)
{
    for (int k = 0; k < N_SIZES; ++k) {
        const int64_t n = sizes[k];
        struct block g = block_new(4 * n, 4), x = block_new(2 * n, 1), dx = block_new(4 * n, 4),
                     both = block_new(8 * n, 4);
        fill_floats(floats(g), n, 3.0f, 0);
        fill_bytes((int8_t *)x.data, 2 * n);
        const int8_t *q = (const int8_t *)x.data;
        for (int t = 0; t < LGR_N_TABLES; ++t)
            CHECK(lgr_activation_grad(t, floats(g), q, 1, 4, n, floats(dx)) == LGR_OK);
        CHECK(lgr_softmax_grad(floats(g), q, 1, 8, n > 0, n, floats(dx)) == LGR_OK);
        CHECK(lgr_log_softmax_grad(floats(g), q, 1, 4, n > 0, n, floats(dx)) == LGR_OK);
        CHECK(lgr_glu_grad(floats(g), q, 4, n > 0, n, floats(both)) == LGR_OK);
        CHECK(lgr_activation_grad(0, floats(g), q, 1, LGR_EXP2_NAN, n, floats(dx)) == LGR_OK);
        for (int64_t i = 0; i < n; ++i) CHECK(floats(dx)[i] == 0.0f);
        block_end(g);
        block_end(x);
        block_end(dx);
        block_end(both);
    }
}

static void refuses(void)
{
    int32_t x[4] = {0}, y[4];
    float g[4] = {0};
    int64_t amax[2] = {0, 0};
    const lgr_epilogue ep = quantizer(7, 7);
    lgr_outputs out = {0};
    CHECK(lgr_chip_function(-1, 8, x, 4, y) == LGR_E_RANGE);
    CHECK(lgr_chip_function(LGR_N_TABLES, 8, x, 4, y) == LGR_E_RANGE);
    CHECK(lgr_chip_function(LGR_ARCS_TANH, 16, x, 4, y) == LGR_E_RANGE);
    CHECK(lgr_chip_function(LGR_VENUS_TANH, 32, x, 4, y) == LGR_E_RANGE);
    CHECK(lgr_chip_function(LGR_ARCS_TANH, 8, x, -1, y) == LGR_E_RANGE);
    CHECK(lgr_chip_function(LGR_ARCS_TANH, 8, NULL, 1, y) == LGR_E_NULL);
    CHECK(lgr_softmax(LGR_VENUS, x, 1, 4, y) == LGR_E_RANGE);
    CHECK(lgr_softmax(LGR_ARCS, x, 1, 0, y) == LGR_E_RANGE);
    CHECK(lgr_softmax(LGR_ARCS, x, 0, 0, NULL) == LGR_OK);
    CHECK(lgr_log_softmax(NULL, 1, 4, y) == LGR_E_NULL);
    CHECK(lgr_activation(0, 8, x, 2, 4, 4, 0, 4, &ep, &out, amax) == LGR_E_RANGE);
    CHECK(lgr_activation(0, 8, x, 4, 4, 4, 8, 16, &ep, &out, amax) == LGR_E_RANGE);
    CHECK(lgr_activation(0, 8, x, 4, 4, 4, 0, 4, NULL, &out, amax) == LGR_E_NULL);
    CHECK(lgr_activation_grad(99, g, x, 4, 4, 4, g) == LGR_E_RANGE);
    CHECK(lgr_softmax_codes(0, 0, x, 4, 4, 0, 1, 0, y, &ep, &out, amax) == LGR_E_RANGE);
    CHECK(lgr_softmax_codes(0, 0, x, 4, 4, 0, 1, 4, NULL, &ep, &out, amax) == LGR_E_NULL);
    CHECK(lgr_softmax_grad(g, x, 3, 4, 1, 4, g) == LGR_E_RANGE);
    CHECK(lgr_log_softmax_grad(NULL, x, 4, 4, 1, 4, g) == LGR_E_NULL);
    CHECK(lgr_glu(3, (const int8_t *)x, 4, 1, 4, 0, 0, 4, &ep, &out, amax) == LGR_E_RANGE);
    CHECK(lgr_glu(1, (const int8_t *)x, 4, 1, 4, 32, 0, 4, &ep, &out, amax) == LGR_E_RANGE);
    CHECK(lgr_glu(1, NULL, 4, 1, 4, 0, 0, 4, &ep, &out, amax) == LGR_E_NULL);
    CHECK(lgr_glu_grad(g, NULL, 4, 1, 2, g) == LGR_E_NULL);
}

int main(void)
{
    functions_equal_reference();
    rows_equal_reference();
    codes_equal_reference();
    gradients_stay_inside();
    refuses();
    return 0;
}

/* test_layer_norm.c - layer normalisation: each instruction set gives the reference's bytes, and stays in its buffers. */
#include "harness.h"
#include "lgr/layer_norm.h"

enum { N_OUT = 4, ROWS = 3 };
static const int out_bytes[N_OUT] = {1, 4, 4,
                                     4}; /* code8, code32, value, slope; the mask by rows */
static const int64_t lengths[] = {1, 2, 7, 8, 9, 31, 32, 33, 64, 255, 256, 257, 362, 1000, 70000};

static void fill_row(int8_t *x, int64_t n, int kind)
{
    fill_bytes(x, n);
    for (int64_t i = 0; i < n; ++i) {
        if (kind == 1) x[i] = x[i] < 0 ? -128 : 127;
        if (kind == 2) x[i] = x[0];
        if (kind == 3) x[i] = (int8_t)(x[i] / 50 + 90);
    }
}

static int32_t offset(int bits)
{
    return (int32_t)(random_bits() >> (32 - bits)) - (1 << (bits - 1));
}

static void rows_equal_reference(int64_t n, int kind, int gamma_bits, int beta_bits, int32_t bits)
{
    struct block x = block_new(ROWS * n, 1), gamma = block_new(4 * n, 0),
                 beta = block_new(4 * n, 0);
    struct block scratch = block_new(4 * n, 0);
    for (int r = 0; r < ROWS; ++r) fill_row((int8_t *)x.data + r * n, n, kind);
    int32_t *g = (int32_t *)(void *)gamma.data, *b = (int32_t *)(void *)beta.data;
    for (int64_t i = 0; i < n; ++i) {
        g[i] = offset(gamma_bits);
        b[i] = beta_bits < 31 ? offset(beta_bits) : (int32_t)random_bits();
    }
    const int32_t x_exp2 = (int32_t)(random_bits() % 30) - 4, shift = (int32_t)(random_bits() % 24);
    const struct lgr_layer_norm_params p = {n, lgr_layer_norm_eps(x_exp2, n), bits, g, b};
    const lgr_epilogue_spec spec = {shift, 0, 8, LGR_FLOOR_ADD, kind == 3, 0, 0.0};
    lgr_epilogue ep;
    CHECK(lgr_epilogue_make(&spec, &ep) == LGR_OK);
    const int64_t mask_bytes = ROWS * lgr_mask_row_bytes(n);
    struct block want[N_OUT + 1], got[N_OUT + 1];
    int64_t wanted[2] = {0, 0};
    for (int isa = -1; isa < N_ISA; ++isa) {
        if (isa < 0) isa_use(0);
        else if (!isa_use(isa_masks[isa])) continue;
        struct block *to = isa < 0 ? want : got;
        for (int i = 0; i <= N_OUT; ++i)
            to[i] = block_new(i < N_OUT ? out_bytes[i] * ROWS * n : mask_bytes, 0);
        const lgr_outputs out = {.code8 = (int8_t *)to[0].data,
                                 .code32 = (int32_t *)(void *)to[1].data,
                                 .value = (float *)(void *)to[2].data,
                                 .slope = (float *)(void *)to[3].data,
                                 .mask = to[4].data};
        int64_t seen[2] = {0, 0};
        CHECK(lgr_layer_norm((int8_t *)x.data, 0, ROWS, &p, &ep, &out,
                             (int32_t *)(void *)scratch.data, seen) == LGR_OK);
        if (isa < 0) memcpy(wanted, seen, sizeof seen);
        else {
            CHECK(memcmp(wanted, seen, sizeof seen) == 0);
            for (int i = 0; i <= N_OUT; ++i) {
                CHECK(memcmp(want[i].data, got[i].data, want[i].bytes) == 0);
                block_end(got[i]);
            }
        }
    }
    for (int i = 0; i <= N_OUT; ++i) block_end(want[i]);
    block_end(x);
    block_end(gamma);
    block_end(beta);
    block_end(scratch);
}

static void eps_follows_the_scale(void)
{
    CHECK(lgr_layer_norm_eps(-63, 1) == 0 && lgr_layer_norm_eps(0, 4) == 0);
    CHECK(lgr_layer_norm_eps(7, 64) == 671); /* 1e-5 * 2^14 * 4096 */
    CHECK(lgr_layer_norm_eps(INT32_MAX, 1 << 20) == (int64_t)1 << 62);
    CHECK(lgr_layer_norm_eps(INT32_MIN, 1) == 0);
}

static void arguments_are_checked(void)
{
    int8_t x[8] = {0};
    int32_t g[8] = {0}, scratch[8];
    int64_t amax[2] = {0, 0};
    const lgr_epilogue_spec spec = {0, 0, 8, LGR_FLOOR_ADD, 0, 0, 0.0};
    lgr_epilogue ep;
    CHECK(lgr_epilogue_make(&spec, &ep) == LGR_OK);
    const lgr_outputs out = {0};
    struct lgr_layer_norm_params p = {8, 0, 32, g, g};
    CHECK(lgr_layer_norm(x, 0, 1, &p, &ep, &out, scratch, amax) == LGR_OK);
    CHECK(lgr_layer_norm(NULL, 0, 0, &p, &ep, &out, scratch, amax) == LGR_OK);
    CHECK(lgr_layer_norm(NULL, 0, 1, &p, &ep, &out, scratch, amax) == LGR_E_NULL);
    CHECK(lgr_layer_norm(x, 0, 1, NULL, &ep, &out, scratch, amax) == LGR_E_NULL);
    CHECK(lgr_layer_norm(x, 1, 0, &p, &ep, &out, scratch, amax) == LGR_E_RANGE);
    p.bits = 8;
    CHECK(lgr_layer_norm(x, 0, 1, &p, &ep, &out, scratch, amax) == LGR_E_RANGE);
    p = (struct lgr_layer_norm_params){LGR_LAYER_NORM_MAX + 1, 0, 32, g, g};
    CHECK(lgr_layer_norm(x, 0, 1, &p, &ep, &out, scratch, amax) == LGR_E_RANGE);
    p = (struct lgr_layer_norm_params){8, -1, 32, g, g};
    CHECK(lgr_layer_norm(x, 0, 1, &p, &ep, &out, scratch, amax) == LGR_E_RANGE);
}

int main(void)
{
    for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; ++i)
        for (int kind = 0; kind < 4; ++kind) {
            rows_equal_reference(lengths[i], kind, 8, 18, 32);
            rows_equal_reference(lengths[i], kind, 16, 31, 16);
            rows_equal_reference(lengths[i], kind, 4, 10, 16);
        }
    eps_follows_the_scale();
    arguments_are_checked();
    puts("test_layer_norm: ok");
    return 0;
}

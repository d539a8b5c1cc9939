/* test_conv.c - every engine gives the reference's bytes, writes only its results and reads only its operands. */
#include "harness.h"
#include "lgr/conv.h"

enum { N_OUT = 6 };
static const int out_bytes[N_OUT] = {1, 2, 4, 4,
                                     4, 0}; /* code8, code16, code32, value, slope; mask by rows */

static int64_t pick(const int64_t *from, int n) { return from[random_bits() % (unsigned)n]; }
#define PICK(...) pick((const int64_t[]){__VA_ARGS__}, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8))

static lgr_conv_params some_shape(void)
{
    lgr_conv_params p = {.n = PICK(1, 2),
                         .groups = PICK(1, 1, 2, 3),
                         .kh = PICK(1, 1, 3, 2),
                         .kw = PICK(1, 1, 3, 5)};
    if (random_bits() % 3 == 0) {
        p.groups = p.c = p.o = PICK(2, 3, 16, 24, 32, 48, 64, 80, 130);
    } else {
        p.c = p.groups * PICK(1, 3, 4, 5, 16, 17);
        p.o = p.groups * PICK(1, 2, 8, 15, 16, 17, 33, 48);
    }
    p.stride_h = PICK(1, 1, 2);
    p.stride_w = PICK(1, 1, 3);
    p.dil_h = PICK(1, 1, 2);
    p.dil_w = PICK(1, 1, 3);
    p.pad_t = PICK(0, 1);
    p.pad_b = PICK(0, 2);
    p.pad_l = PICK(0, 1, 2);
    p.pad_r = PICK(0, 1);
    p.h = (p.kh - 1) * p.dil_h + PICK(1, 2, 5);
    p.w = (p.kw - 1) * p.dil_w + PICK(1, 3, 4, 11, 13, 17, 33);
    if (random_bits() % 2) { /* NHWC */
        p.xs_c = 1;
        p.xs_w = p.c;
        p.xs_h = p.w * p.c;
    } else { /* NCHW */
        p.xs_w = 1;
        p.xs_h = p.w;
        p.xs_c = p.h * p.w;
    }
    p.xs_n = p.c * p.h * p.w;
    return p;
}

struct results {
    struct block out[N_OUT];
    int64_t amax[2];
};

static struct results run(const lgr_conv_params *p, lgr_conv_engine engine, struct block x,
                          struct block w, const int32_t *bias, const lgr_epilogue *ep,
                          unsigned wanted, int64_t split)
{
    const int64_t pixels = p->n * lgr_conv_out_h(p) * lgr_conv_out_w(p),
                  count = lgr_conv_wsum_count(p, engine);
    struct block packed = block_new(lgr_conv_packed_bytes(p, engine), 2),
                 sums = block_new(8 * count, 4);
    struct results r = {.amax = {0, 0}};
    for (int i = 0; i < N_OUT; ++i)
        r.out[i] = block_new(!(wanted >> i & 1) ? 0
                             : i == 5           ? pixels * lgr_mask_row_bytes(p->o)
                                                : pixels * p->o * out_bytes[i],
                             4);
    int32_t *wsum = (int32_t *)(void *)sums.data;
    const int64_t blocks = lgr_conv_pack_blocks(p, engine);
    lgr_conv_pack(p, engine, (const int8_t *)w.data, blocks / 2, blocks, packed.data, wsum);
    lgr_conv_pack(p, engine, (const int8_t *)w.data, 0, blocks / 2, packed.data, wsum);
    void *const to[N_OUT] = {r.out[0].data, r.out[1].data, r.out[2].data,
                             r.out[3].data, r.out[4].data, r.out[5].data};
    lgr_conv_job job = {.p = *p,
                        .engine = engine,
                        .x = (const int8_t *)x.data,
                        .packed = packed.data,
                        .wsum = wsum,
                        .init = wsum + count,
                        .bias = bias,
                        .ep = ep};
    if (wanted & 1) job.out.code8 = to[0];
    if (wanted & 2) job.out.code16 = to[1];
    if (wanted & 4) job.out.code32 = to[2];
    if (wanted & 8) job.out.value = to[3];
    if (wanted & 16) job.out.slope = to[4];
    if (wanted & 32) job.out.mask = to[5];
    if (ep == NULL) job.out.acc = to[2];
    job.out.code32 = ep == NULL ? NULL : job.out.code32;
    job.out.stream = 1;
    CHECK(lgr_conv_begin(&job) == LGR_OK);
    struct block scratch = block_new(lgr_conv_scratch_bytes(&job), 3);
    for (int64_t u = 0; u < job.units; u += split) /* any split gives the same bytes */
        lgr_conv_run(&job, u, u + split < job.units ? u + split : job.units, scratch.data, r.amax);
    block_end(scratch);
    block_end(packed);
    block_end(sums);
    return r;
}

static void same_and_end(struct results a, struct results b, int with_amax)
{
    for (int i = 0; i < N_OUT; ++i) {
        CHECK(a.out[i].bytes == b.out[i].bytes &&
              memcmp(a.out[i].data, b.out[i].data, a.out[i].bytes) == 0);
        block_end(b.out[i]);
    }
    CHECK(!with_amax || (a.amax[0] == b.amax[0] && a.amax[1] == b.amax[1]));
}

static void engines_equal_reference(void)
{
    for (int round = 0; round < 400; ++round) {
        const lgr_conv_params p = some_shape();
        CHECK(lgr_conv_check(&p) == LGR_OK);
        struct block x = block_new(p.n * p.c * p.h * p.w, 1),
                     w = block_new(p.o * (p.c / p.groups) * p.kh * p.kw, 1);
        struct block b = block_new(4 * p.o, 4);
        int32_t *bias = (int32_t *)(void *)b.data;
        fill_bytes((int8_t *)x.data, (int64_t)x.bytes);
        fill_bytes((int8_t *)w.data, (int64_t)w.bytes);
        if (random_bits() % 4 == 0) memset(x.data, random_bits() % 2 ? 0x80 : 0x7f, x.bytes);
        if (random_bits() % 4 == 0) memset(w.data, random_bits() % 2 ? 0x80 : 0x7f, w.bytes);
        const int large = random_bits() % 3 == 0;
        for (int64_t i = 0; i < p.o; ++i)
            bias[i] = large ? (int32_t)random_bits() : (int32_t)(random_bits() % 60000) - 30000;
        if (large) bias[0] = random_bits() % 2 ? INT32_MIN : INT32_MAX;
        const int32_t bits = (int32_t)PICK(8, 8, 4, 16, 32);
        const lgr_epilogue_spec spec = {.acc_exp2 = (int32_t)PICK(0, 5, 9, 14, 20),
                                        .out_exp2 = (int32_t)PICK(0, 0, -12, -40),
                                        .bits = bits,
                                        .rounding = (int32_t)PICK(0, 1, 1, 2, 3),
                                        .relu = (int32_t)PICK(0, 1),
                                        .sat32 = (int32_t)PICK(0, 1),
                                        .clamp = random_bits() % 2 ? 8.0 : 0.0};
        lgr_epilogue ep;
        CHECK(lgr_epilogue_make(&spec, &ep) == LGR_OK);
        const unsigned codes = bits <= 8                         ? 1
                               : bits <= 16 && random_bits() % 2 ? 2
                                                                 : 4,
                       wanted = codes | (random_bits() % 8) << 3;
        const int32_t *with = random_bits() % 4 ? bias : NULL;
        const struct results want = run(&p, LGR_CONV_REF, x, w, with, &ep, wanted, 1 << 20);
        const struct results sums = run(&p, LGR_CONV_REF, x, w, with, NULL, 4, 1 << 20);
        for (int i = 0; i < N_ISA; ++i) {
            if (!isa_use(isa_masks[i])) continue;
            const lgr_conv_engine engine = lgr_conv_pick(&p);
            CHECK(engine != LGR_CONV_REF);
            same_and_end(want, run(&p, engine, x, w, with, &ep, wanted, PICK(1, 2, 3, 1 << 20)), 1);
            same_and_end(sums, run(&p, engine, x, w, with, NULL, 4, PICK(1, 1 << 20)), 0);
        }
        for (int i = 0; i < N_OUT; ++i) {
            block_end(want.out[i]);
            block_end(sums.out[i]);
        }
        block_end(x);
        block_end(w);
        block_end(b);
    }
}

/* Rows of a padded image that do not fit one band, and a matrix product of several pieces. */
static void large_shapes_equal_reference(void)
{
    const lgr_conv_params shapes[] = {
        {.n = 1,
         .c = 64,
         .h = 40,
         .w = 120,
         .o = 20,
         .kh = 3,
         .kw = 3,
         .stride_h = 1,
         .stride_w = 1,
         .pad_t = 1,
         .pad_l = 1,
         .pad_b = 1,
         .pad_r = 1,
         .dil_h = 2,
         .dil_w = 1,
         .groups = 1,
         .xs_n = 307200,
         .xs_c = 1,
         .xs_h = 7680,
         .xs_w = 64},
        {.n = 700,
         .c = 130,
         .h = 1,
         .w = 1,
         .o = 200,
         .kh = 1,
         .kw = 1,
         .stride_h = 1,
         .stride_w = 1,
         .dil_h = 1,
         .dil_w = 1,
         .groups = 1,
         .xs_n = 130,
         .xs_c = 1,
         .xs_h = 130,
         .xs_w = 130},
    };
    for (int k = 0; k < 2; ++k) {
        const lgr_conv_params *p = &shapes[k];
        struct block x = block_new(p->n * p->c * p->h * p->w, 0),
                     w = block_new(p->o * p->c * p->kh * p->kw, 0);
        fill_bytes((int8_t *)x.data, (int64_t)x.bytes);
        fill_bytes((int8_t *)w.data, (int64_t)w.bytes);
        const lgr_epilogue_spec spec = {
            .acc_exp2 = 12, .out_exp2 = 0, .bits = 8, .rounding = LGR_FLOOR_ADD, .sat32 = 1};
        lgr_epilogue ep;
        CHECK(lgr_epilogue_make(&spec, &ep) == LGR_OK);
        const struct results want = run(p, LGR_CONV_REF, x, w, NULL, &ep, 57, 1 << 20);
        for (int i = 0; i < N_ISA; ++i)
            if (isa_use(isa_masks[i]))
                same_and_end(want, run(p, lgr_conv_pick(p), x, w, NULL, &ep, 57, 5), 1);
        for (int i = 0; i < N_OUT; ++i) block_end(want.out[i]);
        block_end(x);
        block_end(w);
    }
}

static void bad_arguments_are_refused(void)
{
    lgr_conv_params p = {.n = 1,
                         .c = 4,
                         .h = 5,
                         .w = 5,
                         .o = 4,
                         .kh = 3,
                         .kw = 3,
                         .stride_h = 1,
                         .stride_w = 1,
                         .dil_h = 1,
                         .dil_w = 1,
                         .groups = 1,
                         .xs_n = 100,
                         .xs_c = 1,
                         .xs_h = 20,
                         .xs_w = 4};
    CHECK(lgr_conv_check(&p) == LGR_OK);
    int64_t *const fields[] = {&p.c,        &p.h,        &p.w,     &p.o,     &p.kh,    &p.kw,
                               &p.stride_h, &p.stride_w, &p.dil_h, &p.dil_w, &p.groups};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; ++i) {
        const int64_t kept = *fields[i], bad[] = {0, -1, INT64_MAX, INT64_MIN};
        for (int k = 0; k < 4; ++k) {
            *fields[i] = bad[k];
            CHECK(lgr_conv_check(&p) == LGR_E_RANGE);
        }
        *fields[i] = kept;
    }
    p.groups = 3;
    CHECK(lgr_conv_check(&p) == LGR_E_RANGE);
    p.groups = 1;
    p.kh = 6;
    CHECK(lgr_conv_check(&p) == LGR_E_RANGE);
    p.kh = 3;
    lgr_conv_job job = {.p = p};
    CHECK(lgr_conv_begin(&job) == LGR_E_NULL && lgr_conv_check(NULL) == LGR_E_NULL);
    lgr_epilogue ep;
    lgr_epilogue_spec spec = {.acc_exp2 = 0, .out_exp2 = 1, .bits = 8, .rounding = 1};
    CHECK(lgr_epilogue_make(&spec, &ep) == LGR_E_RANGE); /* a left shift of 8-bit codes */
    spec.bits = 32;
    CHECK(lgr_epilogue_make(&spec, &ep) == LGR_OK && lgr_epilogue_make(&spec, NULL) == LGR_E_NULL);
    spec.bits = 33;
    CHECK(lgr_epilogue_make(&spec, &ep) == LGR_E_RANGE);
    spec.bits = 8;
    spec.acc_exp2 = 65;
    CHECK(lgr_epilogue_make(&spec, &ep) == LGR_E_RANGE);
    spec.acc_exp2 = 5;
    spec.clamp = (double)NAN;
    CHECK(lgr_epilogue_make(&spec, &ep) == LGR_E_RANGE);
    isa_use(0); /* an engine the mask forbids */
    int8_t byte = 0;
    int32_t word = 0;
    job = (lgr_conv_job){.p = p,
                         .engine = LGR_CONV_AVX2,
                         .x = &byte,
                         .packed = &byte,
                         .wsum = &word,
                         .init = &word,
                         .ep = &ep};
    CHECK(lgr_conv_begin(&job) == LGR_E_RANGE);
}

int main(void)
{
    engines_equal_reference();
    large_shapes_equal_reference();
    bad_arguments_are_refused();
    return 0;
}

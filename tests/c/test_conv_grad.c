/* test_conv_grad.c - gradients against float64, the same bits for every split and for AVX2 and AVX-512; only results are written,
 * only operands read. */
#include "harness.h"
#include "lgr/conv_grad.h"
#include <math.h>

static int64_t pick(const int64_t *from, int n) { return from[random_bits() % (unsigned)n]; }
#define PICK(...) pick((const int64_t[]){__VA_ARGS__}, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8))

/* All strides of x, w and dy: channels-last, or as torch's contiguous tensors. */
static void some_strides(lgr_conv_grad *g)
{
    lgr_conv_params *p = &g->p;
    const int64_t oh = lgr_conv_out_h(p), ow = lgr_conv_out_w(p), cg = p->c / p->groups;
    const int last = random_bits() % 2, dy_last = random_bits() % 2, w_last = random_bits() % 2;
    p->xs_n = p->c * p->h * p->w;
    p->xs_c = last ? 1 : p->h * p->w;
    p->xs_h = last ? p->w * p->c : p->w;
    p->xs_w = last ? p->c : 1;
    g->ds_n = p->o * oh * ow;
    g->ds_o = dy_last ? 1 : oh * ow;
    g->ds_h = dy_last ? ow * p->o : ow;
    g->ds_w = dy_last ? p->o : 1;
    g->ws_o = cg * p->kh * p->kw;
    g->ws_c = w_last ? 1 : p->kh * p->kw;
    g->ws_h = w_last ? p->kw * cg : p->kw;
    g->ws_w = w_last ? cg : 1;
}
static int some_shape(lgr_conv_params *p)
{
    *p = (lgr_conv_params){.n = PICK(0, 1, 2, 5),
                           .groups = PICK(1, 1, 1, 2),
                           .h = PICK(1, 2, 5, 9),
                           .w = PICK(1, 3, 8, 13, 40),
                           .kh = PICK(1, 1, 2, 3, 5),
                           .kw = PICK(1, 1, 2, 3, 9),
                           .stride_h = PICK(1, 1, 2, 3),
                           .stride_w = PICK(1, 1, 2, 3),
                           .pad_t = PICK(0, 1, 4),
                           .pad_l = PICK(0, 1, 4),
                           .pad_b = PICK(0, 1, 2),
                           .pad_r = PICK(0, 1, 2),
                           .dil_h = PICK(1, 1, 1, 2),
                           .dil_w = PICK(1, 1, 1, 2, 3)};
    if (random_bits() % 3 == 0) {
        p->c = p->o = p->groups = PICK(2, 3, 16, 17, 32, 40, 65);
    } else {
        p->c = p->groups * PICK(1, 2, 3, 8, 16, 17, 40);
        p->o = p->groups * PICK(1, 2, 7, 8, 15, 16, 17, 33);
    }
    return lgr_conv_check(p) == LGR_OK;
}

struct operands {
    struct block x, w, dy, mask, w_mask;
};
enum { GX, GW, GB, N_RESULTS };
struct results {
    struct block at[N_RESULTS];
};

static struct results run(lgr_conv_grad g, unsigned wanted, int64_t split)
{
    const lgr_conv_params p = g.p;
    const int64_t counts[] = {p.n * p.c * p.h * p.w, p.o * (p.c / p.groups) * p.kh * p.kw, p.o};
    struct results r;
    for (int i = 0; i < N_RESULTS; ++i) r.at[i] = block_new(wanted >> i & 1 ? 4 * counts[i] : 0, 4);
    g.gx = wanted >> GX & 1 ? (float *)(void *)r.at[GX].data : NULL;
    g.gw = wanted >> GW & 1 ? (float *)(void *)r.at[GW].data : NULL;
    g.gb = wanted >> GB & 1 ? (float *)(void *)r.at[GB].data : NULL;
    CHECK(lgr_conv_grad_begin(&g) == LGR_OK);
    struct block shared = block_new(lgr_conv_grad_shared_bytes(&g), 4),
                 scratch = block_new(lgr_conv_grad_scratch_bytes(&g), 4);
    g.shared = (float *)(void *)shared.data;
    const int64_t blocks = lgr_conv_grad_blocks(&g);
    for (int64_t b = blocks; b-- > 0;) lgr_conv_grad_pack(&g, b, b + 1);
    /* backwards, as other threads might */
    for (int64_t u = (g.units - 1) / split * split; u >= 0; u -= split)
        lgr_conv_grad_run(&g, u, u + split < g.units ? u + split : g.units, scratch.data);
    for (int64_t o = 0; o < p.o; o += split)
        lgr_conv_grad_end(&g, o, o + split < p.o ? o + split : p.o);
    block_end(shared);
    block_end(scratch);
    return r;
}
static void end(struct results r)
{
    for (int i = 0; i < N_RESULTS; ++i) block_end(r.at[i]);
}

/* One result in float64: the value, the sum of the magnitudes, the number of terms. */
struct sum {
    double value, size;
    int64_t terms;
};
static int bit(const uint8_t *bits, int64_t at) { return bits[at >> 3] >> (at & 7) & 1; }
static void oracle(const lgr_conv_grad *g, struct sum *gx, struct sum *gw, struct sum *gb)
{
    const lgr_conv_params *p = &g->p;
    const int64_t oh = lgr_conv_out_h(p), ow = lgr_conv_out_w(p), cg = p->c / p->groups,
                  og = p->o / p->groups;
    const double x_step = ldexp(1.0, -g->x_exp2), w_step = ldexp(1.0, -g->w_exp2);
    for (int64_t i = 0; i < p->n * oh * ow * p->o; ++i) {
        const int64_t o = i % p->o, pixel = i / p->o, z = pixel % ow, y = pixel / ow % oh,
                      n = pixel / ow / oh;
        if (!bit(g->mask + pixel * lgr_mask_row_bytes(p->o), o)) continue;
        const double d = (double)g->dy[n * g->ds_n + o * g->ds_o + y * g->ds_h + z * g->ds_w];
        gb[o] = (struct sum){gb[o].value + d, gb[o].size + fabs(d), gb[o].terms + 1};
        for (int64_t t = 0; t < p->kh * p->kw; ++t) {
            const int64_t h = y * p->stride_h - p->pad_t + t / p->kw * p->dil_h,
                          w = z * p->stride_w - p->pad_l + t % p->kw * p->dil_w;
            if (h < 0 || h >= p->h || w < 0 || w >= p->w) continue;
            for (int64_t c = 0; c < cg; ++c) {
                const int64_t ch = o / og * cg + c, wat = o * g->ws_o + c * g->ws_c +
                                                          t / p->kw * g->ws_h + t % p->kw * g->ws_w;
                struct sum *a = gx + ((n * p->h + h) * p->w + w) * p->c + ch, *b = gw + wat;
                const double u = d * g->w[wat] * w_step,
                             v = d * x_step *
                                 g->x[n * p->xs_n + ch * p->xs_c + h * p->xs_h + w * p->xs_w];
                *a = (struct sum){a->value + u, a->size + fabs(u), a->terms + 1};
                *b = (struct sum){b->value + v, b->size + fabs(v), b->terms + 1};
            }
        }
    }
}
/* A chain of k products and sums, each rounded to 2^-24: the error is below 2 k * 2^-24 of the sum of the magnitudes. */
static void near(const struct sum *want, const unsigned char *got, int64_t n, const uint8_t *pass)
{
    for (int64_t i = 0; i < n; ++i) {
        float v;
        memcpy(&v, got + 4 * i, 4);
        const double value = pass && !bit(pass, i) ? 0.0 : want[i].value;
        CHECK(fabs((double)v - value) <= (double)(want[i].terms + 2) * 0x1p-23 * want[i].size);
    }
}

static void gradients_are_those_of_float64(int rounds)
{
    for (int round = 0; round < rounds;) {
        lgr_conv_grad g = {.x_exp2 = (int32_t)PICK(-3, 0, 5, 20), .w_exp2 = (int32_t)PICK(0, 7)};
        if (!some_shape(&g.p)) continue;
        ++round;
        some_strides(&g);
        const lgr_conv_params *p = &g.p;
        const int64_t pixels = p->n * lgr_conv_out_h(p) * lgr_conv_out_w(p),
                      inputs = p->n * p->c * p->h * p->w,
                      weights = p->o * (p->c / p->groups) * p->kh * p->kw;
        struct operands of = {
            block_new(inputs, 1), block_new(weights, 1), block_new(4 * pixels * p->o, 4),
            block_new(pixels * lgr_mask_row_bytes(p->o), 1), block_new(lgr_mask_bytes(weights), 1)};
        fill_bytes((int8_t *)of.x.data, inputs);
        fill_bytes((int8_t *)of.w.data, weights);
        fill_bytes((int8_t *)of.mask.data, (int64_t)of.mask.bytes);
        fill_bytes((int8_t *)of.w_mask.data, (int64_t)of.w_mask.bytes);
        float *dy = (float *)(void *)of.dy.data;
        for (int64_t i = 0; i < pixels * p->o; ++i) dy[i] = random_unit();
        g.x = (const int8_t *)of.x.data;
        g.w = (const int8_t *)of.w.data;
        g.dy = dy;
        g.mask = of.mask.data;
        g.w_mask = random_bits() % 2 ? of.w_mask.data : NULL;
        struct sum *want = calloc((size_t)(inputs + weights + p->o + 1), sizeof *want);
        struct sum *gx = want, *gw = gx + inputs, *gb = gw + weights;
        oracle(&g, gx, gw, gb);
        const unsigned wanted = (unsigned)PICK(7, 7, 7, 1, 2, 3, 4, 5, 6);
        struct results first = {0};
        int simd = 0;
        for (int i = -1; i < N_ISA; ++i) {
            if (!isa_use(i < 0 ? 0 : isa_masks[i])) continue;
            const struct results got = run(g, wanted, 1 << 20), again = run(g, wanted, PICK(1, 2));
            if (wanted >> GX & 1) near(gx, got.at[GX].data, inputs, NULL);
            if (wanted >> GW & 1) near(gw, got.at[GW].data, weights, g.w_mask);
            if (wanted >> GB & 1) near(gb, got.at[GB].data, p->o, NULL);
            for (int k = 0; k < N_RESULTS; ++k) {
                CHECK(memcmp(got.at[k].data, again.at[k].data, got.at[k].bytes) == 0);
                CHECK(!simd || memcmp(got.at[k].data, first.at[k].data, got.at[k].bytes) == 0);
            }
            end(again);
            if (i >= 0 && !simd) first = got;
            else end(got);
            simd = simd || i >= 0;
        }
        if (simd) end(first);
        free(want);
        block_end(of.x);
        block_end(of.w);
        block_end(of.dy);
        block_end(of.mask);
        block_end(of.w_mask);
    }
}

/* Shapes that are cut: into bands of rows, into slices of images, into channels and outputs. */
static void large_shapes_do_not_depend_on_the_split(void)
{
    const lgr_conv_params shapes[] = {
        {.n = 1,
         .c = 24,
         .h = 60,
         .w = 50,
         .o = 20,
         .kh = 3,
         .kw = 3,
         .pad_t = 1,
         .pad_l = 1,
         .pad_b = 1,
         .pad_r = 1,
         .groups = 1},
        {.n = 9,
         .c = 16,
         .h = 1,
         .w = 98,
         .o = 24,
         .kh = 1,
         .kw = 9,
         .pad_l = 4,
         .pad_r = 4,
         .groups = 1},
        {.n = 1,
         .c = 48,
         .h = 1,
         .w = 60,
         .o = 40,
         .kh = 1,
         .kw = 9,
         .pad_l = 4,
         .pad_r = 4,
         .groups = 1},
        {.n = 2,
         .c = 80,
         .h = 40,
         .w = 41,
         .o = 80,
         .kh = 3,
         .kw = 3,
         .pad_t = 1,
         .pad_l = 1,
         .pad_b = 1,
         .pad_r = 1,
         .groups = 80},
        {.n = 1100, .c = 33, .h = 1, .w = 1, .o = 40, .kh = 1, .kw = 1, .groups = 1},
    };
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; ++k) {
        lgr_conv_grad g = {.p = shapes[k], .x_exp2 = 3, .w_exp2 = 5};
        lgr_conv_params *p = &g.p;
        p->stride_h = p->stride_w = p->dil_h = p->dil_w = 1;
        some_strides(&g);
        const int64_t pixels = p->n * lgr_conv_out_h(p) * lgr_conv_out_w(p),
                      inputs = p->n * p->c * p->h * p->w,
                      weights = p->o * (p->c / p->groups) * p->kh * p->kw;
        struct block x = block_new(inputs, 1), w = block_new(weights, 1),
                     dy = block_new(4 * pixels * p->o, 4);
        fill_bytes((int8_t *)x.data, inputs);
        fill_bytes((int8_t *)w.data, weights);
        for (int64_t i = 0; i < pixels * p->o; ++i) ((float *)(void *)dy.data)[i] = random_unit();
        g.x = (const int8_t *)x.data;
        g.w = (const int8_t *)w.data;
        g.dy = (const float *)(void *)dy.data;
        for (int i = -1; i < N_ISA; ++i) {
            if (!isa_use(i < 0 ? 0 : isa_masks[i])) continue;
            const struct results got = run(g, 7, 1 << 20), again = run(g, 7, 1);
            for (int j = 0; j < N_RESULTS; ++j)
                CHECK(memcmp(got.at[j].data, again.at[j].data, got.at[j].bytes) == 0);
            end(got);
            end(again);
        }
        CHECK(lgr_conv_grad_begin(&g) == LGR_OK && g.units > 1);
        block_end(x);
        block_end(w);
        block_end(dy);
    }
}

static void bad_arguments_are_refused(void)
{
    CHECK(lgr_conv_grad_begin(NULL) == LGR_E_NULL);
    lgr_conv_grad g = {.p = {.n = 1,
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
                             .groups = 1}};
    CHECK(lgr_conv_grad_begin(&g) == LGR_E_NULL);
    g.p.groups = 3;
    CHECK(lgr_conv_grad_begin(&g) == LGR_E_RANGE);
}

int main(void)
{
    gradients_are_those_of_float64(400);
    large_shapes_do_not_depend_on_the_split();
    bad_arguments_are_refused();
    return 0;
}

/* conv_grad.c - checks, the plan, the weights in the order of the products, the choice of the twin. */
#include "kernels/conv_grad/conv_grad_isa.h"
#include "kernels/conv/conv_isa.h"
#include "lgr/cpu.h"

#define GROUP_FLOATS 65536 /* padded x and dy that are in scratch at a time: half an L2 cache */
#define SHARE 64 /* depthwise: channels that are in scratch at a time */
#define MOST_SLICES 8
#define MOST_PARTS 4 /* dense: of gx and gw together */
#define UNIT_PRODUCTS ((int64_t)1 << 19) /* worth a unit of their own */
#define SUM_FLOATS ((int64_t)1 << 22) /* of all slices */
#define PIXELS_PER_SLICE 256 /* clearing and adding the sums of a slice costs a few pixels */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t up_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t down_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -up_div(-a, b); }

/* A 1x1 product over evenly spaced pixels: one column of rows, so that bands may end anywhere. */
static void flatten(lgr_conv_grad *g)
{
    lgr_conv_params *p = &g->p;
    const int plain = p->kh == 1 && p->kw == 1 && p->stride_h == 1 && p->stride_w == 1 &&
                      !(p->pad_t | p->pad_l | p->pad_b | p->pad_r);
    const int64_t xs = p->w > 1   ? p->xs_w
                       : p->h > 1 ? p->xs_h
                                  : p->xs_n,
                  ds = p->w > 1   ? g->ds_w
                       : p->h > 1 ? g->ds_h
                                  : g->ds_n;
    const int even = (p->h == 1 || (p->xs_h == p->w * xs && g->ds_h == p->w * ds)) &&
                     (p->n <= 1 || (p->xs_n == p->h * p->w * xs && g->ds_n == p->h * p->w * ds));
    if (!plain || !even || p->n * p->h * p->w == 0) return;
    p->h *= p->n * p->w;
    p->n = p->w = 1;
    p->xs_n = p->xs_w = g->ds_n = g->ds_w = 0;
    p->xs_h = xs;
    g->ds_h = ds;
}

/* Rows and columns in scratch for a band of `rows` rows of dy. */
static void set_band(lgr_conv_grad *g, int64_t rows)
{
    const lgr_conv_params *p = &g->p;
    const int64_t bottom = g->gx ? (p->stride_h - 1 + p->pad_t) / p->stride_h : 0;
    g->band = rows;
    g->dy_rows = g->top + rows + bottom;
    g->x_rows = g->gw ? (rows - 1) * p->stride_h + (p->kh - 1) * p->dil_h + 1 : 0;
    g->dy_image = lgr_conv_up(g->dy_rows * g->dy_cols * g->dy_pixel, 16);
    g->x_image = lgr_conv_up(g->x_rows * g->x_cols * g->x_pixel, 16);
    g->patch_image = g->patches ? rows * g->ow * g->run_pad : 0;
}

static void plan_scratch(lgr_conv_grad *g)
{
    const lgr_conv_params *p = &g->p;
    const int64_t reach_h = (p->kh - 1) * p->dil_h, reach_w = (p->kw - 1) * p->dil_w;
    const int64_t above = down_div(p->pad_t - reach_h, p->stride_h),
                  before = down_div(p->pad_l - reach_w, p->stride_w);
    g->top = g->gx && above < 0 ? -above : 0;
    g->left = g->gx && before < 0 ? -before : 0;
    g->dy_cols = g->left + (g->gx ? most(g->ow, (p->w - 1 + p->pad_l) / p->stride_w + 1) : g->ow);
    g->x_cols = p->w + p->pad_l + p->pad_r;
    g->dy_pixel = g->depthwise ? g->share : p->o;
    g->x_pixel = g->depthwise ? g->share : p->c;
    const int64_t rows = most(g->oh, g->gx ? up_div(p->h, p->stride_h) : 0);
    set_band(g, 1);
    const int64_t one = g->dy_image + g->x_image + g->patch_image;
    set_band(g, most(1, least(rows, 2)));
    const int64_t more = most(1, g->dy_image + g->x_image + g->patch_image - one);
    const int64_t fit = 1 + (GROUP_FLOATS - one) / more;
    g->bands = fit < 1 ? rows : up_div(rows, least(rows, fit));
    set_band(g, up_div(rows, g->bands));
    g->bands = up_div(rows, g->band);
    const int64_t images = GROUP_FLOATS / (g->dy_image + g->x_image + g->patch_image);
    g->group = g->bands > 1 ? 1 : most(1, least(images, p->n));
}

static void plan_units(lgr_conv_grad *g)
{
    const lgr_conv_params *p = &g->p;
    const int64_t pixels = p->n * g->oh * g->ow, items = p->n * g->bands,
                  products = pixels * p->o * g->cg * p->kh * p->kw;
    const int64_t wanted = least(MOST_SLICES, products / UNIT_PRODUCTS + 1);
    const int64_t worth = least(1 + pixels / PIXELS_PER_SLICE, most(1, SUM_FLOATS / g->sums));
    g->slices = most(1, least(least(items, wanted), worth));
    if (!g->depthwise && 2 * g->slices <= least(MOST_PARTS, wanted)) g->parts = MOST_PARTS;
    g->group = most(1, least(g->group, up_div(items, g->slices)));
    g->units = g->slices * g->parts;
}

lgr_status lgr_conv_grad_begin(lgr_conv_grad *g)
{
    if (g == NULL) return LGR_E_NULL;
    lgr_status status = lgr_conv_check(&g->p);
    if (status != LGR_OK) return status;
    if (g->p.n > 0 && (g->x == NULL || g->w == NULL || g->dy == NULL)) return LGR_E_NULL;
    flatten(g);
    const lgr_conv_params *p = &g->p;
    g->oh = lgr_conv_out_h(p);
    g->ow = lgr_conv_out_w(p);
    g->cg = p->c / p->groups;
    g->og = p->o / p->groups;
    g->depthwise = lgr_conv_is_depthwise(p);
    g->joined = p->groups == 1 && p->dil_w == 1;
    const int64_t taps = p->kh * p->kw, whole = lgr_conv_up(taps * p->c, 16);
    g->runs = g->depthwise ? taps : g->joined ? p->kh : taps;
    g->run = g->depthwise ? 1 : g->joined ? p->kw * p->c : g->cg;
    g->run_pad = lgr_conv_up(g->run, 16);
    g->patches = g->gw && g->joined && p->kh > 1 && 5 * whole <= 4 * g->runs * g->run_pad;
    if (g->patches) {
        g->runs = 1;
        g->run = taps * p->c;
        g->run_pad = whole;
    }
    const int64_t padded = lgr_conv_up(p->o, 16);
    g->sums = (g->depthwise ? taps * padded : g->runs * p->o * g->run_pad) + padded;
    g->packed = g->depthwise ? taps * padded : lgr_conv_grad_blocks(g) * taps * g->og * 16;
    g->share = least(lgr_conv_up(p->c, 16), SHARE);
    g->parts = g->depthwise ? up_div(p->c, g->share) : 1;
    plan_scratch(g);
    plan_units(g);
    return LGR_OK;
}

int64_t lgr_conv_grad_shared_bytes(const lgr_conv_grad *g)
{
    return 4 * (g->packed + g->slices * g->sums + 16);
}
int64_t lgr_conv_grad_scratch_bytes(const lgr_conv_grad *g)
{
    /* a vector that starts in the last pixel may end 15 floats behind it */
    return 64 + 4 * (g->group * (g->dy_image + g->x_image + g->patch_image) + 48);
}

int64_t lgr_conv_grad_blocks(const lgr_conv_grad *g)
{
    return g->depthwise ? 1 : g->p.groups * up_div(g->cg, 16);
}

/* 16 channels of a group: [row phase][column phase][tap row][tap column, descending][output][16] */
static void pack_block(const lgr_conv_grad *g, int64_t b, float *to)
{
    const lgr_conv_params *p = &g->p;
    const int64_t blocks = up_div(g->cg, 16), c0 = b % blocks * 16, o0 = b / blocks * g->og,
                  left = least(g->cg - c0, 16);
    for (int64_t ry = 0; ry < p->stride_h; ++ry) {
        const lgr_phase y = lgr_phase_of(p->kh, p->stride_h, p->dil_h, p->pad_t, ry);
        for (int64_t rx = 0; rx < p->stride_w; ++rx) {
            const lgr_phase x = lgr_phase_of(p->kw, p->stride_w, p->dil_w, p->pad_l, rx);
            for (int64_t i = 0; i < y.count; ++i)
                for (int64_t j = x.count - 1; j >= 0; --j)
                    for (int64_t o = 0; o < g->og; ++o, to += 16) {
                        const int8_t *w = g->w + (o0 + o) * g->ws_o + c0 * g->ws_c +
                                          (y.first + i * y.step) * g->ws_h +
                                          (x.first + j * x.step) * g->ws_w;
                        for (int64_t l = 0; l < left; ++l) to[l] = (float)w[l * g->ws_c];
                        for (int64_t l = left; l < 16; ++l) to[l] = 0.0f;
                    }
        }
    }
}

void lgr_conv_grad_pack(const lgr_conv_grad *g, int64_t b0, int64_t b1)
{
    const lgr_conv_params *p = &g->p;
    if (g->gx == NULL) return;
    if (!g->depthwise) {
        const int64_t size = p->kh * p->kw * g->og * 16;
        for (; b0 < b1; ++b0) pack_block(g, b0, g->shared + b0 * size);
        return;
    }
    const int64_t padded = lgr_conv_up(p->c, 16);
    for (int64_t t = 0; t < p->kh * p->kw; ++t) {
        const int8_t *w = g->w + t / p->kw * g->ws_h + t % p->kw * g->ws_w;
        for (int64_t c = 0; c < padded; ++c)
            g->shared[t * padded + c] = c < p->c ? (float)w[c * g->ws_o] : 0.0f;
    }
}

static const lgr_conv_grad_isa *isa(void)
{
    const unsigned flags = lgr_cpu_flags();
    (void)flags;
#if LGR_HAVE_AVX512VNNI
    if (flags & LGR_CPU_AVX512VNNI) return &lgr_conv_grad_isa_avx512vnni;
#endif
#if LGR_HAVE_AVX2
    if (flags & LGR_CPU_AVX2) return &lgr_conv_grad_isa_avx2fma;
#endif
    return &lgr_conv_grad_isa_ref;
}
void lgr_conv_grad_run(const lgr_conv_grad *g, int64_t u0, int64_t u1, void *scratch)
{
    uint8_t *at = scratch;
    at += (64 - (uintptr_t)at % 64) % 64;
    for (; u0 < u1; ++u0) isa()->run(g, u0, (float *)(void *)at);
}
void lgr_conv_grad_end(const lgr_conv_grad *g, int64_t o0, int64_t o1)
{
    if (o0 < o1) isa()->end(g, o0, o1);
}

/* dense.h - the two dense products of a band of images in scratch. */
#include "kernels/conv_grad/dense_tiles.h"

/* pixels of gw whose lines of x and dy stay in L1 while all tiles pass over them */
#define BLOCK 192

/* Channels of blocks [b0, b1) of 16. */
static void gx_dense(const work *k, int64_t b0, int64_t b1)
{
    const lgr_conv_grad *g = k->g;
    const lgr_conv_params *p = &g->p;
    const int64_t blocks = (g->cg + 15) / 16, row = g->dy_cols * g->dy_pixel,
                  size = p->kh * p->kw * g->og * 16;
    gx_run t = {.step = g->dy_pixel, .scale = k->w_step, .to_step = p->stride_w * p->c};
    /* rows without a border are one long row */
    const int flat = p->stride_h == 1 && p->stride_w == 1 && g->dy_cols == p->w;
    for (int64_t b = b0; b < b1; ++b) {
        const int64_t group = b / blocks, c0 = b % blocks * 16;
        t.w = g->shared + b * size;
        t.left = g->cg - c0;
        for (int64_t ry = 0; ry < p->stride_h; ++ry) {
            const lgr_phase y = lgr_phase_of(p->kh, p->stride_h, p->dil_h, p->pad_t, ry);
            for (int64_t rx = 0; rx < p->stride_w; ++rx) {
                const lgr_phase x = lgr_phase_of(p->kw, p->stride_w, p->dil_w, p->pad_l, rx);
                const int run = p->groups == 1 && x.move == 1;
                t.ni = x.count ? y.count : 0;
                t.nj = run ? 1 : x.count;
                t.len = run ? x.count * g->og : g->og;
                t.row = y.move * row;
                t.col = x.move * g->dy_pixel;
                const float *dy = k->dy + group * g->og + (g->top + y.at) * row +
                                  (g->left + x.at - (x.count - 1) * x.move) * g->dy_pixel;
                const int64_t columns = rx < p->w ? (p->w - rx + p->stride_w - 1) / p->stride_w : 0;
                for (int64_t n = 0; n < k->images; ++n)
                    for (int64_t r = 0; r < k->rows; ++r) {
                        const int64_t h = (k->row + r) * p->stride_h + ry;
                        if (h >= p->h) break;
                        const int64_t all = p->h - h < k->rows ? p->h - h : k->rows;
                        t.dy = dy + n * g->dy_image + r * row;
                        t.to = g->gx + (((k->image + n) * p->h + h) * p->w + rx) * p->c +
                               group * g->cg + c0;
                        gx_all(&t, flat ? all * p->w : columns);
                        if (flat) break;
                    }
                t.w += y.count * x.count * g->og * 16;
            }
        }
    }
}

/* Sums of outputs [o0, o1) of one group, at one run of places, over the pixels of a block. */
static void gw_block(const work *k, const gw_run *block, int64_t o0, int64_t o1, float *sums)
{
    const lgr_conv_grad *g = k->g;
    for (int64_t r = 0; r < g->run; r += 16) {
        gw_run t = *block;
        t.x += r;
        t.dy += o0;
        t.to = sums + o0 * g->run_pad + r;
        t.to_step = g->run_pad;
        gw_all(&t, o1 - o0, g->run - r);
    }
}

/* All runs of outputs [o0, o1) over the pixels of a block; x of its first pixel is `x` before the taps. */
static void gw_runs(const work *k, const gw_run *block, int64_t o0, int64_t o1)
{
    const lgr_conv_grad *g = k->g;
    const lgr_conv_params *p = &g->p;
    for (int64_t i = 0; i < g->runs; ++i) {
        const int64_t ky = g->joined ? i : i / p->kw, kx = g->joined ? 0 : i % p->kw;
        gw_run t = *block;
        t.x += ky * p->dil_h * g->x_cols * g->x_pixel + kx * p->dil_w * g->x_pixel;
        for (int64_t o = o0; o < o1;) { /* group by group */
            const int64_t group = o / g->og,
                          end = (group + 1) * g->og < o1 ? (group + 1) * g->og : o1;
            gw_run of = t;
            of.x += group * g->cg;
            gw_block(k, &of, o, end, k->sums + i * p->o * g->run_pad);
            o = end;
        }
    }
}

static void gw_dense(const work *k, int64_t o0, int64_t o1)
{
    const lgr_conv_grad *g = k->g;
    const lgr_conv_params *p = &g->p;
    const int64_t row = g->dy_cols * g->dy_pixel,
                  rows = g->oh - k->row < k->rows ? g->oh - k->row : k->rows;
    gw_run t = {.x_image = g->patches ? g->patch_image : g->x_image,
                .dy_image = g->dy_image,
                .x_row = g->patches ? g->ow * g->run_pad : p->stride_h * g->x_cols * g->x_pixel,
                .dy_row = row,
                .x_step = g->patches ? g->run_pad : p->stride_w * g->x_pixel,
                .dy_step = g->dy_pixel};
    /* rows without a border are one long row */
    const int flat = g->dy_cols == g->ow && t.x_row == g->ow * t.x_step;
    const int64_t width = flat ? rows * g->ow : g->ow, height = flat ? 1 : rows;
    if (rows <= 0) return;
    const int64_t some_rows = width >= BLOCK ? 1 : BLOCK / width < height ? BLOCK / width : height;
    const int64_t pixels = width * height, some = pixels >= BLOCK ? 1 : BLOCK / pixels;
    const int64_t pieces = (width + BLOCK - 1) / BLOCK;
    for (int64_t n = 0; n < k->images; n += some)
        for (int64_t y = 0; y < height; y += some_rows)
            for (int64_t i = 0; i < pieces; ++i) {
                const int64_t z = i * width / pieces;
                t.images = k->images - n < some ? k->images - n : some;
                t.rows = height - y < some_rows ? height - y : some_rows;
                t.count = (i + 1) * width / pieces - z;
                t.x = (g->patches ? k->patches : k->x) + n * t.x_image + y * t.x_row + z * t.x_step;
                t.dy = k->dy + n * g->dy_image + (g->top + y) * row + (g->left + z) * t.dy_step;
                gw_runs(k, &t, o0, o1);
            }
}

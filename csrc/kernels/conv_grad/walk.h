/* walk.h - one unit: dy masked and x widened into scratch, band by band, then the products. In the lanes of the including twin,
 * which defines TILE_M, the rows of a register tile, EACH_TILE(f), f(1) ... f(TILE_M), and TWIN, the name of its functions. */
#include "kernels/conv_grad/conv_grad_isa.h"

/* Where a unit is: images and rows of dy that are in scratch, and its sums. */
typedef struct work {
    const lgr_conv_grad *g;
    int64_t image, images; /* in scratch */
    int64_t row, rows; /* of dy, without border */
    float *x, *dy, *patches; /* scratch */
    float *sums, *bias; /* of this slice */
    float w_step;
} work;

#include "kernels/conv_grad/dense.h"
#include "kernels/conv_grad/depthwise.h"
#include "kernels/conv_grad/finish.h"

LGR_VEC vf spread_load(const float *p, int64_t stride, int64_t n)
{
    float lane[FL] = {0};
    for (int64_t i = 0; i < n && i < FL; ++i) lane[i] = p[i * stride];
    return f_load(lane);
}

typedef struct pixels {
    const float *dy; /* first pixel, first channel */
    int64_t step, channel; /* strides of dy */
    const uint8_t *mask; /* first pixel, or NULL */
    int64_t c0, n; /* the mask's bit of the first channel, channels */
    int64_t count;
    float *to;
    int64_t pixel; /* floats per pixel of scratch */
    float *bias; /* or NULL */
} pixels;

/* V vectors of masked channels of every pixel, from the i-th on. WHOLE: all of them are there, one behind the other. */
LGR_VEC void fill_vectors(const int V, const int WHOLE, const pixels *of, int64_t bytes, int64_t i)
{
    const int64_t left = of->n - i, room = of->pixel - i;
    vf sum[4];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[v] = f_set(0.0f);
    for (int64_t z = 0; z < of->count; ++z) {
        const float *from = of->dy + z * of->step + i * of->channel;
        float *to = of->to + z * of->pixel + i;
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            vf d = WHOLE              ? f_load(from + v * FL)
                   : of->channel == 1 ? f_load_n(from, left)
                                      : spread_load(from, of->channel, left);
            if (of->mask && left > 0) d = f_pass(d, of->mask + z * bytes, of->c0 + i + v * FL);
            if (WHOLE) f_store(to + v * FL, d);
            else f_store_n(to, d, room);
            sum[v] = sum[v] + d;
        }
    }
    if (of->bias && left > 0)
        for (int v = 0; v < V; ++v)
            f_store(of->bias + i + v * FL, f_load(of->bias + i + v * FL) + sum[v]);
}
static void fill_pixels(const pixels *of, int64_t bytes)
{
    int64_t i = 0;
    if (of->channel == 1)
        for (; of->n - i >= 4 * FL; i += 4 * FL) fill_vectors(4, 1, of, bytes, i);
    if (of->channel == 1)
        for (; of->n - i >= FL; i += FL) fill_vectors(1, 1, of, bytes, i);
    for (; i < of->pixel; i += FL) fill_vectors(1, 0, of, bytes, i);
}

static void fill_dy(const work *k, int64_t m, int64_t c0, int64_t n, float *bias)
{
    const lgr_conv_grad *g = k->g;
    const int64_t row = g->dy_cols * g->dy_pixel, image = k->image + m, after = g->left + g->ow,
                  bytes = lgr_mask_row_bytes(g->p.o);
    float *to = k->dy + m * g->dy_image;
    for (int64_t r = 0; r < g->dy_rows; ++r, to += row) {
        const int64_t y = k->row + r - g->top;
        if (y < 0 || y >= g->oh) {
            memset(to, 0, (size_t)row * 4);
            continue;
        }
        memset(to, 0, (size_t)(g->left * g->dy_pixel) * 4);
        memset(to + after * g->dy_pixel, 0, (size_t)((g->dy_cols - after) * g->dy_pixel) * 4);
        const int own = bias && y >= k->row && y < k->row + k->rows; /* not another band's */
        const pixels of = {.dy = g->dy + image * g->ds_n + y * g->ds_h + c0 * g->ds_o,
                           .step = g->ds_w,
                           .channel = g->ds_o,
                           .mask = g->mask ? g->mask + (image * g->oh + y) * g->ow * bytes : NULL,
                           .c0 = c0,
                           .n = n,
                           .count = g->ow,
                           .to = to + g->left * g->dy_pixel,
                           .pixel = g->dy_pixel,
                           .bias = own ? bias + c0 : NULL};
        fill_pixels(&of, bytes);
    }
}

LGR_VEC void widen(const int8_t *x, int64_t n, float *to)
{
    int64_t i = 0;
    for (; i + FL <= n; i += FL) f_store(to + i, f_codes(x + i));
    f_store_n(to + i, f_codes_n(x + i, n - i), n - i);
}

static void fill_x(const work *k, int64_t m, int64_t c0, int64_t n)
{
    const lgr_conv_grad *g = k->g;
    const lgr_conv_params *p = &g->p;
    const int64_t pixel = g->x_pixel, row = g->x_cols * pixel;
    float *to = k->x + m * g->x_image;
    const int8_t *image = g->x + (k->image + m) * p->xs_n + c0 * p->xs_c;
    const int dense = p->xs_c == 1 && p->xs_w == pixel && n == pixel;
    for (int64_t r = 0; r < g->x_rows; ++r, to += row) {
        const int64_t y = k->row * p->stride_h - p->pad_t + r;
        if (y < 0 || y >= p->h) {
            memset(to, 0, (size_t)row * 4);
            continue;
        }
        const int8_t *x = image + y * p->xs_h;
        float *at = to + p->pad_l * pixel;
        memset(to, 0, (size_t)(p->pad_l * pixel) * 4);
        memset(at + p->w * pixel, 0, (size_t)(p->pad_r * pixel) * 4);
        if (dense) {
            widen(x, p->w * pixel, at);
        } else if (p->xs_c == 1) {
            for (int64_t z = 0; z < p->w; ++z, at += pixel) {
                widen(x + z * p->xs_w, n, at);
                if (n < pixel) memset(at + n, 0, (size_t)(pixel - n) * 4);
            }
        } else {
            if (n < pixel) memset(at, 0, (size_t)(p->w * pixel) * 4);
            for (int64_t c = 0; c < n; ++c)
                for (int64_t z = 0; z < p->w; ++z)
                    at[z * pixel + c] = (float)x[z * p->xs_w + c * p->xs_c];
        }
    }
}

/* The windows of a band, each as one run of taps x channels: columns that a kernel row's few channels would leave empty. */
static void fill_patches(const work *k, int64_t m)
{
    const lgr_conv_grad *g = k->g;
    const lgr_conv_params *p = &g->p;
    const int64_t wide = p->kw * p->c, row = g->x_cols * g->x_pixel;
    const float *x = k->x + m * g->x_image;
    float *to = k->patches + m * g->patch_image;
    for (int64_t r = 0; r < k->rows && k->row + r < g->oh; ++r)
        for (int64_t z = 0; z < g->ow; ++z, to += g->run_pad) {
            const float *from = x + r * p->stride_h * row + z * p->stride_w * g->x_pixel;
            for (int64_t i = 0; i < p->kh;
                 ++i) /* whole vectors: what is too much is written over */
                for (int64_t j = 0; j < wide; j += FL)
                    f_store(to + i * wide + j, f_load(from + i * p->dil_h * row + j));
        }
}

/* What a part of a slice computes: channels of gx, outputs of gw. */
typedef struct piece {
    int64_t c0, c1, o0, o1;
    int bias;
} piece;

static piece piece_of(const lgr_conv_grad *g, int64_t part)
{
    const lgr_conv_params *p = &g->p;
    if (g->depthwise) {
        const int64_t c0 = part * g->share, c1 = c0 + g->share < p->c ? c0 + g->share : p->c;
        return (piece){g->gx ? c0 : c1, c1, g->gw ? c0 : c1, c1, 1};
    }
    const int64_t blocks = g->gx ? lgr_conv_grad_blocks(g) : 0, outputs = g->gw ? p->o : 0;
    if (g->parts == 1) return (piece){0, blocks, 0, outputs, 1};
    const int64_t half = g->gx && g->gw ? g->parts / 2 : g->parts, i = part % half;
    const piece x = {i * blocks / half, (i + 1) * blocks / half, 0, 0, part == g->parts - 1},
                w = {0, 0, i * outputs / half, (i + 1) * outputs / half, part == g->parts - 1};
    return g->gx && part < half ? x : w;
}

static void clear(const lgr_conv_grad *g, const piece *of, float *sums)
{
    const int64_t width = g->depthwise ? 1 : g->run_pad,
                  outputs = g->depthwise ? (g->p.o + 15) / 16 * 16 : g->p.o;
    for (int64_t r = 0; r < g->runs; ++r)
        memset(sums + (r * outputs + of->o0) * width, 0, (size_t)((of->o1 - of->o0) * width) * 4);
}

static void run(const lgr_conv_grad *g, int64_t unit, float *scratch)
{
    const lgr_conv_params *p = &g->p;
    const int64_t slice = unit / g->parts, padded = (p->o + 15) / 16 * 16;
    const piece of = piece_of(g, unit % g->parts);
    float *sums = g->shared + g->packed + slice * g->sums;
    work k = {.g = g,
              .dy = scratch,
              .x = scratch + g->group * g->dy_image,
              .patches = scratch + g->group * (g->dy_image + g->x_image),
              .sums = sums,
              .bias = sums + g->sums - padded,
              .w_step = g->w_exp2 == LGR_EXP2_NAN ? 0.0f : lgr_exp2_scale(-g->w_exp2)};
    const int64_t c0 = g->depthwise ? unit % g->parts * g->share : 0,
                  n = g->depthwise && p->c - c0 < g->share ? p->c - c0 : g->share,
                  x_n = g->depthwise ? n : p->c, dy_n = g->depthwise ? n : p->o;
    const int64_t bias_n = g->depthwise ? (n + 15) / 16 * 16 : padded;
    if (of.bias) memset(k.bias + c0, 0, (size_t)bias_n * 4);
    clear(g, &of, sums);
    const int64_t items = p->n * g->bands, end = (slice + 1) * items / g->slices;
    for (int64_t i = slice * items / g->slices; i < end; i += k.images) {
        k.image = i / g->bands;
        k.images = end - i < g->group ? end - i : g->group;
        k.row = i % g->bands * g->band;
        k.rows = g->band;
        for (int64_t m = 0; m < k.images; ++m) {
            if (of.o1 > of.o0) fill_x(&k, m, c0, x_n);
            if (of.o1 > of.o0 && g->patches) fill_patches(&k, m);
            fill_dy(&k, m, c0, dy_n, of.bias ? k.bias : NULL);
        }
        if (g->depthwise) {
            if (g->gw) gw_depthwise(&k, c0, n);
            if (g->gx) gx_depthwise(&k, c0, n);
        } else {
            if (of.o1 > of.o0) gw_dense(&k, of.o0, of.o1);
            if (of.c1 > of.c0) gx_dense(&k, of.c0, of.c1);
        }
    }
}

const lgr_conv_grad_isa TWIN = {.run = run, .end = finish};

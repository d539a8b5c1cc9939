/* depthwise.h - one channel per group, in the lanes of the including twin: FL channels of AHEAD pixels at a time.
 * A sum's terms are added in one order whatever is done at a time. */

enum { AHEAD = 4 }; /* neighbours share the columns that their windows have in common */

typedef struct dw_run {
    const float *x,
        *dy; /* gx: dy of the first pixel at the first tap; gw: both of the first pixel */
    int64_t row, col; /* from tap row to tap row, from tap column to column: up in dy, on in x */
    int64_t step; /* from pixel to pixel of what the taps move over */
    int64_t rows, x_row, dy_row; /* gw: rows of pixels */
    int64_t count; /* pixels of a row */
    const float *w; /* gx: first tap */
    int64_t w_row, w_col; /* from tap to tap, of w or of the sums */
    int64_t ny, nx; /* taps */
    float scale;
    float *to; /* gx: first pixel; gw: the sums of the first tap */
    int64_t to_step, left; /* gx: from pixel to pixel; channels */
} dw_run;

/* gx of P pixels, NY x NX known weights k: tap rows down, in each the columns of dy upwards */
LGR_VEC void dw_gx_known(const int P, const int NY, const int NX, const dw_run *t, vf k[3][3],
                         int64_t q)
{
    vf acc[AHEAD];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) acc[p] = f_set(0.0f);
#pragma GCC unroll 3
    for (int i = 0; i < NY; ++i)
#pragma GCC unroll 8
        for (int c = 0; c < P + NX - 1; ++c) {
            const vf v = f_load(t->dy - i * t->row + (q + c - (NX - 1)) * t->step);
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) {
                const int j = p + NX - 1 - c;
                if (j >= 0 && j < NX) acc[p] = f_fma(v, k[i][j], acc[p]);
            }
        }
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
        f_store_n(t->to + (q + p) * t->to_step, acc[p] * f_set(t->scale), t->left);
}
LGR_VEC void dw_gx_fixed(const int NY, const int NX, const dw_run *t)
{
    vf k[3][3];
    int64_t q = 0;
#pragma GCC unroll 3
    for (int i = 0; i < NY; ++i)
#pragma GCC unroll 3
        for (int j = 0; j < NX; ++j) k[i][j] = f_load(t->w + i * t->w_row + j * t->w_col);
    for (; q + AHEAD <= t->count; q += AHEAD) dw_gx_known(AHEAD, NY, NX, t, k, q);
    for (; q < t->count; ++q) dw_gx_known(1, NY, NX, t, k, q);
}
/* any number of taps, in the same order */
LGR_VEC void dw_gx_some(const int P, const dw_run *t, int64_t q)
{
    vf acc[AHEAD];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) acc[p] = f_set(0.0f);
    for (int64_t i = 0; i < t->ny; ++i)
        for (int64_t j = t->nx - 1; j >= 0; --j) {
            const vf k = f_load(t->w + i * t->w_row + j * t->w_col);
            const float *dy = t->dy - i * t->row - j * t->col + q * t->step;
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) acc[p] = f_fma(f_load(dy + p * t->step), k, acc[p]);
        }
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
        f_store_n(t->to + (q + p) * t->to_step, acc[p] * f_set(t->scale), t->left);
}
static void dw_gx_row(const dw_run *t)
{
    int64_t q = 0;
    const int near = t->col == t->step;
    if (near && t->ny == 3 && t->nx == 3) dw_gx_fixed(3, 3, t);
    else if (near && t->ny == 2 && t->nx == 2) dw_gx_fixed(2, 2, t);
    else if (near && t->ny == 2 && t->nx == 1) dw_gx_fixed(2, 1, t);
    else if (near && t->ny == 1 && t->nx == 2) dw_gx_fixed(1, 2, t);
    else if (near && t->ny == 1 && t->nx == 1) dw_gx_fixed(1, 1, t);
    else {
        for (; q + AHEAD <= t->count; q += AHEAD) dw_gx_some(AHEAD, t, q);
        for (; q < t->count; ++q) dw_gx_some(1, t, q);
    }
}

/* Sums of NY x NX taps over P pixels of a row; NEAR: the next pixel is the next column. */
LGR_VEC void dw_gw_pixels(const int P, const int NY, const int NX, const int NEAR, const dw_run *t,
                          const float *x, const float *dy, int64_t dy_step, vf acc[3][3])
{
    vf d[AHEAD];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) d[p] = f_load(dy + p * dy_step);
#pragma GCC unroll 3
    for (int i = 0; i < NY; ++i) {
        if (NEAR) {
#pragma GCC unroll 8
            for (int c = 0; c < P + NX - 1; ++c) {
                const vf v = f_load(x + i * t->row + c * t->col);
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p)
                    if (c - p >= 0 && c - p < NX) acc[i][c - p] = f_fma(d[p], v, acc[i][c - p]);
            }
        } else {
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p)
#pragma GCC unroll 3
                for (int j = 0; j < NX; ++j)
                    acc[i][j] =
                        f_fma(d[p], f_load(x + i * t->row + j * t->col + p * t->step), acc[i][j]);
        }
    }
}
LGR_VEC void dw_gw_taps(const int NY, const int NX, const int NEAR, const dw_run *t,
                        int64_t dy_step)
{
    vf acc[3][3];
#pragma GCC unroll 3
    for (int i = 0; i < NY; ++i)
#pragma GCC unroll 3
        for (int j = 0; j < NX; ++j) acc[i][j] = f_load(t->to + i * t->w_row + j * t->w_col);
    for (int64_t r = 0; r < t->rows; ++r) {
        const float *x = t->x + r * t->x_row, *dy = t->dy + r * t->dy_row;
        int64_t q = 0;
        for (; q + AHEAD <= t->count; q += AHEAD, x += AHEAD * t->step, dy += AHEAD * dy_step)
            dw_gw_pixels(AHEAD, NY, NX, NEAR, t, x, dy, dy_step, acc);
        for (; q < t->count; ++q, x += t->step, dy += dy_step)
            dw_gw_pixels(1, NY, NX, NEAR, t, x, dy, dy_step, acc);
    }
#pragma GCC unroll 3
    for (int i = 0; i < NY; ++i)
#pragma GCC unroll 3
        for (int j = 0; j < NX; ++j) f_store(t->to + i * t->w_row + j * t->w_col, acc[i][j]);
}
/* Taps in squares of 3 x 3, what is left in rows, columns and one by one. */
static void dw_gw_all(const dw_run *all, int64_t dy_step)
{
    const int near = all->col == all->step;
    for (int64_t i = 0; i < all->ny;) {
        const int64_t ny = all->ny - i >= 3 ? 3 : 1;
        for (int64_t j = 0; j < all->nx;) {
            const int64_t nx = all->nx - j >= 3 ? 3 : 1;
            dw_run t = *all;
            t.x += i * t.row + j * t.col;
            t.to += i * t.w_row + j * t.w_col;
            if (ny == 3 && nx == 3 && near) dw_gw_taps(3, 3, 1, &t, dy_step);
            else if (ny == 3 && nx == 3) dw_gw_taps(3, 3, 0, &t, dy_step);
            else if (nx == 3 && near) dw_gw_taps(1, 3, 1, &t, dy_step);
            else if (nx == 3) dw_gw_taps(1, 3, 0, &t, dy_step);
            else if (ny == 3) dw_gw_taps(3, 1, 0, &t, dy_step);
            else dw_gw_taps(1, 1, 0, &t, dy_step);
            j += nx;
        }
        i += ny;
    }
}

/* Channels [c0, c0 + n) of a band of images; scratch has share channels per pixel. */
static void gx_depthwise(const work *k, int64_t c0, int64_t n)
{
    const lgr_conv_grad *g = k->g;
    const lgr_conv_params *p = &g->p;
    const int64_t row = g->dy_cols * g->share, padded = (p->c + 15) / 16 * 16;
    for (int64_t m = 0; m < k->images; ++m)
        for (int64_t r = 0; r < k->rows * p->stride_h; ++r) {
            const int64_t h = k->row * p->stride_h + r;
            if (h >= p->h) break;
            const lgr_phase y =
                lgr_phase_of(p->kh, p->stride_h, p->dil_h, p->pad_t, r % p->stride_h);
            for (int64_t rx = 0; rx < p->stride_w && rx < p->w; ++rx) {
                const lgr_phase x = lgr_phase_of(p->kw, p->stride_w, p->dil_w, p->pad_l, rx);
                dw_run t = {.row = y.move * row,
                            .col = x.move * g->share,
                            .step = g->share,
                            .count = (p->w - rx + p->stride_w - 1) / p->stride_w,
                            .w_row = y.step * p->kw * padded,
                            .w_col = x.step * padded,
                            .ny = x.count ? y.count : 0,
                            .nx = y.count ? x.count : 0,
                            .scale = k->w_step,
                            .to_step = p->stride_w * p->c};
                const float *dy = k->dy + m * g->dy_image +
                                  (g->top + r / p->stride_h + y.at) * row +
                                  (g->left + x.at) * g->share;
                const float *w = g->shared + (y.first * p->kw + x.first) * padded + c0;
                float *to = g->gx + (((k->image + m) * p->h + h) * p->w + rx) * p->c + c0;
                for (int64_t c = 0; c < n; c += FL) {
                    t.dy = dy + c;
                    t.w = w + c;
                    t.to = to + c;
                    t.left = n - c;
                    dw_gx_row(&t);
                }
            }
        }
}
static void gw_depthwise(const work *k, int64_t c0, int64_t n)
{
    const lgr_conv_grad *g = k->g;
    const lgr_conv_params *p = &g->p;
    const int64_t padded = (p->c + 15) / 16 * 16, row = g->x_cols * g->share;
    dw_run t = {.row = p->dil_h * row,
                .col = p->dil_w * g->share,
                .step = p->stride_w * g->share,
                .rows = g->oh - k->row < k->rows ? g->oh - k->row : k->rows,
                .x_row = p->stride_h * row,
                .dy_row = g->dy_cols * g->share,
                .count = g->ow,
                .w_row = p->kw * padded,
                .w_col = padded,
                .ny = p->kh,
                .nx = p->kw};
    for (int64_t m = 0; m < k->images; ++m)
        for (int64_t c = 0; c < n; c += FL) {
            t.x = k->x + m * g->x_image + c;
            t.dy = k->dy + m * g->dy_image + g->top * t.dy_row + g->left * g->share + c;
            t.to = k->sums + c0 + c;
            dw_gw_all(&t, g->share);
        }
}

/* backward_products.h - the float products of backward through time, in the names of grad_lanes_*.h.
 *
 * Gate gradients of a chunk of steps stay in the L2 cache as [gate][unit block][row][16], the layout that all products want: the
 * recurrent one and that of dx read it broadcast along 16, that of dW broadcast across rows.
 */
#ifndef LGR_BACKWARD_PRODUCTS_H
#define LGR_BACKWARD_PRODUCTS_H
#include "kernels/recurrent/recurrent_sizes.h"
#include "lgr/recurrent.h"

/* out[m][0 .. 2 FL) (+)= sum of a[block][m][16] * w[block][16][32]; `sums` partial sums hide the latency of small m */
LGR_VEC void rows_tile(const int m_rows, const int sums, const float *a, int64_t cap,
                       int64_t blocks, const float *w, float *const *out, int64_t n0,
                       int64_t columns, const int add)
{
    vf acc[4][TILE_M][2];
#pragma GCC unroll 4
    for (int s = 0; s < sums; ++s)
#pragma GCC unroll 8
        for (int m = 0; m < m_rows; ++m) acc[s][m][0] = acc[s][m][1] = f_set(0.0f);
    for (int64_t b = 0; b < blocks; ++b, a += cap * LGR_UNITS, w += LGR_UNITS * LGR_PANEL)
        for (int j = 0; j < LGR_UNITS; j += sums)
#pragma GCC unroll 4
            for (int s = 0; s < sums; ++s) {
                const vf w0 = f_load(w + (j + s) * LGR_PANEL),
                         w1 = f_load(w + (j + s) * LGR_PANEL + FL);
#pragma GCC unroll 8
                for (int m = 0; m < m_rows; ++m) {
                    const vf x = f_set(a[m * LGR_UNITS + j + s]);
                    acc[s][m][0] = f_fma(x, w0, acc[s][m][0]);
                    acc[s][m][1] = f_fma(x, w1, acc[s][m][1]);
                }
            }
#pragma GCC unroll 8
    for (int m = 0; m < m_rows; ++m)
#pragma GCC unroll 2
        for (int e = 0; e < 2; ++e) {
            vf r = acc[0][m][e];
            float *to = out[m] + n0 + e * FL;
            const int64_t left = columns - n0 - e * FL;
#pragma GCC unroll 4
            for (int s = 1; s < sums; ++s) r = r + acc[s][m][e];
            if (add) r = r + f_load_n(to, left);
            f_store_n(to, r, left);
        }
}
/**
 * rows x panels -> out rows. w: panels of `all` blocks, of which `blocks` from `first` on enter. rows_of: row numbers in out
 * (NULL: consecutive). add: onto what is there.
 */
LGR_VEC void rows_times(int64_t rows, const float *a, int64_t cap, const float *w, int64_t all,
                        int64_t first, int64_t blocks, int64_t columns, float *out, int64_t stride,
                        const int64_t *rows_of, const int add)
{
    for (int64_t n0 = 0; n0 < columns; n0 += 2 * FL) {
        const float *wn =
            w + ((n0 / LGR_PANEL) * all + first) * LGR_UNITS * LGR_PANEL + n0 % LGR_PANEL;
        for (int64_t m = 0; m < rows;) {
            float *o[TILE_M];
            const int64_t left = rows - m, take = left >= TILE_M ? TILE_M
                                                  : left >= 4    ? 4
                                                  : left >= 2    ? 2
                                                                 : 1;
            for (int64_t i = 0; i < take; ++i)
                o[i] = out + (rows_of ? rows_of[m + i] : m + i) * stride;
            const float *am = a + m * LGR_UNITS;
            if (take == TILE_M) rows_tile(TILE_M, 1, am, cap, blocks, wn, o, n0, columns, add);
            else if (take == 4) rows_tile(4, 2, am, cap, blocks, wn, o, n0, columns, add);
            else if (take == 2) rows_tile(2, 4, am, cap, blocks, wn, o, n0, columns, add);
            else rows_tile(1, 4, am, cap, blocks, wn, o, n0, columns, add);
            m += take;
        }
    }
}
/* o[m][0 .. 2 FL) += sum over rows of a[row][m] * c[row] */
LGR_VEC void weight_tile(const int m_rows, int64_t rows, const float *a, const float *c, float *o,
                         int64_t width)
{
    vf acc[TILE_M][2];
#pragma GCC unroll 8
    for (int m = 0; m < m_rows; ++m) {
        acc[m][0] = f_load(o + m * width);
        acc[m][1] = f_load(o + m * width + FL);
    }
    for (int64_t k = 0; k < rows; ++k, a += LGR_UNITS, c += LGR_PANEL) {
        const vf c0 = f_load(c), c1 = f_load(c + FL);
#pragma GCC unroll 8
        for (int m = 0; m < m_rows; ++m) {
            const vf x = f_set(a[m]);
            acc[m][0] = f_fma(x, c0, acc[m][0]);
            acc[m][1] = f_fma(x, c1, acc[m][1]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < m_rows; ++m) {
        f_store(o + m * width, acc[m][0]);
        f_store(o + m * width + FL, acc[m][1]);
    }
}
/* dw [block][16][32 * panels] += a[block][row][16]^T * columns [panel][row][32] */
LGR_VEC void weights_plus(int64_t rows, const float *a, int64_t cap, int64_t blocks,
                          const float *columns, int64_t panels, float *dw)
{
    const int64_t width = panels * LGR_PANEL;
    for (int64_t k = 0; k < rows; k += LGR_CHUNK_ROWS)
        for (int64_t q = 0; q < panels; ++q)
            for (int64_t b = 0; b < blocks; ++b)
                for (int e = 0; e < LGR_PANEL; e += 2 * FL) {
                    const int64_t some = rows - k < LGR_CHUNK_ROWS ? rows - k : LGR_CHUNK_ROWS;
                    const float *ab = a + (b * cap + k) * LGR_UNITS,
                                *c = columns + (q * cap + k) * LGR_PANEL + e;
                    float *o = dw + b * LGR_UNITS * width + q * LGR_PANEL + e;
                    int m = 0;
                    for (; m + TILE_M <= LGR_UNITS; m += TILE_M)
                        weight_tile(TILE_M, some, ab + m, c, o + m * width, width);
                    if (LGR_UNITS % TILE_M) /* 4 */
                        weight_tile(LGR_UNITS % TILE_M, some, ab + m, c, o + m * width, width);
                }
}
/* The part of blocks [b0, b1) of gate gradients that stands in [low, high); dw begins at `low`. */
LGR_VEC void weights_part(const lgr_recurrent_chunk *c, int64_t b0, int64_t b1, int64_t low,
                          int64_t high, const float *columns, int64_t k, float *dw)
{
    const int64_t panels = lgr_padded(k, LGR_PANEL) / LGR_PANEL, from = b0 > low ? b0 : low,
                  to = b1 < high ? b1 : high;
    if (from < to)
        weights_plus(c->rows, c->dg + from * c->cap * LGR_UNITS, c->cap, to - from, columns, panels,
                     dw + (from - low) * LGR_UNITS * panels * LGR_PANEL);
}
/* db [block][16] += sums over rows */
LGR_VEC void bias_plus(int64_t rows, const float *a, int64_t cap, int64_t blocks, float *db)
{
    for (int64_t b = 0; b < blocks; ++b)
        for (int e = 0; e < LGR_UNITS; e += FL) {
            vf s = f_load(db + b * LGR_UNITS + e);
            const float *ab = a + b * cap * LGR_UNITS + e;
            for (int64_t k = 0; k < rows; ++k) s = s + f_load(ab + k * LGR_UNITS);
            f_store(db + b * LGR_UNITS + e, s);
        }
}
/* codes -> row k of the columns [panel][cap][32]; s == NULL: zeros */
LGR_VEC void column(const int8_t *s, int64_t n, int64_t k, int64_t cap, float *columns)
{
    for (int64_t at = 0; at < lgr_padded(n, LGR_PANEL); at += FL) {
        float *o = columns + (at / LGR_PANEL * cap + k) * LGR_PANEL + at % LGR_PANEL;
        f_store(o, s ? f_from(g_codes_n(s + (at < n ? at : 0), n - at), 1.0f) : f_set(0.0f));
    }
}
#endif

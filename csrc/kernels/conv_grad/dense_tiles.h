/* dense_tiles.h - register tiles of the two dense products, in the lanes of the including twin: up to TILE_M rows of 16 columns.
 *   gx: pixels of a row x channels, over taps and outputs.     gw: outputs x places of a run of x, over pixels.
 * A sum's terms are added in one order whatever the tile. */

#define PARTS (16 / FL) /* vectors of 16 columns */

typedef struct gx_run {
    const float *dy; /* first tap of the first pixel */
    int64_t row, col,
        step; /* up from tap row to tap row, on from tap column to column, on from pixel to pixel */
    int64_t ni, nj, len; /* taps: ni x nj runs of len floats */
    const float *w; /* [ni][nj][len][16] */
    float scale;
    float *to;
    int64_t to_step, left; /* from pixel to pixel; channels */
} gx_run;

/* m-th of rows that are `step` apart: few pointers and their multiples, as x86 addresses them */
#define ROW_OF(p, m, step)                                                                         \
    (((m) < 4 ? p##0 : (m) < 8 ? p##1 : (m) < 12 ? p##2 : p##3) + (m) % 4 * (step))

LGR_VEC void gx_tile(const int M, const int V, const gx_run *g, int64_t at)
{
    const int64_t step = g->step, len = g->len;
    const float *w = g->w, *first = g->dy + at * step;
    vf acc[TILE_M][PARTS];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[m][v] = f_set(0.0f);
    for (int64_t i = 0; i < g->ni; ++i)
        for (int64_t j = 0; j < g->nj; ++j) {
            const float *p0 = first - i * g->row + j * g->col, *p1 = p0 + 4 * step,
                        *p2 = p0 + 8 * step, *p3 = p0 + 12 * step;
            for (int64_t q = 0; q < len; ++q, ++p0, ++p1, ++p2, ++p3, w += 16) {
                vf b[PARTS];
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) b[v] = f_load(w + v * FL);
#pragma GCC unroll 16
                for (int m = 0; m < M; ++m) {
                    const vf a = f_set(*ROW_OF(p, m, step));
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v) acc[m][v] = f_fma(a, b[v], acc[m][v]);
                }
            }
        }
    const vf scale = f_set(g->scale);
    float *to = g->to + at * g->to_step;
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v)
            f_store_n(to + m * g->to_step + v * FL, acc[m][v] * scale, g->left - v * FL);
}

typedef struct gw_run {
    const float *x, *dy; /* first place, first output; of the first pixel */
    int64_t images, x_image,
        dy_image; /* pixels: images x rows x count, and how far they are apart */
    int64_t rows, x_row, dy_row;
    int64_t count, x_step, dy_step;
    float *to; /* sums: of the first output */
    int64_t to_step;
} gw_run;

LGR_VEC void gw_tile(const int M, const int V, const gw_run *g, int64_t at)
{
    float *to = g->to + at * g->to_step;
    const int64_t x_step = g->x_step, dy_step = g->dy_step;
    vf acc[TILE_M][PARTS];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[m][v] = f_load(to + m * g->to_step + v * FL);
    for (int64_t n = 0; n < g->images; ++n)
        for (int64_t r = 0; r < g->rows; ++r) {
            const float *x = g->x + n * g->x_image + r * g->x_row,
                        *dy = g->dy + n * g->dy_image + r * g->dy_row + at;
            for (int64_t q = 0; q < g->count; ++q, x += x_step, dy += dy_step) {
                vf b[PARTS];
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) b[v] = f_load(x + v * FL);
#pragma GCC unroll 16
                for (int m = 0; m < M; ++m) {
                    const vf a = f_set(dy[m]);
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v) acc[m][v] = f_fma(a, b[v], acc[m][v]);
                }
            }
        }
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) f_store(to + m * g->to_step + v * FL, acc[m][v]);
}

/* One function per height, and for half the columns where a vector is that narrow: gcc keeps the sums of a small function in
 * registers. */
typedef void gx_fn(const gx_run *g, int64_t at);
typedef void gw_fn(const gw_run *g, int64_t at);
#define HALF (PARTS > 1 ? PARTS / 2 : 1)
#define TILES(M)                                                                                   \
    static __attribute__((noinline)) void gx_##M(const gx_run *g, int64_t at)                      \
    {                                                                                              \
        gx_tile(M, PARTS, g, at);                                                                  \
    }                                                                                              \
    static __attribute__((noinline)) void gw_##M(const gw_run *g, int64_t at)                      \
    {                                                                                              \
        gw_tile(M, PARTS, g, at);                                                                  \
    }                                                                                              \
    static __attribute__((noinline)) void gx_half_##M(const gx_run *g, int64_t at)                 \
    {                                                                                              \
        gx_tile(M, HALF, g, at);                                                                   \
    }                                                                                              \
    static __attribute__((noinline)) void gw_half_##M(const gw_run *g, int64_t at)                 \
    {                                                                                              \
        gw_tile(M, HALF, g, at);                                                                   \
    }
EACH_TILE(TILES)

#define GX_NAME(M) gx_##M,
#define GW_NAME(M) gw_##M,
#define GX_HALF_NAME(M) gx_half_##M,
#define GW_HALF_NAME(M) gw_half_##M,
static gx_fn *const gx_tiles[2][TILE_M] = {{EACH_TILE(GX_NAME)}, {EACH_TILE(GX_HALF_NAME)}};
static gw_fn *const gw_tiles[2][TILE_M] = {{EACH_TILE(GW_NAME)}, {EACH_TILE(GW_HALF_NAME)}};

/* `count` rows in tiles of nearly equal heights; `columns` of 16 are used */
static void gx_all(const gx_run *g, int64_t count)
{
    const int64_t tiles = (count + TILE_M - 1) / TILE_M;
    for (int64_t t = 0; t < tiles; ++t) {
        const int64_t at = t * count / tiles, m = (t + 1) * count / tiles - at;
        gx_tiles[HALF < PARTS && g->left <= 8][m - 1](g, at);
    }
}
static void gw_all(const gw_run *g, int64_t count, int64_t columns)
{
    const int64_t tiles = (count + TILE_M - 1) / TILE_M;
    for (int64_t t = 0; t < tiles; ++t) {
        const int64_t at = t * count / tiles, m = (t + 1) * count / tiles - at;
        gw_tiles[HALF < PARTS && columns <= 8][m - 1](g, at);
    }
}

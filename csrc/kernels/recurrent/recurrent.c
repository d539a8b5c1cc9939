/* recurrent.c - checks, packed weights, sizes. */
#include "lgr/recurrent.h"
#include "kernels/recurrent/recurrent_sizes.h"
#include "lgr/cpu.h"
#include <string.h>

enum lgr_recurrent_engine lgr_recurrent_pick(void)
{
    const unsigned flags = lgr_cpu_flags();
    if (LGR_HAVE_AVX512VNNI && (flags & LGR_CPU_AVX512VNNI)) return LGR_RECURRENT_AVX512VNNI;
    return LGR_HAVE_AVX2 && (flags & LGR_CPU_AVX2) ? LGR_RECURRENT_AVX2 : LGR_RECURRENT_REF;
}

lgr_status lgr_recurrent_check(const lgr_recurrent *p, int gates)
{
    enum { MOST = 1 << 16 }; /* 255 * 2^7 * MOST fits int32 */
    if (p == NULL || p->off == NULL || p->n == NULL) return LGR_E_NULL;
    const int venus = p->chip == LGR_VENUS, lstm = gates == 4;
    if (p->chip < LGR_ARCS || p->chip > LGR_VENUS || (gates != 3 && !lstm)) return LGR_E_RANGE;
    if (p->d < 1 || p->h < 1 || p->d >= MOST || p->h >= MOST || p->batch < 1 || p->steps < 1)
        return LGR_E_RANGE;
    if (p->q_h < 0 || p->q_h > (!venus ? 23 : lstm ? 14 : 15)) return LGR_E_RANGE;
    const int least = venus ? -19 : -3; /* left shifts up to 30: the chip multiplies by an int32 */
    if (p->exp2_ih < least || p->exp2_hh < least || p->exp2_ih > 252 || p->exp2_hh > 252)
        return LGR_E_RANGE;
    if (p->rows < p->batch || p->row_stride < 1 || p->row_stride > p->rows) return LGR_E_RANGE;
    for (int32_t t = 0, most = p->batch; t < p->steps; most = p->n[t++]) {
        if (p->n[t] < 1 || p->n[t] > most || p->off[t] < 0 || p->off[t] >= p->rows)
            return LGR_E_RANGE;
        if ((p->rows - 1 - p->off[t]) / p->row_stride < p->n[t] - 1) return LGR_E_RANGE;
    }
    return LGR_OK;
}

static int64_t group(enum lgr_recurrent_engine engine) /* codes that one product takes together */
{
    return engine == LGR_RECURRENT_AVX512VNNI ? 4 : engine == LGR_RECURRENT_AVX2 ? 2 : 1;
}

int64_t lgr_recurrent_packed_bytes(enum lgr_recurrent_engine engine, int gates, int32_t h,
                                   int32_t k)
{
    const int64_t bytes = engine == LGR_RECURRENT_AVX2 ? 2 : 1;
    return lgr_padded(h, LGR_UNITS) * gates * lgr_padded(k, group(engine)) * bytes;
}

/* One row of w into lane j of its packed block [k / size][16][size]. */
static int32_t pack_row8(const int8_t *restrict row, int64_t k, int64_t size, int8_t *restrict out)
{
    const int64_t full = k / size, rest = k % size;
    int32_t sum = 0;
    if (size == 4) {
        for (int64_t q = 0; q < full; ++q) memcpy(out + q * 4 * LGR_UNITS, row + 4 * q, 4);
    } else {
        for (int64_t q = 0; q < full; ++q) out[q * LGR_UNITS] = row[q];
    }
    if (rest) {
        memset(out + full * size * LGR_UNITS, 0, (size_t)size);
        memcpy(out + full * size * LGR_UNITS, row + full * size, (size_t)rest);
    }
    for (int64_t i = 0; i < k; ++i) sum += row[i];
    return sum;
}

static void pack_row16(const int8_t *restrict row, int64_t k, int16_t *restrict out)
{
    for (int64_t q = 0; q < k / 2; ++q) {
        out[2 * q * LGR_UNITS] = row[2 * q];
        out[2 * q * LGR_UNITS + 1] = row[2 * q + 1];
    }
    if (k % 2) {
        out[(k - 1) * LGR_UNITS] = row[k - 1];
        out[(k - 1) * LGR_UNITS + 1] = 0;
    }
}

/* [unit block][gate][k / group][16][group]; int16 for AVX2 */
void lgr_recurrent_pack(enum lgr_recurrent_engine engine, int gates, const int8_t *w, int32_t h,
                        int32_t k, void *packed, int32_t *restrict sum)
{
    const int64_t size = group(engine), block = lgr_padded(k, size) * LGR_UNITS;
    int8_t *p8 = packed;
    int16_t *p16 = packed;
    if (h % LGR_UNITS) memset(packed, 0, (size_t)lgr_recurrent_packed_bytes(engine, gates, h, k));
    for (int64_t u0 = 0; u0 < h; u0 += LGR_UNITS)
        for (int64_t g = 0; g < gates; ++g, p8 += block, p16 += block, sum += LGR_UNITS)
            for (int64_t j = 0; j < LGR_UNITS; ++j) {
                const int8_t *row = w + (g * h + u0 + j) * k;
                sum[j] = 0;
                if (u0 + j >= h) continue;
                if (engine == LGR_RECURRENT_AVX2) {
                    pack_row16(row, k, p16 + j * size);
                    continue;
                }
                const int32_t s = pack_row8(row, k, size, p8 + j * size);
                if (engine == LGR_RECURRENT_AVX512VNNI) sum[j] = -128 * s;
            }
}

int64_t lgr_recurrent_vector(int gates, const int32_t *v, int32_t h, int32_t *restrict out)
{
    int64_t most = 0;
    for (int64_t u0 = 0; u0 < h; u0 += LGR_UNITS)
        for (int64_t g = 0; g < gates; ++g)
            for (int64_t j = 0; j < LGR_UNITS; ++j) {
                const int64_t now = v && u0 + j < h ? v[g * h + u0 + j] : 0;
                most = now > most ? now : -now > most ? -now : most;
                *out++ = (int32_t)now;
            }
    return most;
}

int64_t lgr_recurrent_forward_bytes(const lgr_recurrent *p, int gates, int32_t rows)
{
    /* projected chunk, c, one tile of sums and states, h twice, x chunk (int16 at most) */
    const int64_t hp = lgr_padded(p->h, LGR_UNITS), dp = lgr_padded(p->d, 4);
    const int64_t chunk = lgr_forward_rows(hp * gates, rows);
    return (chunk * hp * gates + rows * hp + LGR_TILE_ROWS * (4 * LGR_UNITS + 2 * hp)) * 4 +
           (2 * rows * hp + LGR_TILE_ROWS * hp + chunk * dp) * 2 + 512;
}

enum { CHUNK_PARTS = 6 };
/* floats of the parts of a chunk, in the order of its pointers */
static void chunk_sizes(const lgr_recurrent *p, int gates, int64_t entries, int64_t n[CHUNK_PARTS])
{
    const int64_t hn = lgr_padded(p->h, LGR_PANEL), cap = lgr_chunk_rows(entries);
    n[0] = cap * lgr_padded(p->h, LGR_UNITS) * 4;
    n[1] = cap * hn;
    n[2] = gates == 3 ? cap * hn : 0;
    n[3] = cap * lgr_padded(p->d, LGR_PANEL);
    n[4] = n[5] = entries * hn;
}

int64_t lgr_recurrent_backward_bytes(const lgr_recurrent *p, int gates, int32_t entries)
{
    int64_t n[CHUNK_PARTS], floats = 0;
    chunk_sizes(p, gates, entries, n);
    for (int i = 0; i < CHUNK_PARTS; ++i) floats += n[i];
    return floats * 4 + lgr_chunk_rows(entries) * 8 + 512;
}

lgr_recurrent_chunk lgr_recurrent_chunks(const lgr_recurrent *p, int gates, int32_t first,
                                         int32_t entries, void *scratch)
{
    lgr_recurrent_chunk c = {.first = first, .entries = entries, .cap = lgr_chunk_rows(entries)};
    float **parts[CHUNK_PARTS] = {&c.dg, &c.cols_h, &c.cols_r, &c.cols_x, &c.dh, &c.dc};
    float *at = (void *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    int64_t n[CHUNK_PARTS];
    chunk_sizes(p, gates, entries, n);
    for (int i = 0; i < CHUNK_PARTS; at += n[i++]) *parts[i] = at;
    c.row_of = (void *)(((uintptr_t)at + 7) & ~(uintptr_t)7);
    return c;
}

int lgr_recurrent_chunk_next(const lgr_recurrent *p, lgr_recurrent_chunk *c)
{
    c->from = c->to;
    c->rows = 0;
    for (; c->to < p->steps; ++c->to) {
        const int32_t n = p->n[p->reverse ? c->to : p->steps - 1 - c->to], act = n - c->first;
        const int32_t rows = act <= 0 ? 0 : act < c->entries ? act : c->entries;
        if (c->rows + rows > c->cap) break;
        c->rows += rows;
    }
    return c->to > c->from;
}

int64_t lgr_recurrent_saved_bytes(const lgr_recurrent *p, int gates)
{
    return p->rows * (lgr_padded(p->h, LGR_UNITS) / LGR_UNITS) * lgr_saved_block(p->chip, gates);
}

int64_t lgr_recurrent_panel_floats(int gates, int32_t h, int32_t k)
{
    return lgr_padded(h, LGR_UNITS) * gates * lgr_padded(k, LGR_PANEL);
}

void lgr_recurrent_panels(int gates, const int *order, const int8_t *w, int32_t h, int32_t k,
                          float inv, float *restrict panels)
{
    for (int64_t n0 = 0; n0 < k; n0 += LGR_PANEL)
        for (int g = 0; g < gates; ++g)
            for (int64_t u = 0; u < lgr_padded(h, LGR_UNITS); ++u, panels += LGR_PANEL) {
                const int64_t left = k - n0 < LGR_PANEL ? k - n0 : LGR_PANEL;
                const int64_t count = u < h ? left : 0;
                const int8_t *row = count ? w + (order[g] * (int64_t)h + u) * k + n0 : NULL;
                for (int64_t n = 0; n < count; ++n) panels[n] = (float)row[n] * inv;
                for (int64_t n = count; n < LGR_PANEL; ++n) panels[n] = 0.0f;
            }
}

void lgr_recurrent_store(int gates, const int *order, const float *grad, int32_t h, int32_t k,
                         float inv, float *restrict out)
{
    const int64_t width = lgr_padded(k, LGR_PANEL), hp = lgr_padded(h, LGR_UNITS);
    for (int g = 0; g < gates; ++g)
        for (int64_t u = 0; u < h; ++u) {
            const float *from = grad + (g * hp + u) * width;
            float *to = out + (order[g] * (int64_t)h + u) * k;
            for (int64_t i = 0; i < k; ++i) to[i] = from[i] * inv;
        }
}

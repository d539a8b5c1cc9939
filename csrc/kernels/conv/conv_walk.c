/* conv_walk.c - the walk over images, bands of rows and groups that all engines share. */
#include "kernels/conv/conv_isa.h"

#define BAND_BYTES 196608 /* of one padded band of rows: stays in L2 */
#define SUMS 4096         /* row buffer of sums, elements: stays in L1 */

/* Output rows of one band: its padded input rows fit BAND_BYTES, at least one. */
static int64_t band_rows(const lgr_conv_job *job, const lgr_conv_isa *isa)
{
    const lgr_conv_params *p = &job->p;
    const int64_t row = job->wp * job->pixel * isa->element, reach = (p->kh - 1) * p->dil_h + 1;
    const int64_t rows = (BAND_BYTES / row - reach) / p->stride_h + 1;
    return rows < 1 ? 1 : rows < job->oh ? rows : job->oh;
}
static int64_t band_bytes(const lgr_conv_job *job, const lgr_conv_isa *isa)
{
    const lgr_conv_params *p = &job->p;
    if (job->gemm) return job->piece * job->cp * isa->element;
    const int64_t rows = (band_rows(job, isa) - 1) * p->stride_h + (p->kh - 1) * p->dil_h + 1;
    return rows * job->wp * job->pixel * isa->element;
}
static int64_t sums_count(const lgr_conv_job *job)
{
    const int64_t least = job->gemm ? 16 * job->piece : job->p.o;
    return job->fused ? 0 : (least > SUMS ? least : SUMS) + 64;
}
static int64_t taps_count(const lgr_conv_job *job)
{
    return job->depthwise ? lgr_conv_up(job->p.kh * job->p.kw, 4) : 0;
}

int64_t lgr_conv_scratch_bytes(const lgr_conv_job *job)
{
    const lgr_conv_isa *isa = lgr_conv_isa_of(job->engine);
    if (isa == NULL) return 0;
    /* state, band (+ a vector that may be read past it), sums, taps; each part starts at a multiple of 64 */
    return 64 + LGR_CONV_STATE_BYTES + lgr_conv_up(band_bytes(job, isa) + 128, 64) +
           lgr_conv_up(4 * sums_count(job), 64) + 8 * taps_count(job);
}

typedef struct workspace {
    const lgr_conv_isa *isa;
    void *state;
    uint8_t *band;
    int32_t *sums;
    int64_t *taps;
} workspace;

static workspace workspace_of(const lgr_conv_job *job, void *scratch)
{
    workspace ws;
    uint8_t *at = scratch;
    at += (64 - (uintptr_t)at % 64) % 64;
    ws.isa = lgr_conv_isa_of(job->engine);
    ws.state = at;
    ws.band = at + LGR_CONV_STATE_BYTES;
    ws.sums = (void *)(ws.band + lgr_conv_up(band_bytes(job, ws.isa) + 128, 64));
    ws.taps = (void *)((uint8_t *)ws.sums + lgr_conv_up(4 * sums_count(job), 64));
    return ws;
}

/* One channel of a row of pixels, from any stride. */
static void spread(const lgr_conv_isa *isa, const int8_t *x, int64_t stride, int64_t n,
                   uint8_t *dst, int64_t pixel)
{
    int16_t *wide = (void *)dst;
    if (isa->element == 1)
        for (int64_t i = 0; i < n; ++i) dst[i * pixel] = (uint8_t)(x[i * stride] ^ isa->zero);
    else
        for (int64_t i = 0; i < n; ++i) wide[i * pixel] = x[i * stride];
}
/* Input rows [y0, y0 + rows) of one image, padded: [rows][wp][pixel]. */
static void fill_band(const lgr_conv_job *job, const workspace *ws, const int8_t *image, int64_t y0,
                      int64_t rows)
{
    const lgr_conv_params *p = &job->p;
    const lgr_conv_isa *isa = ws->isa;
    const int64_t e = isa->element, pixel = job->pixel * e, row = job->wp * pixel;
    const int64_t groups = job->depthwise ? 1 : p->groups, cg = p->c / groups,
                  group = job->pixel / groups * e;
    for (int64_t r = 0; r < rows; ++r) {
        uint8_t *dst = ws->band + r * row;
        const int64_t y = y0 + r;
        if (y < 0 || y >= p->h) {
            memset(dst, isa->zero, (size_t)row);
            continue;
        }
        const int8_t *src = image + y * p->xs_h;
        memset(dst, isa->zero, (size_t)(p->pad_l * pixel));
        memset(dst + (p->pad_l + p->w) * pixel, isa->zero, (size_t)(p->pad_r * pixel));
        dst += p->pad_l * pixel;
        if (job->pixel == p->c && p->xs_c == 1 && p->xs_w == p->c) {
            isa->copy(src, p->w * p->c, dst);
            continue;
        }
        if (job->pixel != p->c) memset(dst, isa->zero, (size_t)(p->w * pixel));
        for (int64_t g = 0; g < groups; ++g) {
            const int8_t *from = src + g * cg * p->xs_c;
            if (p->xs_c == 1 && cg >= 16)
                for (int64_t z = 0; z < p->w; ++z)
                    isa->copy(from + z * p->xs_w, cg, dst + z * pixel + g * group);
            else
                for (int64_t c = 0; c < cg; ++c)
                    spread(isa, from + c * p->xs_c, p->xs_w, p->w, dst + g * group + c * e,
                           job->pixel);
        }
    }
}

/* The pixels of one span, quantized in registers or through the row buffer. */
static void finish_span(const lgr_conv_job *job, const workspace *ws, const lgr_conv_span *s,
                        int64_t o0, int64_t o1, int64_t amax[2])
{
    if (job->fused) return;
    const int64_t n = o1 - o0;
    if (job->ep == NULL) {
        for (int64_t r = 0; r < s->count; ++r)
            memcpy(job->out.acc + (s->pixel + r) * job->p.o + o0, ws->sums + r * n, (size_t)n * 4);
        return;
    }
    lgr_epilogue_rows(job->ep, job->narrow, ws->sums, n,
                      job->narrow || !job->bias ? NULL : job->bias + o0, s->count, n, o0, job->p.o,
                      s->pixel, &job->out, amax);
}

static void run_gemm(const lgr_conv_job *job, const workspace *ws, int64_t u, int64_t amax[2])
{
    const lgr_conv_params *p = &job->p;
    const int64_t e = ws->isa->element, r0 = u % job->row_units * job->piece;
    const int64_t rows = job->rows - r0 < job->piece ? job->rows - r0 : job->piece;
    const int64_t o0 = u / job->row_units * job->o_block,
                  o1 = p->o - o0 < job->o_block ? p->o : o0 + job->o_block;
    const int8_t *x = job->x + r0 * p->c;
    if (job->cp == p->c) {
        ws->isa->copy(x, rows * p->c, ws->band);
    } else {
        for (int64_t r = 0; r < rows; ++r) {
            uint8_t *dst = ws->band + r * job->cp * e;
            ws->isa->copy(x + r * p->c, p->c, dst);
            memset(dst + p->c * e, ws->isa->zero, (size_t)((job->cp - p->c) * e));
        }
    }
    /* through the row buffer: as many outputs at a time as it holds of all rows */
    const int64_t fit = SUMS / rows / 16 * 16, width = job->fused ? o1 - o0 : fit < 16 ? 16 : fit;
    for (int64_t o = o0; o < o1; o += width) {
        const int64_t n = o1 - o < width ? o1 - o : width;
        lgr_conv_span s = {.x = ws->band,
                           .count = rows,
                           .step = job->cp,
                           .ni = 1,
                           .nj = 1,
                           .kq = job->cp / ws->isa->quantum,
                           .w = (const uint8_t *)job->packed + o * job->cp * e,
                           .init = job->init + o,
                           .outputs = n,
                           .pixel = r0,
                           .ch = o,
                           .sums = ws->sums,
                           .sums_stride = n};
        ws->isa->span(ws->state, &s);
        finish_span(job, ws, &s, o, o + n, amax);
    }
}

/* One output row (n, y); its first input row is at `x` in the band. */
static void run_row(const lgr_conv_job *job, const workspace *ws, const uint8_t *x, int64_t u,
                    int64_t amax[2])
{
    const lgr_conv_params *p = &job->p;
    const int64_t e = ws->isa->element, row = job->wp * job->pixel, q = ws->isa->quantum,
                  padded = lgr_conv_up(job->og, 16);
    const int joined = p->dil_w == 1 && p->groups == 1; /* the taps of a kernel row are one run */
    const int64_t chunk = job->fused ? job->ow : SUMS / p->o > 0 ? SUMS / p->o : 1;
    for (int64_t z = 0; z < job->ow; z += chunk) {
        lgr_conv_span s = {.x = x + z * p->stride_w * job->pixel * e,
                           .count = job->ow - z < chunk ? job->ow - z : chunk,
                           .step = p->stride_w * job->pixel,
                           .ni = p->kh,
                           .nj = joined ? 1 : p->kw,
                           .row = p->dil_h * row,
                           .col = p->dil_w * job->pixel,
                           .kq = (joined ? p->kw : 1) * job->cp / q,
                           .taps = ws->taps,
                           .n_taps = p->kh * p->kw,
                           .w = job->packed,
                           .init = job->init,
                           .outputs = job->og,
                           .pixel = u * job->ow + z,
                           .sums = ws->sums,
                           .sums_stride = p->o};
        if (job->depthwise) {
            s.outputs = p->o;
            ws->isa->depthwise(ws->state, &s);
        } else {
            for (int64_t g = 0; g < p->groups; ++g) {
                ws->isa->span(ws->state, &s);
                s.x = (const uint8_t *)s.x + job->cp * e;
                s.w = (const uint8_t *)s.w + padded * p->kh * p->kw * job->cp * e;
                s.init += padded;
                s.ch += job->og;
                s.sums += job->og;
            }
        }
        finish_span(job, ws, &s, 0, p->o, amax);
    }
}

void lgr_conv_run(const lgr_conv_job *job, int64_t u0, int64_t u1, void *scratch, int64_t amax[2])
{
    if (u0 >= u1) return;
    if (lgr_conv_isa_of(job->engine) == NULL) {
        lgr_conv_run_ref(job, u0, u1, amax);
        return;
    }
    const lgr_conv_params *p = &job->p;
    const workspace ws = workspace_of(job, scratch);
    ws.isa->begin(job, ws.state);
    if (job->gemm) {
        for (int64_t u = u0; u < u1; ++u) run_gemm(job, &ws, u, amax);
    } else {
        const int64_t row = job->wp * job->pixel, most = band_rows(job, ws.isa),
                      taps = p->kh * p->kw;
        for (int64_t t = 0; t < taps_count(job); ++t) {
            const int64_t i = t < taps ? t / p->kw : 0, j = t < taps ? t % p->kw : 0;
            ws.taps[t] = i * p->dil_h * row + j * p->dil_w * job->pixel;
        }
        for (int64_t u = u0; u < u1;) { /* bands end with their image */
            const int64_t y = u % job->oh, left = job->oh - y < u1 - u ? job->oh - y : u1 - u,
                          rows = left < most ? left : most;
            fill_band(job, &ws, job->x + u / job->oh * p->xs_n, y * p->stride_h - p->pad_t,
                      (rows - 1) * p->stride_h + (p->kh - 1) * p->dil_h + 1);
            for (int64_t r = 0; r < rows; ++r, ++u)
                run_row(job, &ws, ws.band + r * p->stride_h * row * ws.isa->element, u, amax);
        }
    }
    ws.isa->end(ws.state, amax);
}

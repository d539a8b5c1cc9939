/* conv.c - checks, the choice of engine and path, and the walk over images, bands and groups that engines share. */
#include "kernels/conv/conv_isa.h"
#include "lgr/cpu.h"

#define SIZE_LIMIT ((int64_t)1 << 31) /* of one field */
#define TOTAL_LIMIT ((int64_t)1 << 48) /* of a tensor */
#define BAND_BYTES 196608 /* of one padded band of rows: stays in L2 */
#define SUMS 4096 /* row buffer of sums, elements: stays in L1 */
#define GEMM_BYTES 24576 /* rows of one piece of a matrix product, as scratch elements */

static const lgr_conv_isa *isa_of(lgr_conv_engine engine)
{
#if LGR_HAVE_AVX2
    if (engine == LGR_CONV_AVX2) return &lgr_conv_isa_avx2;
    if (engine == LGR_CONV_AVX512VNNI) return &lgr_conv_isa_avx512vnni;
#endif
    (void)engine;
    return NULL;
}
static int has(lgr_conv_engine engine)
{
#if LGR_HAVE_AVX2
    const unsigned need = engine == LGR_CONV_AVX2 ? LGR_CPU_AVX2 : LGR_CPU_AVX2 | LGR_CPU_AVX512VNNI;
    if (engine == LGR_CONV_AVX2 || engine == LGR_CONV_AVX512VNNI) return (lgr_cpu_flags() & need) == need;
#endif
    return engine == LGR_CONV_REF;
}
/* Sums of products without the bias. */
static int64_t product_bound(const lgr_conv_params *p)
{
    return p->c / p->groups * p->kh * p->kw * (1 << 14);
}
static int fits(const lgr_conv_params *p)
{
    return product_bound(p) <= INT32_MAX; /* engines keep 32-bit sums; the rest is the reference's */
}

static int out_size(int64_t in, int64_t pad, int64_t dil, int64_t k, int64_t stride, int64_t *out)
{
    const int64_t room = in + pad - dil * (k - 1) - 1;
    *out = room < 0 ? 0 : room / stride + 1;
    return room >= 0;
}
int64_t lgr_conv_out_h(const lgr_conv_params *p)
{
    int64_t v;
    out_size(p->h, p->pad_t + p->pad_b, p->dil_h, p->kh, p->stride_h, &v);
    return v;
}
int64_t lgr_conv_out_w(const lgr_conv_params *p)
{
    int64_t v;
    out_size(p->w, p->pad_l + p->pad_r, p->dil_w, p->kw, p->stride_w, &v);
    return v;
}

lgr_status lgr_conv_check(const lgr_conv_params *p)
{
    if (p == NULL) return LGR_E_NULL;
    const int64_t positive[] = {p->c, p->h, p->w, p->o, p->kh, p->kw, p->stride_h, p->stride_w, p->dil_h, p->dil_w, p->groups};
    const int64_t natural[] = {p->n, p->pad_t, p->pad_l, p->pad_b, p->pad_r};
    for (size_t i = 0; i < sizeof positive / sizeof *positive; ++i)
        if (positive[i] < 1 || positive[i] >= SIZE_LIMIT) return LGR_E_RANGE;
    for (size_t i = 0; i < sizeof natural / sizeof *natural; ++i)
        if (natural[i] < 0 || natural[i] >= SIZE_LIMIT) return LGR_E_RANGE;
    if (p->c % p->groups || p->o % p->groups) return LGR_E_RANGE;
    if (p->kh > SIZE_LIMIT / p->dil_h || p->kw > SIZE_LIMIT / p->dil_w) return LGR_E_RANGE;
    int64_t oh, ow;
    if (!out_size(p->h, p->pad_t + p->pad_b, p->dil_h, p->kh, p->stride_h, &oh)) return LGR_E_RANGE;
    if (!out_size(p->w, p->pad_l + p->pad_r, p->dil_w, p->kw, p->stride_w, &ow)) return LGR_E_RANGE;
    const int64_t row = p->w + p->pad_l + p->pad_r, c = lgr_conv_up(p->c, 16) + 16 * p->groups;
    const double padded = (double)row * (double)(p->h + p->pad_t + p->pad_b) * (double)c;
    const double results = (double)p->n * (double)oh * (double)ow * (double)(p->o + 64);
    const double weights = (double)(p->o + 16 * p->groups) * (double)(p->c / p->groups + 16) * (double)p->kh * (double)p->kw;
    if (padded > (double)TOTAL_LIMIT || results > (double)TOTAL_LIMIT || weights > (double)TOTAL_LIMIT) return LGR_E_RANGE;
    return LGR_OK;
}

lgr_conv_engine lgr_conv_pick(const lgr_conv_params *p)
{
    if (!fits(p)) return LGR_CONV_REF;
    if (has(LGR_CONV_AVX512VNNI)) return LGR_CONV_AVX512VNNI;
    return has(LGR_CONV_AVX2) ? LGR_CONV_AVX2 : LGR_CONV_REF;
}

/* Where the sums of each output start: the bias, less 128 * wsum for engines that see code + 128. */
static void fill_init(lgr_conv_job *job, const lgr_conv_isa *isa, int with_bias)
{
    const int64_t count = lgr_conv_wsum_count(&job->p, job->engine), padded = lgr_conv_up(job->og, 16);
    for (int64_t i = 0; i < count; ++i) {
        const int64_t o = job->depthwise ? i : i / padded * job->og + i % padded;
        const int real = job->depthwise ? i < job->p.o : i % padded < job->og;
        uint32_t v = with_bias && job->bias && real ? (uint32_t)job->bias[o] : 0u;
        if (isa->element == 1) v -= 128u * (uint32_t)job->wsum[i];
        job->init[i] = (int32_t)v;
    }
}

lgr_status lgr_conv_begin(lgr_conv_job *job)
{
    if (job == NULL || job->packed == NULL || job->wsum == NULL || job->init == NULL) return LGR_E_NULL;
    const lgr_conv_params *p = &job->p;
    const lgr_status status = lgr_conv_check(p);
    if (status != LGR_OK) return status;
    if (!has(job->engine) || (job->engine != LGR_CONV_REF && !fits(p))) return LGR_E_RANGE;
    if (p->n > 0 && (job->x == NULL || (job->ep == NULL && job->out.acc == NULL))) return LGR_E_NULL;

    int64_t bias = 0;
    for (int64_t i = 0; job->bias && i < p->o; ++i) {
        const int64_t b = job->bias[i] < 0 ? -(int64_t)job->bias[i] : job->bias[i];
        bias = b > bias ? b : bias;
    }
    job->bound = product_bound(p) + bias;
    job->oh = lgr_conv_out_h(p);
    job->ow = lgr_conv_out_w(p);
    job->cg = p->c / p->groups;
    job->og = p->o / p->groups;
    job->depthwise = lgr_conv_is_depthwise(p);
    job->gemm = 0;
    job->fused = 0;
    job->units = p->n * job->oh;
    const lgr_conv_isa *isa = isa_of(job->engine);
    if (isa == NULL) return LGR_OK;

    job->cp = job->depthwise ? 1 : lgr_conv_up(job->cg, isa->quantum);
    job->pixel = job->depthwise ? lgr_conv_up(p->c, 16) : p->groups * job->cp;
    job->wp = p->w + p->pad_l + p->pad_r;
    const int narrow = job->ep == NULL || lgr_epilogue_narrow(job->ep, job->bound);
    const int whole_masks = p->groups == 1 || job->depthwise || job->og % 16 == 0;
    job->fused = isa->fuses && narrow && whole_masks && job->out.code16 == NULL && (job->ep == NULL || job->out.acc == NULL);
    fill_init(job, isa, narrow);
    job->narrow = narrow;

    const int one = p->kh == 1 && p->kw == 1 && p->stride_h == 1 && p->stride_w == 1;
    const int dense = p->xs_c == 1 && p->xs_w == p->c && (p->h == 1 || p->xs_h == p->w * p->c) &&
                      (p->n <= 1 || p->xs_n == p->h * p->w * p->c);
    job->gemm = one && p->groups == 1 && job->oh == p->h && job->ow == p->w && dense;
    if (job->gemm) {
        job->rows = p->n * p->h * p->w;
        int64_t piece = GEMM_BYTES / (job->cp * isa->element) / 48 * 48;
        piece = piece < 48 ? 48 : piece > 480 ? 480 : piece;
        job->piece = piece;
        job->row_units = (job->rows + piece - 1) / piece;
        job->o_block = job->rows < 1024 && p->o > 128 ? 128 : lgr_conv_up(p->o, 16);
        job->units = job->row_units * ((p->o + job->o_block - 1) / job->o_block);
    }
    return LGR_OK;
}

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
    return job->fused ? 0 : (job->p.o > SUMS ? job->p.o : SUMS) + 64;
}
static int64_t taps_count(const lgr_conv_job *job)
{
    return job->depthwise ? lgr_conv_up(job->p.kh * job->p.kw, 4) : 0;
}

int64_t lgr_conv_scratch_bytes(const lgr_conv_job *job)
{
    const lgr_conv_isa *isa = isa_of(job->engine);
    if (isa == NULL) return 0;
    /* state, band (+ a vector that may be read past it), sums, taps; each part starts at a multiple of 64 */
    return 64 + LGR_CONV_STATE_BYTES + lgr_conv_up(band_bytes(job, isa) + 128, 64) + lgr_conv_up(4 * sums_count(job), 64) +
           8 * taps_count(job);
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
    ws.isa = isa_of(job->engine);
    ws.state = at;
    ws.band = at + LGR_CONV_STATE_BYTES;
    ws.sums = (void *)(ws.band + lgr_conv_up(band_bytes(job, ws.isa) + 128, 64));
    ws.taps = (void *)((uint8_t *)ws.sums + lgr_conv_up(4 * sums_count(job), 64));
    return ws;
}

/* The codes of one pixel's or row's channels, from any stride. */
static void gather(const lgr_conv_isa *isa, const int8_t *x, int64_t stride, int64_t n, uint8_t *dst)
{
    if (stride == 1) {
        isa->copy(x, n, dst);
    } else if (isa->element == 1) {
        for (int64_t i = 0; i < n; ++i) dst[i] = (uint8_t)(x[i * stride] ^ 0x80);
    } else {
        for (int64_t i = 0; i < n; ++i) ((int16_t *)(void *)dst)[i] = x[i * stride];
    }
}
/* Input rows [y0, y0 + rows) of one image, padded: [rows][wp][pixel]. */
static void fill_band(const lgr_conv_job *job, const workspace *ws, const int8_t *image, int64_t y0, int64_t rows)
{
    const lgr_conv_params *p = &job->p;
    const lgr_conv_isa *isa = ws->isa;
    const int64_t e = isa->element, pixel = job->pixel * e, row = job->wp * pixel;
    const int64_t groups = job->depthwise ? 1 : p->groups, cg = p->c / groups, group = job->pixel / groups * e;
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
        for (int64_t z = 0; z < p->w; ++z)
            for (int64_t g = 0; g < groups; ++g)
                gather(isa, src + z * p->xs_w + g * cg * p->xs_c, p->xs_c, cg, dst + z * pixel + g * group);
    }
}

/* The pixels of one span, quantized in registers or through the row buffer. */
static void finish_span(const lgr_conv_job *job, const workspace *ws, lgr_conv_span *s, int64_t o0, int64_t o1, int64_t amax[2])
{
    if (job->fused) return;
    (void)s;
    const int64_t n = o1 - o0;
    if (job->ep == NULL) {
        for (int64_t r = 0; r < s->count; ++r)
            memcpy(job->out.acc + (s->pixel + r) * job->p.o + o0, ws->sums + r * n, (size_t)n * 4);
        return;
    }
    lgr_epilogue_rows(job->ep, job->narrow, ws->sums, n, job->narrow || !job->bias ? NULL : job->bias + o0, s->count, n, o0, job->p.o,
                      s->pixel, &job->out, amax);
}

static void run_gemm(const lgr_conv_job *job, const workspace *ws, int64_t u, int64_t amax[2])
{
    const lgr_conv_params *p = &job->p;
    const int64_t e = ws->isa->element, r0 = u % job->row_units * job->piece;
    const int64_t rows = job->rows - r0 < job->piece ? job->rows - r0 : job->piece;
    const int64_t o0 = u / job->row_units * job->o_block, o1 = p->o - o0 < job->o_block ? p->o : o0 + job->o_block;
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
    const int64_t chunk = job->fused ? rows : SUMS / (o1 - o0) > 0 ? SUMS / (o1 - o0) : 1;
    for (int64_t r = 0; r < rows; r += chunk) {
        lgr_conv_span s = {.x = ws->band + r * job->cp * e, .count = rows - r < chunk ? rows - r : chunk, .step = job->cp,
                           .ni = 1, .nj = 1, .kq = job->cp / ws->isa->quantum,
                           .w = (const uint8_t *)job->packed + o0 * job->cp * e, .init = job->init + o0,
                           .outputs = o1 - o0, .pixel = r0 + r, .ch = o0, .sums = ws->sums, .sums_stride = o1 - o0};
        ws->isa->span(ws->state, &s);
        finish_span(job, ws, &s, o0, o1, amax);
    }
}

/* One output row (n, y); its first input row is at `x` in the band. */
static void run_row(const lgr_conv_job *job, const workspace *ws, const uint8_t *x, int64_t u, int64_t amax[2])
{
    const lgr_conv_params *p = &job->p;
    const int64_t e = ws->isa->element, row = job->wp * job->pixel, q = ws->isa->quantum, padded = lgr_conv_up(job->og, 16);
    const int joined = p->dil_w == 1 && p->groups == 1; /* the taps of a kernel row are one run */
    const int64_t chunk = job->fused ? job->ow : SUMS / p->o > 0 ? SUMS / p->o : 1;
    for (int64_t z = 0; z < job->ow; z += chunk) {
        lgr_conv_span s = {.x = x + z * p->stride_w * job->pixel * e, .count = job->ow - z < chunk ? job->ow - z : chunk,
                           .step = p->stride_w * job->pixel, .ni = p->kh, .nj = joined ? 1 : p->kw,
                           .row = p->dil_h * row, .col = p->dil_w * job->pixel, .kq = (joined ? p->kw : 1) * job->cp / q,
                           .taps = ws->taps, .n_taps = p->kh * p->kw, .w = job->packed, .init = job->init,
                           .outputs = job->og, .pixel = u * job->ow + z, .sums = ws->sums, .sums_stride = p->o};
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
    if (isa_of(job->engine) == NULL) {
        lgr_conv_run_ref(job, u0, u1, amax);
        return;
    }
    const lgr_conv_params *p = &job->p;
    const workspace ws = workspace_of(job, scratch);
    ws.isa->begin(job, ws.state);
    if (job->gemm) {
        for (int64_t u = u0; u < u1; ++u) run_gemm(job, &ws, u, amax);
    } else {
        const int64_t row = job->wp * job->pixel, most = band_rows(job, ws.isa), taps = p->kh * p->kw;
        for (int64_t t = 0; t < taps_count(job); ++t) {
            const int64_t i = t < taps ? t / p->kw : 0, j = t < taps ? t % p->kw : 0;
            ws.taps[t] = i * p->dil_h * row + j * p->dil_w * job->pixel;
        }
        for (int64_t u = u0; u < u1;) { /* bands end with their image */
            const int64_t y = u % job->oh, left = job->oh - y < u1 - u ? job->oh - y : u1 - u, rows = left < most ? left : most;
            fill_band(job, &ws, job->x + u / job->oh * p->xs_n, y * p->stride_h - p->pad_t,
                      (rows - 1) * p->stride_h + (p->kh - 1) * p->dil_h + 1);
            for (int64_t r = 0; r < rows; ++r, ++u)
                run_row(job, &ws, ws.band + r * p->stride_h * row * ws.isa->element, u, amax);
        }
    }
    ws.isa->end(ws.state, amax);
}

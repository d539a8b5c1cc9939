/* conv.c - checks, the choice of engine and path. */
#include "kernels/conv/conv_isa.h"
#include "lgr/cpu.h"

#define SIZE_LIMIT ((int64_t)1 << 31) /* of one field */
#define TOTAL_LIMIT ((int64_t)1 << 48) /* of a tensor */
#define GEMM_BYTES 24576 /* rows of one piece of a matrix product, as scratch elements */

const lgr_conv_isa *lgr_conv_isa_of(lgr_conv_engine engine)
{
#if LGR_HAVE_AVX2
    if (engine == LGR_CONV_AVX2) return &lgr_conv_isa_avx2;
#endif
#if LGR_HAVE_AVXVNNI
    if (engine == LGR_CONV_AVXVNNI) return &lgr_conv_isa_avxvnni;
#endif
#if LGR_HAVE_AVX512VNNI
    if (engine == LGR_CONV_AVX512VNNI) return &lgr_conv_isa_avx512vnni;
#endif
#if LGR_HAVE_DOTPROD
    if (engine == LGR_CONV_DOTPROD) return &lgr_conv_isa_dotprod;
#endif
    (void)engine;
    return NULL;
}
static int has(lgr_conv_engine engine)
{
    const unsigned need = engine == LGR_CONV_AVX2         ? LGR_CPU_AVX2
                          : engine == LGR_CONV_AVXVNNI    ? LGR_CPU_AVX2 | LGR_CPU_AVXVNNI
                          : engine == LGR_CONV_AVX512VNNI ? LGR_CPU_AVX512VNNI
                          : engine == LGR_CONV_DOTPROD    ? LGR_CPU_DOTPROD
                                                          : 0u;
    return engine == LGR_CONV_REF ||
           (lgr_conv_isa_of(engine) != NULL && (lgr_cpu_flags() & need) == need);
}
/* Sums of products without the bias. */
static int64_t product_bound(const lgr_conv_params *p)
{
    return p->c / p->groups * p->kh * p->kw * (1 << 14);
}
static int fits(const lgr_conv_params *p)
{
    return product_bound(p) <=
           INT32_MAX; /* engines keep 32-bit sums; the rest is the reference's */
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
    const int64_t positive[] = {p->c,        p->h,        p->w,     p->o,     p->kh,    p->kw,
                                p->stride_h, p->stride_w, p->dil_h, p->dil_w, p->groups};
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
    const double weights = (double)(p->o + 16 * p->groups) * (double)(p->c / p->groups + 16) *
                           (double)p->kh * (double)p->kw;
    if (padded > (double)TOTAL_LIMIT || results > (double)TOTAL_LIMIT ||
        weights > (double)TOTAL_LIMIT)
        return LGR_E_RANGE;
    return LGR_OK;
}

lgr_conv_engine lgr_conv_pick(const lgr_conv_params *p)
{
    if (!fits(p)) return LGR_CONV_REF;
    if (has(LGR_CONV_AVX512VNNI)) return LGR_CONV_AVX512VNNI;
    if (has(LGR_CONV_AVXVNNI)) return LGR_CONV_AVXVNNI;
    if (has(LGR_CONV_DOTPROD)) return LGR_CONV_DOTPROD;
    return has(LGR_CONV_AVX2) ? LGR_CONV_AVX2 : LGR_CONV_REF;
}

/* Where the sums of each output start: the bias, less 128 * wsum for engines that see code + 128. */
static void fill_init(lgr_conv_job *job, const lgr_conv_isa *isa, int with_bias)
{
    const int64_t count = lgr_conv_wsum_count(&job->p, job->engine),
                  padded = lgr_conv_up(job->og, 16);
    for (int64_t i = 0; i < count; ++i) {
        const int64_t o = job->depthwise ? i : i / padded * job->og + i % padded;
        const int real = job->depthwise ? i < job->p.o : i % padded < job->og;
        uint32_t v = with_bias && job->bias && real ? (uint32_t)job->bias[o] : 0u;
        if (isa->zero) v -= 128u * (uint32_t)job->wsum[i];
        job->init[i] = (int32_t)v;
    }
}

lgr_status lgr_conv_begin(lgr_conv_job *job)
{
    if (job == NULL || job->packed == NULL || job->wsum == NULL || job->init == NULL)
        return LGR_E_NULL;
    const lgr_conv_params *p = &job->p;
    const lgr_status status = lgr_conv_check(p);
    if (status != LGR_OK) return status;
    if (!has(job->engine) || (job->engine != LGR_CONV_REF && !fits(p))) return LGR_E_RANGE;
    if (p->n > 0 && (job->x == NULL || (job->ep == NULL && job->out.acc == NULL)))
        return LGR_E_NULL;

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
    const lgr_conv_isa *isa = lgr_conv_isa_of(job->engine);
    if (isa == NULL) return LGR_OK;

    job->cp = job->depthwise ? 1 : lgr_conv_up(job->cg, isa->quantum);
    job->pixel = job->depthwise ? lgr_conv_up(p->c, 16) : p->groups * job->cp;
    job->wp = p->w + p->pad_l + p->pad_r;
    const int narrow = job->ep == NULL || lgr_epilogue_narrow(job->ep, job->bound);
    const int whole_masks = p->groups == 1 || job->depthwise || job->og % 16 == 0;
    job->fused = isa->fuses && narrow && whole_masks && job->out.code16 == NULL &&
                 (job->ep == NULL || job->out.acc == NULL);
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

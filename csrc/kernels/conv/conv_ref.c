/* conv_ref.c - the plain C reference: every shape, 64-bit sums, one output at a time. */
#include "kernels/conv/conv_isa.h"

/* Below 2^16 products of two int8 codes a sum fits int32: 2^16 * 2^14 = 2^30. */
#define CHUNK ((int64_t)1 << 16)

static int64_t dot(const int8_t *x, int64_t stride, const int8_t *w, int64_t n)
{
    int64_t sum = 0;
    for (int64_t at = 0; at < n; at += CHUNK) {
        const int64_t end = n - at < CHUNK ? n : at + CHUNK;
        int32_t part = 0;
        if (stride == 1)
            for (int64_t i = at; i < end; ++i) part += x[i] * w[i];
        else
            for (int64_t i = at; i < end; ++i) part += x[i * stride] * w[i];
        sum += part;
    }
    return sum;
}

/* One exact sum. x: first channel of the group in image n; w: [kh][kw][cg]. */
static int64_t window(const lgr_conv_params *p, int64_t cg, const int8_t *x, const int8_t *w,
                      int64_t oy, int64_t ox)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < p->kh; ++i) {
        const int64_t y = oy * p->stride_h + i * p->dil_h - p->pad_t;
        if (y < 0 || y >= p->h) continue;
        for (int64_t j = 0; j < p->kw; ++j) {
            const int64_t z = ox * p->stride_w + j * p->dil_w - p->pad_l;
            if (z < 0 || z >= p->w) continue;
            sum += dot(x + y * p->xs_h + z * p->xs_w, p->xs_c, w + (i * p->kw + j) * cg, cg);
        }
    }
    return sum;
}

void lgr_conv_run_ref(const lgr_conv_job *job, int64_t u0, int64_t u1, int64_t amax[2])
{
    const lgr_conv_params *p = &job->p;
    const int8_t *weights = job->packed;
    const int64_t taps = p->kh * p->kw, row_bytes = lgr_mask_row_bytes(p->o);
    for (int64_t u = u0; u < u1; ++u) {
        const int8_t *image = job->x + u / job->oh * p->xs_n;
        for (int64_t ox = 0; ox < job->ow; ++ox) {
            const int64_t pixel = u * job->ow + ox;
            uint8_t *mask = job->out.mask ? job->out.mask + pixel * row_bytes : NULL;
            if (mask) memset(mask, 0, (size_t)row_bytes);
            for (int64_t o = 0; o < p->o; ++o) {
                const int8_t *x = image + o / job->og * job->cg * p->xs_c;
                const int64_t a =
                    window(p, job->cg, x, weights + o * taps * job->cg, u % job->oh, ox) +
                    (job->bias ? job->bias[o] : 0);
                if (job->ep == NULL) {
                    job->out.acc[pixel * p->o + o] = (int32_t)(uint32_t)(uint64_t)a;
                    continue;
                }
                amax[0] = a > amax[0] ? a : amax[0];
                amax[1] = -a > amax[1] ? -a : amax[1];
                if (lgr_epilogue_one(job->ep, a, pixel * p->o + o, &job->out) && mask)
                    mask[o / 8] = (uint8_t)(mask[o / 8] | 1u << o % 8);
            }
        }
    }
}

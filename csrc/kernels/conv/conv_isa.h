/* conv_isa.h - what an engine supplies; conv.c walks images, bands and groups for all of them. */
#ifndef LGR_CONV_ISA_H
#define LGR_CONV_ISA_H
#include "lgr/conv.h"

/* Engine-private constants of one lgr_conv_run call, kept in scratch. */
#define LGR_CONV_STATE_BYTES 1024

/* A run of output pixels along one row and a range of output channels. Positions in scratch elements. */
typedef struct lgr_conv_span {
    const void *x; /* first tap of the first pixel, in padded scratch */
    int64_t count, step; /* pixels, distance between them */
    int64_t ni, nj, row, col; /* taps: ni x nj runs, row and col apart */
    int64_t kq; /* dot products of a run */
    const int64_t *taps; /* depthwise: offsets, padded to a multiple of 4 with repeats */
    int64_t n_taps; /* depthwise: how many of them count */
    const void *w; /* packed weights of the first block */
    const int32_t *init; /* start of the sums of the first block */
    int64_t outputs; /* channels */
    int64_t pixel, ch; /* fused: where the results go, in pixels and channels */
    int32_t *sums; /* not fused: [count][sums_stride], first channel of the span */
    int64_t sums_stride;
} lgr_conv_span;

typedef struct lgr_conv_isa {
    int64_t quantum; /* channels of one dot product, packed together */
    int64_t element; /* bytes of a scratch element: 1 or 2 (int16) */
    int zero; /* byte that is 0: 0x80 where an element is code + 128, unsigned */
    int fuses; /* spans can quantize */
    void (*copy)(const int8_t *x, int64_t n, void *dst); /* contiguous codes to scratch */
    void (*begin)(const lgr_conv_job *job, void *state);
    void (*span)(void *state, const lgr_conv_span *s);
    void (*depthwise)(void *state, const lgr_conv_span *s);
    void (*end)(void *state, int64_t amax[2]);
} lgr_conv_isa;

extern const lgr_conv_isa lgr_conv_isa_avx2, lgr_conv_isa_avxvnni, lgr_conv_isa_avx512vnni,
    lgr_conv_isa_dotprod;

static inline int64_t lgr_conv_up(int64_t v, int64_t m) { return (v + m - 1) / m * m; }
static inline int lgr_conv_is_depthwise(const lgr_conv_params *p)
{
    return p->groups > 1 && p->groups == p->c && p->o == p->c;
}
static inline int64_t lgr_conv_gcd(int64_t a, int64_t b) { return b ? lgr_conv_gcd(b, a % b) : a; }
/* Depthwise AVX-512 VNNI: 64 consecutive (column, channel) outputs share a weight set; sets repeat with this period. */
static inline int lgr_conv_is_flat(const lgr_conv_params *p)
{
    return p->c % 16 == 0 && p->stride_w == 1;
}
static inline int64_t lgr_conv_dw_sets(const lgr_conv_params *p, lgr_conv_engine e)
{
    if (e == LGR_CONV_AVX2) return lgr_conv_up(p->c, 16) / 16;
    return e == LGR_CONV_AVX512VNNI && lgr_conv_is_flat(p) ? p->c / lgr_conv_gcd(p->c, 64)
                                                           : lgr_conv_up(p->c, 64) / 64;
}
/* Taps of one depthwise dot product: 4 bytes or 2 int16. */
static inline int64_t lgr_conv_dw_quads(const lgr_conv_params *p, int64_t quantum)
{
    return lgr_conv_up(p->kh * p->kw, quantum) / quantum;
}

/* conv.c: the engine's functions, NULL for the reference and for engines not built. */
const lgr_conv_isa *lgr_conv_isa_of(lgr_conv_engine engine);

/* conv_ref.c: any shape, 64-bit sums; unit = one output row (n, y). */
void lgr_conv_run_ref(const lgr_conv_job *job, int64_t u0, int64_t u1, int64_t amax[2]);
#endif

/* conv.h - exact integer convolution and matrix product of int8 codes, NHWC results, output quantizer fused.
 *
 * A linear layer is a 1x1 convolution over rows. All engines compute the same bits: the plain C reference (every
 * shape, 64-bit sums), AVX2 (vpmaddwd), VNNI (vpdpbusd) and ARM's dot product (sdot). The caller picks one, packs the weights for it once
 * and runs ranges of work units from as many threads as it likes.
 * Source: docs/numerics.md, "Convolution and linear".
 */
#ifndef LGR_CONV_H
#define LGR_CONV_H
#include "lgr/epilogue.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A = bias + sum over the window of x * w; zero padding; output size
 * floor((in + pads - dilation * (k - 1) - 1) / stride) + 1. */
typedef struct lgr_conv_params {
    int64_t n, c, h, w; /* input: images, channels, rows, columns */
    int64_t o, kh, kw; /* output channels, kernel */
    int64_t stride_h, stride_w; /* >= 1 */
    int64_t pad_t, pad_l; /* >= 0; top, left */
    int64_t pad_b, pad_r; /* >= 0; bottom, right */
    int64_t dil_h, dil_w; /* >= 1 */
    int64_t groups; /* divides c and o */
    int64_t xs_n, xs_c, xs_h, xs_w; /* strides of x in elements; any */
} lgr_conv_params;

typedef enum lgr_conv_engine {
    LGR_CONV_REF = 0,
    LGR_CONV_AVX2 = 1,
    LGR_CONV_AVX512VNNI = 2,
    LGR_CONV_AVXVNNI = 3,
    LGR_CONV_DOTPROD = 4,
} lgr_conv_engine;

/* One call. Fill everything above the line, then lgr_conv_begin fills the rest; threads share it
 * read-only. */
typedef struct lgr_conv_job {
    lgr_conv_params p;
    lgr_conv_engine engine; /* the one the weights were packed for */
    const int8_t *x; /* codes */
    const void *packed; /* from lgr_conv_pack */
    const int32_t *wsum; /* from lgr_conv_pack */
    const int32_t *bias; /* [o], or NULL */
    int32_t *init; /* [lgr_conv_wsum_count] for lgr_conv_begin to fill */
    const lgr_epilogue *ep; /* NULL: out.acc receives the sums modulo 2^32, bias included */
    lgr_outputs out; /* [n][oh][ow][o] */
    /* ---- */
    int64_t oh, ow; /* output size */
    int64_t cg, og, cp; /* channels, outputs and padded channels of a group */
    int64_t pixel, wp; /* padded image: elements per pixel, pixels per row */
    int64_t units; /* pieces of work for lgr_conv_run */
    int64_t rows, piece; /* matrix product: rows in all, rows of one piece */
    int64_t row_units; /* matrix product: pieces along the rows */
    int64_t o_block; /* matrix product: outputs of one piece */
    int64_t bound; /* |A| is at most this */
    int gemm, depthwise; /* 1x1 on dense rows; one channel per group */
    int narrow, fused; /* 32 bits suffice; the engine quantizes its own registers */
} lgr_conv_job;

/* LGR_OK, or LGR_E_RANGE when sizes are inconsistent, out of range, or would overflow an index. */
lgr_status lgr_conv_check(const lgr_conv_params *p);
int64_t lgr_conv_out_h(const lgr_conv_params *p);
int64_t lgr_conv_out_w(const lgr_conv_params *p);

/* The fastest engine that this processor (lgr_cpu_flags) has for a checked shape. */
lgr_conv_engine lgr_conv_pick(const lgr_conv_params *p);

/* Sizes for an engine: bytes of packed weights, elements of wsum and init, independent blocks of the packing. */
int64_t lgr_conv_packed_bytes(const lgr_conv_params *p, lgr_conv_engine engine);
int64_t lgr_conv_wsum_count(const lgr_conv_params *p, lgr_conv_engine engine);
int64_t lgr_conv_pack_blocks(const lgr_conv_params *p, lgr_conv_engine engine);

/**
 * Blocks [b0, b1) of the packed weights.
 *
 * @param[in]  w       [o][c / groups][kh][kw] int8, contiguous.
 * @param[out] packed  lgr_conv_packed_bytes, aligned to 2 bytes (64: faster).
 * @param[out] wsum    [lgr_conv_wsum_count] sums of the weights of each (padded) output.
 */
void lgr_conv_pack(const lgr_conv_params *p, lgr_conv_engine engine, const int8_t *w, int64_t b0,
                   int64_t b1, void *packed, int32_t *wsum);

/**
 * Check the job, choose the path and fill init.
 *
 * @return LGR_OK; LGR_E_NULL for a missing x, packed, wsum, init or result; LGR_E_RANGE for the shape, for an engine
 *         this processor or shape does not have, or for out.acc without room for the sums (ep == NULL, |A| >= 2^31).
 */
lgr_status lgr_conv_begin(lgr_conv_job *job);

/* Scratch of one thread in bytes, after lgr_conv_begin. */
int64_t lgr_conv_scratch_bytes(const lgr_conv_job *job);

/**
 * Units [u0, u1) of a begun job. Units write disjoint bytes: any split over threads gives the same bits.
 *
 * @param[out]    scratch  lgr_conv_scratch_bytes, any alignment, one per thread.
 * @param[in,out] amax     {max(A), max(-A)} so far; start with zeros, merge by maximum.
 *
 * Thread-safe, no allocation. Sums are exact; A saturates to 32 bits where the epilogue says so.
 */
void lgr_conv_run(const lgr_conv_job *job, int64_t u0, int64_t u1, void *scratch, int64_t amax[2]);

#ifdef __cplusplus
}
#endif
#endif

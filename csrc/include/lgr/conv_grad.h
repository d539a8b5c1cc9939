/* conv_grad.h - float gradients of an integer convolution, from int8 codes and mask bits.
 *
 * They are those of the float convolution of the dequantized operands; a linear layer is a 1x1 convolution over rows. Codes enter the products as whole float32 numbers and the
 * powers of two of the scales leave them at the end, both exact: no dequantized copy, no masked copy of dy.
 * A sum is one chain of additions in a fixed order, cut into slices by the shape alone: the same bits for every number of
 * threads and every split of the units; AVX2 + FMA and AVX-512 give the same bits too, plain C (no FMA) others in the last places.
 * Not a number, infinity: dy is masked first (a masked NaN counts as 0); what is left multiplies every tap of its window,
 * zeros of the padding included (inf * 0 = NaN), so all of gw[o] shows that a gradient of output o overflowed.
 * Source: docs/numerics.md, "Convolution and linear".
 */
#ifndef LGR_CONV_GRAD_H
#define LGR_CONV_GRAD_H
#include "lgr/conv.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One call. Fill everything above the line, then lgr_conv_grad_begin fills the rest; threads share it read-only. */
typedef struct lgr_conv_grad {
    lgr_conv_params p; /* shape, and the strides of x */
    const int8_t *x; /* codes */
    const int8_t *w; /* codes [o][c / groups][kh][kw] */
    int64_t ws_o, ws_c, ws_h,
        ws_w; /* strides of w and gw in elements; every element of a block once */
    const float *dy; /* [n][o][oh][ow], gradient of the result */
    int64_t ds_n, ds_o, ds_h, ds_w; /* strides of dy in elements; any, 0 included */
    const uint8_t
        *mask; /* [n * oh * ow] rows of lgr_mask_row_bytes(o) bytes; NULL: all of dy passes */
    const uint8_t *w_mask; /* flat bits over the memory of gw; NULL: all pass */
    int32_t x_exp2, w_exp2; /* scales of x and w; behind LGR_EXP2_NAN the operand counts as 0 */
    float *gx; /* [n][h][w][c], or NULL: not wanted */
    float *gw; /* like w, or NULL */
    float *gb; /* [o], or NULL */
    float *shared; /* lgr_conv_grad_shared_bytes, set after lgr_conv_grad_begin */
    /* ---- */
    int64_t oh, ow; /* size of dy */
    int64_t cg, og; /* channels and outputs of a group */
    int depthwise; /* one channel and one output per group */
    int joined; /* the taps of a kernel row and their channels are one run in memory */
    int patches; /* few channels: gw reads windows copied side by side, taps as channels */
    int64_t top, left; /* rows and columns of zeros before dy in scratch */
    int64_t band, bands; /* rows of dy handled at a time; how often per image */
    int64_t dy_rows, dy_cols, dy_pixel,
        dy_image; /* scratch of dy: of a band; floats per pixel, per image */
    int64_t x_rows, x_cols, x_pixel, x_image; /* the same of x, padded */
    int64_t patch_image; /* floats of the windows of a band */
    int64_t group; /* images in scratch at a time */
    int64_t slices; /* cuts of (image, band), each with its own sum of gw and gb */
    int64_t
        parts; /* cuts of a slice: depthwise by channels; dense into gx by channels and gw by outputs */
    int64_t share; /* depthwise: channels of a part */
    int64_t runs, run, run_pad; /* gw in shared: runs of places per output, padded to 16 */
    int64_t packed, sums; /* floats of the packed weights, of one slice's sums */
    int64_t units; /* pieces of work for lgr_conv_grad_run: slices * parts */
} lgr_conv_grad;

/**
 * Check the call and plan it.
 *
 * @return LGR_OK; LGR_E_NULL for a missing x, w or dy; LGR_E_RANGE for the shape.
 */
lgr_status lgr_conv_grad_begin(lgr_conv_grad *g);

/* After lgr_conv_grad_begin: bytes that all threads share, bytes of scratch per thread (any alignment). */
int64_t lgr_conv_grad_shared_bytes(const lgr_conv_grad *g);
int64_t lgr_conv_grad_scratch_bytes(const lgr_conv_grad *g);

/**
 * First every block of [0, lgr_conv_grad_blocks) once with _pack, then every unit of [0, units) once with _run, then every
 * output of [0, p.o) once with _end; each of the three from as many threads as one likes.
 *
 * Pieces of one step write disjoint bytes; no allocation.
 */
int64_t lgr_conv_grad_blocks(const lgr_conv_grad *g);
void lgr_conv_grad_pack(const lgr_conv_grad *g, int64_t b0, int64_t b1);
void lgr_conv_grad_run(const lgr_conv_grad *g, int64_t u0, int64_t u1, void *scratch);
void lgr_conv_grad_end(const lgr_conv_grad *g, int64_t o0, int64_t o1);

#ifdef __cplusplus
}
#endif
#endif

/* conv_cuda.h - CUDA twin of the convolution with its output quantizer (output_cuda.h). */
#ifndef LGR_CONV_CUDA_H
#define LGR_CONV_CUDA_H
#include "lgr/conv.h"
#include "lgr/output_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lgr_conv_cuda_job {
    lgr_conv_params p; /* lgr_conv_cuda_has */
    const int8_t *x; /* codes; fastest with xs_c == 1 and channels in fours or sixteens */
    const int8_t *w; /* [o][kh][kw][c / groups]: torch's channels-last */
    int32_t *sums; /* [n][oh][ow][o] scratch where lgr_conv_cuda_apart, else NULL */
    lgr_output_cuda q; /* q.o == p.o; results are [n][oh][ow][o] */
} lgr_conv_cuda_job;

/* Whether the kernels compute this shape: pixels, outputs and products of a sum are counted in 31 bits. */
int lgr_conv_cuda_has(const lgr_conv_params *p);
/* Whether groups share bytes of the mask: sums are then written first and quantized by a kernel of their own. */
int lgr_conv_cuda_apart(const lgr_conv_params *p);
/* sums[row][o] = x[row] . w[o], int32: rows of k < 2^17 codes. */
lgr_status lgr_product_cuda(const int8_t *x, const int8_t *w, int64_t rows, int64_t k, int64_t o,
                            int32_t *sums, void *stream);
lgr_status lgr_conv_cuda(const lgr_conv_cuda_job *job, void *stream);

#ifdef __cplusplus
}
#endif
#endif

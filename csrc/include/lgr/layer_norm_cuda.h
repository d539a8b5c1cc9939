/* layer_norm_cuda.h - CUDA twin of layer_norm.h; the rules of output_cuda.h. */
#ifndef LGR_LAYER_NORM_CUDA_H
#define LGR_LAYER_NORM_CUDA_H
#include "lgr/layer_norm.h"
#include "lgr/output_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of q->o codes; q->bias or q->bias_codes is beta. The exponent for eps is that of x_scale, one float32 or NULL, plus eps_exp2. */
typedef struct lgr_layer_norm_cuda_job {
    const int8_t *x;
    int64_t rows;
    const void *gamma; /* [q->o] codes of gamma_bytes bytes, at most 16 bits */
    int32_t gamma_bytes;
    int32_t bits; /* of the normalised value: 32, venus 16 */
    const float *x_scale;
    int32_t eps_exp2;
    lgr_output_cuda q;
} lgr_layer_norm_cuda_job;
lgr_status lgr_layer_norm_cuda(const lgr_layer_norm_cuda_job *job, void *stream);

#ifdef __cplusplus
}
#endif
#endif

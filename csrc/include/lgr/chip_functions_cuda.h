/* chip_functions_cuda.h - CUDA twins of chip_functions.h, activation.h and glu.h; the rules of output_cuda.h. */
#ifndef LGR_CHIP_FUNCTIONS_CUDA_H
#define LGR_CHIP_FUNCTIONS_CUDA_H
#include "lgr/activation.h"
#include "lgr/output_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

lgr_status lgr_chip_function_cuda(int table, int bits, const int32_t *x, int64_t n, int32_t *y,
                                  void *stream);
/* x_scale: the scale of x, one float32; NULL: its exponent is exp2. */
lgr_status lgr_activation_cuda(int table, int width, const void *x, int32_t bytes,
                               const float *x_scale, int32_t exp2, const lgr_output_cuda *q,
                               void *stream);
/* Float results: the device's own exp, tanh and erf, within 2 ulp of the CPU's. */
lgr_status lgr_activation_grad_cuda(int table, const float *g, const void *x, int32_t bytes,
                                    const float *x_scale, int64_t n, float *dx, void *stream);
lgr_status lgr_glu_cuda(int chip, const int8_t *x, const float *x_scale, int32_t exp2, int64_t half,
                        int left, const lgr_output_cuda *q, void *stream);
lgr_status lgr_glu_grad_cuda(const float *g, const int8_t *x, const float *x_scale, int64_t rows,
                             int64_t half, float *dx, void *stream);

#ifdef __cplusplus
}
#endif
#endif

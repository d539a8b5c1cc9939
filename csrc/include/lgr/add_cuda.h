/* add_cuda.h - CUDA twins of add.h; the rules of output_cuda.h. */
#ifndef LGR_ADD_CUDA_H
#define LGR_ADD_CUDA_H
#include "lgr/add.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LGR_ADD_CUDA_SCRATCH 256 /* bytes, aligned to 8 */

/* Sum or difference with its output quantizer. p: its exponents and no_slope are not read. */
typedef struct lgr_add_cuda_job {
    const void *x, *y;
    const float *x_scale, *y_scale;
    int64_t n;
    struct lgr_add_params p;
    lgr_stats state;
    int32_t observe;
    struct lgr_quantize_out out;
    float *scale_now;
    void *scratch;
} lgr_add_cuda_job;
lgr_status lgr_add_cuda(const lgr_add_cuda_job *job, void *stream);

lgr_status lgr_add_codes_cuda(const void *x, const void *y, int32_t bytes, int64_t n,
                              int32_t shift_x, int32_t shift_y, int32_t bits, int32_t minus,
                              void *out, void *stream);
lgr_status lgr_requant_cuda(const void *x, int32_t bytes, int64_t n, int32_t shift, int32_t bits,
                            void *out, void *stream);

#ifdef __cplusplus
}
#endif
#endif

/* quantize_cuda.h - CUDA twins of quantize and the masks. All pointers are device pointers; the caller sets the device; work is
 * queued on `stream` (a cudaStream_t) and nothing waits for it. */
#ifndef LGR_QUANTIZE_CUDA_H
#define LGR_QUANTIZE_CUDA_H
#include "lgr/mask.h"
#include "lgr/quantize.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LGR_QUANTIZE_CUDA_SCRATCH 32 /* bytes on the device, aligned to 4 */

/**
 * Finds the range of x, moves the state, and quantizes with the exponent that follows: the results and the state equal the CPU's
 * bit for bit.
 *
 * @param[in] x         [n] float32.
 * @param[in,out] state Device pointers; moved when observe is set and n > 0.
 * @param[in] p         exp2, no_slope and stream are ignored.
 * @param[in] observe   Non-zero: move the statistics.
 * @param[out] out      As lgr_quantize_f32.   @param[out] scale  one float32, the snapshot.
 * @param[in] scratch   LGR_QUANTIZE_CUDA_SCRATCH bytes.
 * @return LGR_OK; LGR_E_RANGE; LGR_E_NULL; LGR_E_DEVICE when a launch is refused.
 */
lgr_status lgr_quantize_state_f32_cuda(const float *x, int64_t n, const lgr_stats *state,
                                       const struct lgr_quantize_params *p, int observe,
                                       const struct lgr_quantize_out *out, float *scale,
                                       void *scratch, void *stream);

/* The weight of a layer, rounded half to even: its exponent keeps the bias, [n_bias] float32 or NULL, inside 32 bits where x_scale is
 * given. A NaN in the bias makes the scale NaN. out->value may be NULL. */
lgr_status lgr_quantize_weight_f32_cuda(const float *w, int64_t n, const float *bias,
                                        int64_t n_bias, const float *x_scale,
                                        const lgr_stats *state, int32_t bits, int observe,
                                        const struct lgr_quantize_out *out, float *scale,
                                        void *scratch, void *stream);
/* Codes at the exponent of `scale`, one float32; NULL: at p->exp2. */
lgr_status lgr_quantize_at_f32_cuda(const float *x, int64_t n, const float *scale,
                                    const struct lgr_quantize_params *p, void *codes, void *stream);
lgr_status lgr_quantize_bias_f32_s32_cuda(const float *bias, int64_t n, const float *x_scale,
                                          const float *w_scale, int32_t *codes, void *stream);
/* saved: the codes behind a NaN scale are 0, and so are the values; else NaN. */
lgr_status lgr_dequantize_f32_cuda(const void *codes, int32_t bytes, int64_t n, const float *scale,
                                   int saved, float *value, void *stream);

/* As lgr_mask_grad_f32 (row == 0) and lgr_mask_grad_rows_f32 (row: elements per mask row, a divisor of n). */
lgr_status lgr_mask_grad_f32_cuda(const float *grad, const uint8_t *mask, int64_t n, int64_t row,
                                  float *out, void *stream);

#define LGR_SUM_BLOCK 16384 /* elements per part, as the CPU adapter splits */

/* As lgr_slope_sum_f32 over blocks of LGR_SUM_BLOCK and lgr_threshold_grad: out[0] has the CPU's bits.
 * parts: [(n + LGR_SUM_BLOCK - 1) / LGR_SUM_BLOCK] float64 scratch; scale: one float32. */
lgr_status lgr_threshold_grad_f32_cuda(const float *grad, const float *slope, int64_t n,
                                       const float *scale, double *parts, float *out, void *stream);

#ifdef __cplusplus
}
#endif
#endif

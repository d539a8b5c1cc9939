/* output_cuda.h - the output quantizer of an operator on the device: its exponent is decided there, nothing is read back.
 *
 * Every pointer in a *_cuda.h is a device pointer; the caller has set the device; work is queued on `stream` and nothing waits for
 * it. Results and state equal the CPU's bit for bit. Every launcher returns LGR_OK; LGR_E_NULL; LGR_E_RANGE; LGR_E_DEVICE when the
 * runtime refuses a launch.
 */
#ifndef LGR_OUTPUT_CUDA_H
#define LGR_OUTPUT_CUDA_H
#include "lgr/epilogue.h"
#include "lgr/observe.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LGR_OUTPUT_CUDA_SCRATCH 256 /* bytes, aligned to 8 */

typedef struct lgr_output_cuda {
    /* The sums have the exponent scale_a + scale_b + exp2 (a NULL scale: 0). Below -126 the result is NaN: the CPU's adapters
     * raise an error, which would have to read the scales back. */
    const float *scale_a, *scale_b;
    int32_t exp2;
    const float *
        watched; /* a scale that is no part of the exponent, or NULL: where it is NaN, so is the result */
    const float *number; /* one more operand in real units, or NULL: NaN in it, too */
    const float *bias; /* [o] float32 in real units, or NULL */
    int32_t *bias_codes; /* [o]: written from bias; without bias, codes that are added, or NULL */
    int64_t o; /* outputs of a row */
    lgr_stats state;
    int32_t fixed,
        out_exp2; /* fixed: no state, the codes have exponent out_exp2; scale_now may be NULL */
    int32_t bits, rounding, relu, sat32, observe;
    double clamp;
    lgr_outputs out;
    float *scale_now; /* the snapshot, one float32 */
    void *scratch; /* LGR_OUTPUT_CUDA_SCRATCH bytes */
} lgr_output_cuda;

/* The host's checks of the fields above; `o` outputs a row. */
lgr_status lgr_output_cuda_check(const lgr_output_cuda *q);
/* Reads the scales, quantizes the bias, guesses the exponent. */
lgr_status lgr_output_cuda_begin(const lgr_output_cuda *q, void *stream);
/* Moves the state by what the first pass saw, and says whether a second one is needed. */
lgr_status lgr_output_cuda_decide(const lgr_output_cuda *q, void *stream);

#ifdef __cplusplus
}
#endif
#endif

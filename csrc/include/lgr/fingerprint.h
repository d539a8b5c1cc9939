/* fingerprint.h - whether a tensor is still what it was, from evenly spaced elements. Source: ours. */
#ifndef LGR_FINGERPRINT_H
#define LGR_FINGERPRINT_H
#include "lgr/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { LGR_FINGERPRINT_SAMPLES = 1024 };

/**
 * 64 bits that depend on every bit of the sampled elements, on their places and on n.
 *
 * Up to LGR_FINGERPRINT_SAMPLES elements all are sampled; of more, about that many at an odd distance, first and last included.
 *
 * @param[in]  x      [n] float32, any value, compared as bits.
 * @param[out] print  Equal for equal samples; different ones agree with a chance of about 2^-64. Not cryptographic.
 * @return LGR_OK; LGR_E_RANGE for n; LGR_E_NULL.
 */
lgr_status lgr_fingerprint_f32(const float *x, int64_t n, uint64_t *print);

#ifdef __cplusplus
}
#endif
#endif

/* fingerprint.c - four chains of xor and odd product, mixed at the end. */
#include "lgr/fingerprint.h"
#include <string.h>

enum { LANES = 4 };

static uint64_t mix(uint64_t v) /* every bit reaches every bit */
{
    v = (v ^ v >> 33) * 0xff51afd7ed558ccdu;
    v = (v ^ v >> 29) * 0xc4ceb9fe1a85ec53u;
    return v ^ v >> 32;
}

static uint64_t step(uint64_t h, const float *x)
{
    uint32_t bits;
    memcpy(&bits, x, sizeof bits);
    h = (h ^ bits) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

lgr_status lgr_fingerprint_f32(const float *x, int64_t n, uint64_t *print)
{
    if (n < 0) return LGR_E_RANGE;
    if (print == NULL || (n > 0 && x == NULL)) return LGR_E_NULL;
    const int64_t apart = n > LGR_FINGERPRINT_SAMPLES ? (n / LGR_FINGERPRINT_SAMPLES) | 1 : 1;
    const int64_t count = n > 0 ? (n - 1) / apart + 1 : 0;
    uint64_t h[LANES] = {1, 2, 3, 4};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (int j = 0; j < LANES; ++j) h[j] = step(h[j], x + (i + j) * apart);
    for (; i < count; ++i) h[0] = step(h[0], x + i * apart);
    if (n > 0) h[1] = step(h[1], x + n - 1);
    uint64_t all = mix((uint64_t)n);
    for (int j = 0; j < LANES; ++j) all = mix(all ^ mix(h[j]));
    *print = all;
    return LGR_OK;
}

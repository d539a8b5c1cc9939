/* scale_bias.c - checks and the only implementation: the products are few, memory decides. */
#include "lgr/scale_bias.h"

lgr_status lgr_scale_bias_s8_s8(const int8_t *x, const int8_t *w, const int32_t *b, int64_t outer,
                                int64_t c, int64_t inner, int32_t shift, int8_t *out)
{
    if (outer < 0 || c < 0 || inner < 0 || shift < -63 || shift > 63) return LGR_E_RANGE;
    if (outer == 0 || c == 0 || inner == 0) return LGR_OK;
    if (x == NULL || w == NULL || b == NULL || out == NULL) return LGR_E_NULL;
    for (int64_t i = 0; i < outer; ++i)
        for (int64_t ch = 0; ch < c; ++ch) {
            const int64_t at = (i * c + ch) * inner;
            for (int64_t j = 0; j < inner; ++j)
                out[at + j] = lgr_scale_bias_one(x[at + j], w[ch], b[ch], shift);
        }
    return LGR_OK;
}

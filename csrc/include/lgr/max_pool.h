/* max_pool.h - the largest code of each window; padding never wins. Source: docs/numerics.md, "Operators that keep codes". */
#ifndef LGR_MAX_POOL_H
#define LGR_MAX_POOL_H
#include "lgr/qmath.h"

#ifdef __cplusplus
extern "C" {
#endif

/* n images of h x w pixels of c values. Planar (NCHW) data: n = images * channels, c = 1. */
struct lgr_max_pool_params {
    int64_t n, h, w, c, oh, ow;
    int32_t kh, kw, sh, sw, pad_top, pad_left;
    int32_t bytes; /* of a code, in and out: 1 (int8) or 4 (int32) */
};

/**
 * @param[in]  x       [n][h][w][c] codes.
 * @param[in]  from,to Images to do, 0 <= from <= to <= n.
 * @param[out] codes   [n][oh][ow][c], same type; a window of padding alone gives the lowest code.
 * @return LGR_OK; LGR_E_RANGE for a size; LGR_E_NULL.
 */
lgr_status lgr_max_pool(const void *x, const struct lgr_max_pool_params *p, int64_t from,
                        int64_t to, void *codes);

#ifdef __cplusplus
}
#endif
#endif

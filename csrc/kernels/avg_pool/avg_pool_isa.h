/* avg_pool_isa.h - one output pixel of interleaved int8 data. */
#ifndef LGR_AVG_POOL_ISA_H
#define LGR_AVG_POOL_ISA_H
#include "lgr/avg_pool.h"

/* The part of a window that lies inside the image. */
struct lgr_window {
    int64_t rows, cols, row_step; /* row_step: codes from one row to the next */
};

/* Channels [0, c - c % 8) of the pixel whose window starts at x; returns how many. kh * kw <= 2^14. */
int64_t lgr_avg_pool_s8_avx2(const int8_t *x, struct lgr_window win, int64_t c, lgr_divider v,
                             float inv, int8_t *codes, float *value);
#endif

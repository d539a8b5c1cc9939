/* unit_gradients.h - what the gradients of LSTM and GRU units share, in the names of grad_lanes_*.h; C++ reads it too. */
#ifndef LGR_UNIT_GRADIENTS_H
#define LGR_UNIT_GRADIENTS_H
#include "kernels/recurrent/recurrent_sizes.h"
#include "kernels/recurrent/saved_lanes.h"

typedef struct
    factor { /* the value that the products used, and the derivative at the pre-activation */
    vf y, d;
} factor;

typedef struct plan {
    int64_t h, hp, hn, blocks, cap, plane; /* plane: floats of one gate */
    float *dg, *cols_r, *dh, *dc; /* states: from entry r0 on */
    int q_h;
    float inv_h, to_code; /* 2^-q_h, 2^q_h */
} plan;
/* sum of dh * d code / d threshold over n lanes: code - v, or the limit where it saturated; v in units of the code. last: v as the
 * last rounding found it: more than half a step from there to the code is saturation. */
LGR_VEC double slope_sum(vf dh, vf code, vf v, vf last, int64_t n)
{
    float g[FL], q[FL], off[FL], cut[FL];
    double sum = 0.0;
    f_store(g, dh);
    f_store(q, code);
    f_store(off, code - v);
    f_store(cut, code - last);
    for (int64_t i = 0; i < n && i < FL; ++i) {
        const int saturated = cut[i] > 0.5002f || cut[i] < -0.5002f; /* of 24 bits */
        sum += (double)g[i] * (double)(saturated ? q[i] : off[i]);
    }
    return sum;
}
#endif

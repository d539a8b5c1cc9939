/* conv_grad_isa.h - what a twin supplies, and the phases of a strided axis, which packing and products share. */
#ifndef LGR_CONV_GRAD_ISA_H
#define LGR_CONV_GRAD_ISA_H
#include "lgr/conv_grad.h"
#include "lgr/qmath.h"
#include <string.h>

typedef struct lgr_conv_grad_isa {
    void (*run)(const lgr_conv_grad *g, int64_t unit, float *scratch); /* aligned to 64 bytes */
    void (*end)(const lgr_conv_grad *g, int64_t o0, int64_t o1); /* o0 < o1 */
} lgr_conv_grad_isa;
extern const lgr_conv_grad_isa lgr_conv_grad_isa_ref, lgr_conv_grad_isa_avx2fma,
    lgr_conv_grad_isa_avx512vnni;

/* Input positions r, r + stride, ... of one axis meet the same taps: first, first + step, ...; the first one at dy position
 * at + t for the t-th of these positions, each further one `move` before. */
typedef struct lgr_phase {
    int64_t count, first, step, at, move;
} lgr_phase;

static inline lgr_phase lgr_phase_of(int64_t kernel, int64_t stride, int64_t dil, int64_t pad,
                                     int64_t r)
{
    int64_t a = dil, b = stride;
    while (b) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    lgr_phase f = {0, 0, stride / a, 0, dil / a};
    while (f.first < f.step && (r + pad - f.first * dil) % stride != 0) ++f.first;
    if (f.first == f.step || f.first >= kernel) return f; /* gaps between windows */
    f.count = (kernel - f.first + f.step - 1) / f.step;
    f.at = (r + pad - f.first * dil) / stride;
    return f;
}
#endif

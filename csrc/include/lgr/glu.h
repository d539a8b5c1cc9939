/* glu.h - gated linear unit on int8 codes: the first half of the last axis times the sigmoid of the second.
 * Source: docs/numerics.md, "GLU". */
#ifndef LGR_GLU_H
#define LGR_GLU_H
#include "lgr/activation.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { LGR_GLU_CHIPS = LGR_VENUS + 1 }; /* chips with a formula: the first of enum lgr_chip */

/* Exponent of the gate: arcs Q31, venusA RSH(Q31, 16) = Q15, venus Q7 (there it is iqSigmoid and iqMul). */
int lgr_glu_gate_exp2(int chip);

/**
 * A = a * gate(b), in exponent exp2 + lgr_glu_gate_exp2(chip); the rest is the epilogue's.
 *
 * @param[in] chip   enum lgr_chip.
 * @param[in] x      [rows][2 * half] int8 in exponent exp2: a then b. Element `at` of the result and on.
 * @param[in] left   venusA: a is first scaled by 2^left, saturated to 32 bits; 0..31.
 * @param[in] at, n  Results of this call among rows * half; at is a multiple of 16.
 * @param[out] out   Results of all rows * half elements, one row.
 * @param[in,out] amax  {max(A), max(-A)} so far.
 * @return LGR_OK; LGR_E_RANGE; LGR_E_NULL.
 */
lgr_status lgr_glu(int chip, const int8_t *x, int32_t exp2, int64_t rows, int64_t half, int left,
                   int64_t at, int64_t n, const lgr_epilogue *ep, const lgr_outputs *out,
                   int64_t amax[2]);

/**
 * da = g * sigmoid(b), db = g * a * sigmoid'(b) at the dequantized operands
 *
 * @param[in] g  [rows][half] float32, masked.   @param[out] dx  [rows][2 * half].
 * @return LGR_OK; LGR_E_RANGE; LGR_E_NULL. exp2 = LGR_EXP2_NAN: dx = 0.
 */
lgr_status lgr_glu_grad(const float *g, const int8_t *x, int32_t exp2, int64_t rows, int64_t half,
                        float *dx);

#ifdef __cplusplus
}
#endif
#endif

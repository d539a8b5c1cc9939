/* qmath.h - the arithmetic every operator shares: rounding shifts, saturation, power-of-two scales.
 *
 * Inline, so that C kernels, adapters and CUDA kernels compile the same text. Source: docs/numerics.md, "Notation".
 */
#ifndef LGR_QMATH_H
#define LGR_QMATH_H
#include "lgr/status.h"
#include <math.h>
#include <string.h>

#if defined(__CUDACC__)
#define LGR_INLINE static __host__ __device__ inline
#else
#define LGR_INLINE static inline
#endif
#if defined(__cplusplus)
#define LGR_STATIC_ASSERT(what, why) static_assert(what, why)
#else
#define LGR_STATIC_ASSERT(what, why) _Static_assert(what, why)
#endif

LGR_STATIC_ASSERT((-3 >> 1) == -2, "right shift of a negative number must be arithmetic");
LGR_STATIC_ASSERT(((int64_t)-3 >> 1) == -2, "right shift of a negative number must be arithmetic");
LGR_STATIC_ASSERT(-1 == ~0, "two's complement");
LGR_STATIC_ASSERT(sizeof(float) == 4 && sizeof(double) == 8, "IEEE 754 binary32 and binary64");

/* Values of QuantMode, the rounding argument of every quantizing operator. */
enum lgr_rounding { LGR_FLOOR = 0, LGR_FLOOR_ADD = 1, LGR_HALF_EVEN = 2, LGR_CEIL = 3 };

/* floor(v / 2^s + 1/2), 0 <= s <= 63, for every v: no intermediate can overflow. */
LGR_INLINE int64_t lgr_rsh_s64(int64_t v, int s)
{
    return s == 0 ? v : (v >> s) + ((v >> (s - 1)) & 1);
}
/* The same for 0 <= s <= 31. */
LGR_INLINE int32_t lgr_rsh_s32(int32_t v, int s)
{
    return s == 0 ? v : (v >> s) + ((v >> (s - 1)) & 1);
}

LGR_INLINE int64_t lgr_clamp_s64(int64_t v, int64_t lo, int64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}
/* Limits of a code of 2 <= bits <= 32. */
LGR_INLINE int64_t lgr_code_lo(int bits) { return -((int64_t)1 << (bits - 1)); }
LGR_INLINE int64_t lgr_code_hi(int bits) { return ((int64_t)1 << (bits - 1)) - 1; }
LGR_INLINE int64_t lgr_sat(int64_t v, int bits)
{
    return lgr_clamp_s64(v, lgr_code_lo(bits), lgr_code_hi(bits));
}
LGR_INLINE int8_t lgr_sat_s8(int64_t v) { return (int8_t)lgr_clamp_s64(v, -128, 127); }
LGR_INLINE int16_t lgr_sat_s16(int64_t v)
{
    return (int16_t)lgr_clamp_s64(v, INT16_MIN, INT16_MAX);
}
LGR_INLINE int32_t lgr_sat_s32(int64_t v)
{
    return (int32_t)lgr_clamp_s64(v, INT32_MIN, INT32_MAX);
}

/* v * 2^k saturated to 64 bits, k >= 0. */
LGR_INLINE int64_t lgr_lsh_s64(int64_t v, int k)
{
    if (v == 0 || k == 0) return v;
    if (k > 62 || v > (INT64_MAX >> k)) return v > 0 ? INT64_MAX : INT64_MIN;
    if (v < -(INT64_MAX >> k)) return INT64_MIN;
    return v * ((int64_t)1 << k);
}
/* v / 2^s rounded half up for s >= 0 (any size), v * 2^-s saturated for s < 0. */
LGR_INLINE int64_t lgr_shift_s64(int64_t v, int s)
{
    if (s < 0) return lgr_lsh_s64(v, -s);
    return s > 63 ? 0 : lgr_rsh_s64(v, s);
}
/* lgr_shift_s64 under another rounding rule; the chip knows LGR_FLOOR_ADD only. */
LGR_INLINE int64_t lgr_shift_mode_s64(int64_t v, int s, int rounding)
{
    if (s <= 0 || rounding == LGR_FLOOR_ADD) return lgr_shift_s64(v, s);
    const int64_t whole = v >> (s > 63 ? 63 : s);
    if (rounding == LGR_FLOOR) return whole;
    if (s > 63) return rounding == LGR_CEIL && v > 0 ? 1 : 0;
    const uint64_t one = (uint64_t)1 << s, rest = (uint64_t)v & (one - 1);
    if (rounding == LGR_CEIL) return whole + (rest != 0);
    return whole + (rest > one / 2 || (rest == one / 2 && (whole & 1)));
}

LGR_INLINE int32_t lgr_float_bits(float f)
{
    int32_t i;
    memcpy(&i, &f, sizeof i);
    return i;
}
LGR_INLINE float lgr_float_from_bits(int32_t i)
{
    float f;
    memcpy(&f, &i, sizeof f);
    return f;
}

/* An exponent that does not exist: the scale is NaN, or nothing has been seen yet. */
#define LGR_EXP2_NAN INT32_MIN
#define LGR_EXP2_NONE (INT32_MIN + 1)
#define LGR_EXP2_MAX 126 /* so that 2^e and 2^-e are normal float32 */

/* log2 of a power-of-two scale from its bits; LGR_EXP2_NAN for NaN, infinity, zero, negative and subnormal. */
LGR_INLINE int32_t lgr_scale_exp2(float scale)
{
    const int32_t i = lgr_float_bits(scale);
    const int32_t e = i >> 23; /* sign and exponent */
    return e < 1 || e > 253 ? LGR_EXP2_NAN : e - 127;
}
/* 2^e for |e| <= 126, NaN for LGR_EXP2_NAN. */
LGR_INLINE float lgr_exp2_scale(int32_t e)
{
    return e == LGR_EXP2_NAN ? lgr_float_from_bits(0x7fc00000)
                             : lgr_float_from_bits((e + 127) << 23);
}
/* The exponent of a product; LGR_EXP2_NAN when either is. */
LGR_INLINE int32_t lgr_sum_exp2(int32_t a, int32_t b)
{
    return a == LGR_EXP2_NAN || b == LGR_EXP2_NAN ? LGR_EXP2_NAN : a + b;
}
/* 2^e as binary64, |e| <= 1022. */
LGR_INLINE double lgr_exp2_f64(int32_t e)
{
    const int64_t i = (int64_t)(e + 1023) << 52;
    double d;
    memcpy(&d, &i, sizeof d);
    return d;
}
/* log2(m) rounded to nearest, from the bits of a positive normal float32: 0x3504F3 is the mantissa of sqrt 2. */
LGR_INLINE int32_t lgr_log2_nearest(float m)
{
    const int32_t i = lgr_float_bits(m);
    return (i >> 23) - 127 + ((i & 0x7fffff) > 0x3504f3);
}

LGR_INLINE float lgr_round_f32(float v, int rounding)
{
    switch (rounding) {
    case LGR_FLOOR: return floorf(v);
    case LGR_HALF_EVEN: return rintf(v);
    case LGR_CEIL: return ceilf(v);
    default: return floorf(v + 0.5f); /* the addition rounds to float32, as the chip's host does */
    }
}
LGR_INLINE double lgr_round_f64(double v, int rounding)
{
    switch (rounding) {
    case LGR_FLOOR: return floor(v);
    case LGR_HALF_EVEN: return rint(v);
    case LGR_CEIL: return ceil(v);
    default: return floor(v + 0.5);
    }
}

/* Codes in memory: int8, or int32 (bytes = 4, wide). */
LGR_INLINE int64_t lgr_code_at(const void *codes, int32_t bytes, int64_t i)
{
    return bytes == 1 ? ((const int8_t *)codes)[i] : ((const int32_t *)codes)[i];
}
LGR_INLINE void lgr_put_code(void *codes, int wide, int64_t i, int64_t v)
{
    if (wide) ((int32_t *)codes)[i] = (int32_t)v;
    else ((int8_t *)codes)[i] = (int8_t)v;
}

/* Bytes of one mask row of o channels (conv, linear): padded to 16 bits. */
LGR_INLINE int64_t lgr_mask_row_bytes(int64_t o) { return (o + 15) / 16 * 2; }
/* Bytes of a flat mask of n elements. */
LGR_INLINE int64_t lgr_mask_bytes(int64_t n) { return (n + 7) / 8; }
#endif

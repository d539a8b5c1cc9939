/* conv_pack.c - weights in the order in which each engine reads them. */
#include "kernels/conv/conv_isa.h"

#define INLINE static inline __attribute__((always_inline))

/* Reference: [o][kh][kw][cg], so that the channels of a tap are consecutive. */
static void pack_ref(const lgr_conv_params *p, const int8_t *w, int64_t o0, int64_t o1,
                     int8_t *packed)
{
    const int64_t cg = p->c / p->groups, taps = p->kh * p->kw;
    for (int64_t o = o0; o < o1; ++o)
        for (int64_t t = 0; t < taps; ++t)
            for (int64_t c = 0; c < cg; ++c)
                packed[(o * taps + t) * cg + c] = w[(o * cg + c) * taps + t];
}

/* Dense: blocks of 16 outputs, [block][kh][kw][cp / quantum][16][quantum] int8 or int16; padding is
 * zero. Inlined for each quantum, so that the copies have constant sizes. */
INLINE void pack_block(const lgr_conv_params *p, const int8_t *w, int64_t b, const int64_t quantum,
                       const int wide, void *packed, int32_t *wsum)
{
    const int64_t cg = p->c / p->groups, og = p->o / p->groups, taps = p->kh * p->kw;
    const int64_t cp = lgr_conv_up(cg, quantum), per_group = lgr_conv_up(og, 16) / 16;
    const int64_t run = 16 * quantum, tap = cp * 16, first = b % per_group * 16;
    int8_t *p8 = (int8_t *)packed + b * tap * taps * (wide ? 2 : 1);
    int16_t *p16 = (void *)p8;
    if (cp != cg || og - first < 16) memset(p8, 0, (size_t)(tap * taps * (wide ? 2 : 1)));
    for (int64_t j = 0; j < 16; ++j) {
        int32_t sum = 0;
        const int8_t *src = w + (b / per_group * og + first + j) * cg * taps;
        const int64_t n = first + j < og ? cg * taps : 0;
        for (int64_t i = 0; i < n; ++i) sum += src[i];
        wsum[b * 16 + j] = sum;
        if (n == 0) continue;
        if (taps == 1 && cp == cg && !wide) {
            for (int64_t c = 0; c < cg; c += quantum)
                memcpy(p8 + c * 16 + j * quantum, src + c, (size_t)quantum);
            continue;
        }
        if (taps == 1 && cp == cg) {
            for (int64_t c = 0; c < cg; c += quantum)
                for (int64_t e = 0; e < quantum; ++e) {
                    p16[c / quantum * run + j * quantum + e] = src[c + e];
                }
            continue;
        }
        for (int64_t c = 0; c < cg; ++c) {
            int64_t at = c / quantum * run + j * quantum + c % quantum;
            for (int64_t t = 0; t < taps; ++t, ++src, at += tap) {
                if (wide) p16[at] = *src;
                else p8[at] = *src;
            }
        }
    }
}

/* Depthwise VNNI: [set][quad of taps][4][64]: byte t of dword e in 128-bit lane l of vector j belongs to tap 4 * quad + t
 * of channel 16 l + 4 j + e, the order that unpacking four vectors of 64 channels produces. */
static void pack_depthwise_vnni(const lgr_conv_params *p, lgr_conv_engine engine, const int8_t *w,
                                int8_t *packed)
{
    const int64_t taps = p->kh * p->kw, quads = lgr_conv_dw_quads(p, 4),
                  sets = lgr_conv_dw_sets(p, engine);
    const int flat = engine == LGR_CONV_AVX512VNNI && lgr_conv_is_flat(p);
    for (int64_t s = 0; s < sets; ++s)
        for (int64_t q = 0; q < quads; ++q)
            for (int64_t i = 0; i < 256; ++i) {
                const int64_t j = i / 64, l = i / 16 % 4, e = i / 4 % 4, tap = 4 * q + i % 4;
                const int64_t f = s * 64 + 16 * l + 4 * j + e, ch = flat ? f % p->c : f;
                *packed++ = (int8_t)(tap < taps && ch < p->c ? w[ch * taps + tap] : 0);
            }
}

/* Depthwise AVX2: [16 channels][pair of taps][2][16] int16, the order of unpacking two vectors of 16 channels. */
static void pack_depthwise_avx2(const lgr_conv_params *p, const int8_t *w, int16_t *packed)
{
    const int64_t taps = p->kh * p->kw, pairs = lgr_conv_dw_quads(p, 2),
                  sets = lgr_conv_dw_sets(p, LGR_CONV_AVX2);
    for (int64_t s = 0; s < sets; ++s)
        for (int64_t q = 0; q < pairs; ++q)
            for (int64_t i = 0; i < 32; ++i) {
                const int64_t j = i / 16, l = i / 8 % 2, e = i / 2 % 4, tap = 2 * q + i % 2;
                const int64_t ch = s * 16 + 8 * l + 4 * j + e;
                *packed++ = (int16_t)(tap < taps && ch < p->c ? w[ch * taps + tap] : 0);
            }
}

int64_t lgr_conv_packed_bytes(const lgr_conv_params *p, lgr_conv_engine engine)
{
    const int64_t cg = p->c / p->groups, og = p->o / p->groups, taps = p->kh * p->kw;
    if (engine == LGR_CONV_REF) return p->o * cg * taps;
    if (lgr_conv_is_depthwise(p)) {
        const int64_t sets = lgr_conv_dw_sets(p, engine);
        return engine == LGR_CONV_AVX2 ? sets * lgr_conv_dw_quads(p, 2) * 64
                                       : sets * lgr_conv_dw_quads(p, 4) * 256;
    }
    const int64_t outputs = p->groups * lgr_conv_up(og, 16) * taps;
    return engine == LGR_CONV_AVX2 ? outputs * lgr_conv_up(cg, 2) * 2
                                   : outputs * lgr_conv_up(cg, 4);
}

int64_t lgr_conv_wsum_count(const lgr_conv_params *p, lgr_conv_engine engine)
{
    if (engine == LGR_CONV_REF) return p->o;
    return lgr_conv_is_depthwise(p) ? lgr_conv_up(p->o, 64)
                                    : p->groups * lgr_conv_up(p->o / p->groups, 16);
}

int64_t lgr_conv_pack_blocks(const lgr_conv_params *p, lgr_conv_engine engine)
{
    if (engine == LGR_CONV_REF) return p->o;
    return lgr_conv_is_depthwise(p) ? 1 : lgr_conv_wsum_count(p, engine) / 16;
}

void lgr_conv_pack(const lgr_conv_params *p, lgr_conv_engine engine, const int8_t *w, int64_t b0,
                   int64_t b1, void *packed, int32_t *wsum)
{
    if (b0 >= b1) return;
    if (engine != LGR_CONV_REF && !lgr_conv_is_depthwise(p)) {
        for (int64_t b = b0; b < b1; ++b) {
            if (engine == LGR_CONV_AVX2) pack_block(p, w, b, 2, 1, packed, wsum);
            else pack_block(p, w, b, 4, 0, packed, wsum);
        }
        return;
    }
    if (engine == LGR_CONV_REF) pack_ref(p, w, b0, b1, packed);
    else if (engine == LGR_CONV_AVX2) pack_depthwise_avx2(p, w, packed);
    else pack_depthwise_vnni(p, engine, w, packed);

    const int64_t k = p->c / p->groups * p->kh * p->kw, count = lgr_conv_wsum_count(p, engine);
    for (int64_t o = engine == LGR_CONV_REF ? b0 : 0; o < (engine == LGR_CONV_REF ? b1 : count);
         ++o) {
        int64_t sum = 0;
        for (int64_t i = 0; o < p->o && i < k; ++i) sum += w[o * k + i];
        wsum[o] = (int32_t)(uint32_t)(uint64_t)sum; /* modulo 2^32, as engines use it */
    }
}

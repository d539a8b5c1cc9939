/* conv_pack.c - weights in the order in which each engine reads them. */
#include "kernels/conv/conv_isa.h"

static const int8_t k_no_weights[1];

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

/* Dense: blocks of 16 outputs, [block][kh][kw][cp / quantum][16][quantum] int8 or int16; padding is zero. */
static void pack_dense(const lgr_conv_params *p, const int8_t *w, int64_t b0, int64_t b1,
                       int64_t quantum, int wide, void *packed, int32_t *wsum)
{
    const int64_t cg = p->c / p->groups, og = p->o / p->groups, taps = p->kh * p->kw,
                  cp = lgr_conv_up(cg, quantum);
    const int64_t per_group = lgr_conv_up(og, 16) / 16, run = 16 * quantum, block = cp * taps * 16;
    int8_t *p8 = packed;
    int16_t *p16 = packed;
    for (int64_t b = b0; b < b1; ++b) {
        if (wide) memset(p16 + b * block, 0, (size_t)block * 2);
        else memset(p8 + b * block, 0, (size_t)block);
        for (int64_t j = 0; j < 16; ++j) {
            const int64_t in_group = b % per_group * 16 + j;
            const int8_t *src =
                in_group < og ? w + (b / per_group * og + in_group) * cg * taps : k_no_weights;
            int32_t sum = 0;
            if (in_group < og) {
                for (int64_t c = 0; c < cg; ++c) {
                    const int64_t at = b * block + c / quantum * run + j * quantum + c % quantum,
                                  step = cp * 16;
                    for (int64_t t = 0; t < taps; ++t, ++src) {
                        sum += *src;
                        if (wide) p16[at + t * step] = *src;
                        else p8[at + t * step] = *src;
                    }
                }
            }
            wsum[b * 16 + j] = sum;
        }
    }
}

/* Depthwise VNNI: [set][quad of taps][4][64]: byte t of dword e in 128-bit lane l of vector j belongs to tap 4 * quad + t
 * of channel 16 l + 4 j + e, the order that unpacking four vectors of 64 channels produces. */
static void pack_depthwise_vnni(const lgr_conv_params *p, const int8_t *w, int8_t *packed)
{
    const int64_t taps = p->kh * p->kw, quads = lgr_conv_dw_quads(p, 4),
                  sets = lgr_conv_dw_sets(p, LGR_CONV_AVX512VNNI);
    for (int64_t s = 0; s < sets; ++s)
        for (int64_t q = 0; q < quads; ++q)
            for (int64_t i = 0; i < 256; ++i) {
                const int64_t j = i / 64, l = i / 16 % 4, e = i / 4 % 4, tap = 4 * q + i % 4;
                const int64_t f = s * 64 + 16 * l + 4 * j + e,
                              ch = lgr_conv_is_flat(p) ? f % p->c : f;
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
        const int wide = engine == LGR_CONV_AVX2;
        pack_dense(p, w, b0, b1, wide ? 2 : 4, wide, packed, wsum);
        return;
    }
    if (engine == LGR_CONV_REF) pack_ref(p, w, b0, b1, packed);
    else if (engine == LGR_CONV_AVX2) pack_depthwise_avx2(p, w, packed);
    else pack_depthwise_vnni(p, w, packed);

    const int64_t k = p->c / p->groups * p->kh * p->kw, count = lgr_conv_wsum_count(p, engine);
    for (int64_t o = engine == LGR_CONV_REF ? b0 : 0; o < (engine == LGR_CONV_REF ? b1 : count);
         ++o) {
        int64_t sum = 0;
        for (int64_t i = 0; o < p->o && i < k; ++i) sum += w[o * k + i];
        wsum[o] = (int32_t)(uint32_t)(uint64_t)sum; /* modulo 2^32, as engines use it */
    }
}

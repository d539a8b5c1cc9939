/* max_pool.c - the largest code of each window, channels together where they are neighbours. */
#include "lgr/max_pool.h"

/* A window's part inside the image, clipped to it. */
struct part {
    int64_t y0, y1, x0, x1;
};

static struct part part_of(const struct lgr_max_pool_params *p, int64_t oy, int64_t ox)
{
    const int64_t top = oy * p->sh - p->pad_top, left = ox * p->sw - p->pad_left;
    const struct part w = {top > 0 ? top : 0, top + p->kh < p->h ? top + p->kh : p->h,
                           left > 0 ? left : 0, left + p->kw < p->w ? left + p->kw : p->w};
    return w;
}

#define LGR_MAX_POOL(name, type, lowest)                                                           \
    static void name(const type *restrict x, const struct lgr_max_pool_params *p,                  \
                     type *restrict out)                                                           \
    {                                                                                              \
        const int64_t c = p->c;                                                                    \
        for (int64_t oy = 0; oy < p->oh; ++oy)                                                     \
            for (int64_t ox = 0; ox < p->ow; ++ox, out += c) {                                     \
                const struct part w = part_of(p, oy, ox);                                          \
                for (int64_t k = 0; k < c; ++k) out[k] = lowest;                                   \
                for (int64_t iy = w.y0; iy < w.y1; ++iy)                                           \
                    for (int64_t ix = w.x0; ix < w.x1; ++ix) {                                     \
                        const type *restrict at = x + (iy * p->w + ix) * c;                        \
                        for (int64_t k = 0; k < c; ++k) out[k] = at[k] > out[k] ? at[k] : out[k];  \
                    }                                                                              \
            }                                                                                      \
    }
LGR_MAX_POOL(image_s8, int8_t, INT8_MIN)
LGR_MAX_POOL(image_s32, int32_t, INT32_MIN)

lgr_status lgr_max_pool(const void *x, const struct lgr_max_pool_params *p, int64_t from,
                        int64_t to, void *codes)
{
    if (p == NULL) return LGR_E_NULL;
    if (from < 0 || to < from || to > p->n || (p->bytes != 1 && p->bytes != 4)) return LGR_E_RANGE;
    if (p->h < 0 || p->w < 0 || p->c < 0 || p->oh < 0 || p->ow < 0 || p->kh < 1 || p->kw < 1 ||
        p->sh < 1 || p->sw < 1 || p->pad_top < 0 || p->pad_left < 0)
        return LGR_E_RANGE;
    const int64_t in = p->h * p->w * p->c, out = p->oh * p->ow * p->c;
    if (from == to || out == 0) return LGR_OK;
    if (x == NULL || codes == NULL) return LGR_E_NULL;
    for (int64_t i = from; i < to; ++i) {
        if (p->bytes == 1) image_s8((const int8_t *)x + i * in, p, (int8_t *)codes + i * out);
        else image_s32((const int32_t *)x + i * in, p, (int32_t *)codes + i * out);
    }
    return LGR_OK;
}

/* saved_lanes.h - numbers that forward saved in 24 bits (recurrent_sizes.h), in the names of grad_lanes_*.h. */
#ifndef LGR_SAVED_LANES_H
#define LGR_SAVED_LANES_H

typedef struct saved { /* of FL units */
    vg v, low; /* the number, in the middle of those that it stands for; the byte */
} saved;
/* `known`: lowest bits of the byte that belong to the chip's value */
LGR_VEC saved saved_q27(const char *two, const char *one, const int known)
{
    const vg low = g_load8(one);
    const vg rest = g_up(g_and(low, 256 - (1 << known)), 8);
    saved s;
    s.v = g_add(g_up(g_load16(two), 16), g_plus(rest, 128 << known));
    s.low = low;
    return s;
}
/* The value nearest to q whose lowest two bits are those of the byte. */
LGR_VEC vg saved_value(vg q, vg low)
{
    return g_add(q, g_plus(g_and(g_plus(g_sub(low, q), 2), 3), -2));
}
#endif

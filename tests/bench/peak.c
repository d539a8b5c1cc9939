/* peak.c - what one core can do: multiply-adds of float32 and of int8 in registers, by the widest instructions it has. */
#include <immintrin.h>
#include <stdint.h>

#define S(x) #x
#define EACH(f)                                                                                    \
    f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) /* chains, to hide the latency */
#define Y "%%ymm14,%%ymm15,%%ymm"
#define Z "%%zmm14,%%zmm15,%%zmm"
#define FMA_256(i) "vfmadd231ps " Y S(i) "\n"
#define FMA_512(i) "vfmadd231ps " Z S(i) "\n"
#define DOT_256(i) "vpmaddwd " Y "13\n vpaddd %%ymm13,%%ymm" S(i) ",%%ymm" S(i) "\n"
#define DOT_512(i) "vpdpbusd " Z S(i) "\n"
#define USED                                                                                       \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",       \
        "xmm11", "xmm13"
#define LOOP(name, step)                                                                           \
    void name(int64_t n)                                                                           \
    {                                                                                              \
        for (; n > 0; --n) __asm__ volatile(EACH(step)::: USED);                                   \
        __asm__ volatile("vzeroupper");                                                            \
    }
LOOP(fma_256, FMA_256) /* 12 x 8 multiply-adds each time */
LOOP(fma_512, FMA_512) /* 12 x 16 */
LOOP(dot_256, DOT_256) /* 12 x 16 */
LOOP(dot_512, DOT_512) /* 12 x 64 */

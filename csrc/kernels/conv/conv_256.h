/* conv_256.h - the dense loops on 256 bits. An engine defines ELEMENT and DOT (conv_tile.h) and includes this file. */
#include <immintrin.h>

#define VECTOR __m256i
#define LANES 8
#define LOAD(from) _mm256_loadu_si256((const void *)(from))
#define STORE(to, v) _mm256_storeu_si256((void *)(to), v)
#define SPLAT(word) _mm256_set1_epi32(word)
#include "kernels/conv/conv_tile.h"

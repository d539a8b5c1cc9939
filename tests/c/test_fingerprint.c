/* test_fingerprint.c - every sampled element and the length count; nothing outside the tensor is read. */
#include "harness.h"
#include "lgr/fingerprint.h"

static uint64_t print_of(struct block x, int64_t n)
{
    uint64_t print = 0;
    CHECK(lgr_fingerprint_f32((const float *)(void *)x.data, n, &print) == LGR_OK);
    return print;
}

int main(void)
{
    for (int k = 0; k < N_SIZES; ++k) {
        const int64_t n = sizes[k];
        struct block x = block_new(4 * n, 4);
        memset(x.data, 0, x.bytes);
        const uint64_t zeros = print_of(x, n);
        CHECK(zeros == print_of(x, n));
        if (n > 0) CHECK(zeros != print_of(x, n - 1));
        for (int64_t i = 0; i < 4 * n; ++i) { /* up to 1024 elements: every bit */
            x.data[i] ^= (unsigned char)(1u << i % 8);
            CHECK(print_of(x, n) != zeros);
            x.data[i] = 0;
        }
        block_end(x);
    }
    const int64_t n = 40000, row = 250;
    struct block x = block_new(4 * n, 0);
    fill_floats((float *)(void *)x.data, n, 1.0f, 1);
    const uint64_t before = print_of(x, n);
    for (int64_t i = 0; i < n; i += row) { /* every row of a large weight */
        memset(x.data + 4 * i, (int)(i / row % 255), (size_t)(4 * row));
        CHECK(print_of(x, n) != before);
    }
    const uint64_t filled = print_of(x, n);
    x.data[4 * n - 1] ^= 1; /* the last element */
    CHECK(print_of(x, n) != filled);
    block_end(x);
    CHECK(lgr_fingerprint_f32(NULL, 1, &random_state) == LGR_E_NULL);
    CHECK(lgr_fingerprint_f32(NULL, -1, &random_state) == LGR_E_RANGE);
    puts("test_fingerprint: ok");
    return 0;
}

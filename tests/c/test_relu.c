/* test_relu.c - ReLU on codes and masks applied in place: each instruction set gives the reference's bytes and stays inside
 * its buffers. */
#include "harness.h"
#include "lgr/mask.h"
#include "lgr/relu.h"

static int same(struct block a, struct block b) { return memcmp(a.data, b.data, a.bytes) == 0; }

static void masks_apply_in_place(void)
{
    for (int64_t n = 0; n < 200; ++n)
        for (int round = 0; round < 20; ++round) {
            struct block g = block_new(4 * n, 4), want = block_new(4 * n, 4),
                         m = block_new(lgr_mask_bytes(n), 1);
            fill_floats((float *)(void *)g.data, n, 1.0f, 1);
            memset(m.data, 0xff, m.bytes);
            for (int i = 0; i < round && m.bytes; ++i)
                m.data[random_bits() % m.bytes] = (unsigned char)(random_bits() & 0xff);
            const float *from = (const float *)(void *)g.data;
            float *to = (float *)(void *)want.data, *own = (float *)(void *)g.data;
            CHECK(lgr_mask_grad_f32(from, m.data, n, to) == LGR_OK);
            isa_use(isa_masks[round % N_ISA]);
            CHECK(lgr_mask_grad_f32(own, m.data, n, own) == LGR_OK);
            CHECK(same(g, want));
            isa_use(0);
            block_end(g);
            block_end(want);
            block_end(m);
        }
}

int main(void)
{
    masks_apply_in_place();
    const double highs[] = {(double)INFINITY, 6.0, 0.25, 127.0, 1e300, 1e-300};
    for (int k = 0; k < N_SIZES; ++k)
        for (int round = 0; round < 200; ++round) {
            const int64_t n = sizes[k];
            const struct lgr_relu_params p = {
                .exp2 = round % 13 == 0 ? LGR_EXP2_NAN : (int32_t)(random_bits() % 30) - 10,
                .bytes = round % 3 == 0 ? 4 : 1,
                .stream = round % 2,
                .high = highs[random_bits() % 6],
            };
            struct block x = block_new(n * p.bytes, p.bytes);
            fill_bytes((int8_t *)x.data, n * p.bytes);
            if (p.exp2 == LGR_EXP2_NAN && n) memset(x.data, 0, (size_t)(n * p.bytes));
            struct block want[3] = {{0}}, got[3] = {{0}};
            for (int i = -1; i < N_ISA; ++i) {
                if (!isa_use(i < 0 ? 0 : isa_masks[i])) continue;
                struct block *r = i < 0 ? want : got;
                r[0] = block_new(n * p.bytes, 0);
                r[1] = block_new(4 * n, round % 4 < 2 ? 4 : 0);
                r[2] = block_new(lgr_mask_bytes(n), 1);
                CHECK(lgr_relu(x.data, n, &p, r[0].data, (float *)(void *)r[1].data,
                               round % 5 ? r[2].data : NULL) == LGR_OK);
                if (i < 0) continue;
                CHECK(same(got[0], want[0]) && same(got[1], want[1]));
                CHECK(round % 5 == 0 || same(got[2], want[2]));
                for (int j = 0; j < 3; ++j) block_end(got[j]);
            }
            for (int j = 0; j < 3; ++j) block_end(want[j]);
            block_end(x);
        }
    struct lgr_relu_params bad = {.exp2 = 3, .bytes = 1, .high = 0.0};
    int8_t one = 1;
    float value;
    CHECK(lgr_relu(&one, 1, &bad, &one, &value, NULL) == LGR_E_RANGE);
    bad.high = 1.0;
    CHECK(lgr_relu(&one, 1, &bad, NULL, &value, NULL) == LGR_E_NULL);
    bad.bytes = 2;
    CHECK(lgr_relu(&one, 1, &bad, &one, &value, NULL) == LGR_E_RANGE);
    puts("test_relu: ok");
    return 0;
}

// test_emulator.cpp - what the emulator must catch. Each planted fault runs in a child process, which must fail.
//   test_emulator            every fault that shows without a sanitizer or under ASan; under TSan the races
#include "device_memory.h"
#include "kernels/cuda/device.h"
#include <functional>
#include <sys/wait.h>
#include <unistd.h>

using row = int32_t[64];
__global__ void reversed(int32_t *v, int with_barrier)
{
    LGR_SHARED(row, s);
    s[threadIdx.x] = v[threadIdx.x];
    if (with_barrier) __syncthreads();
    v[threadIdx.x] = s[63 - threadIdx.x];
}
__global__ void
bytes(uint8_t *mask,
      int stride) // eight threads of a byte write it in turn: two blocks share one when stride < 8
{
    const unsigned i = blockIdx.x * (unsigned)stride + threadIdx.x;
    if (threadIdx.x < (unsigned)stride) mask[i / 8] = (uint8_t)(mask[i / 8] | 1u << i % 8);
}
__global__ void one_writer(uint8_t *mask)
{
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x,
                   votes = __ballot_sync(~0u, (int)i & 1);
    if (i % 8 == 0) mask[i / 8] = (uint8_t)(votes >> (i & 31));
}
__global__ void some_leave(int32_t *v)
{
    if (threadIdx.x < 7) return;
    v[threadIdx.x] = (int32_t)__ballot_sync(~0u, 1);
}
__global__ void some_wait(int32_t *v)
{
    if (threadIdx.x & 1) __syncthreads();
    else v[threadIdx.x] = (int32_t)__ballot_sync(~0u, 1);
}
__global__ void unwritten(int32_t *v)
{
    LGR_SHARED(row, s);
    v[threadIdx.x] = s[threadIdx.x];
}
__global__ void beyond(int32_t *v)
{
    LGR_SHARED(row, s);
    s[threadIdx.x + 1] = 0;
    v[threadIdx.x] = s[0];
}
__global__ void past_end(int32_t *v) { v[threadIdx.x + 1] = 1; }
using much = char[50000];
__global__ void too_much(int32_t *v)
{
    LGR_SHARED(much, s);
    v[0] = s[0];
}
struct with_pointer {
    const int32_t *p;
};
__global__ void reads(with_pointer w, int32_t *v) { v[0] = *w.p; }

static int failures = 0;
static void expect(const char *what, bool fails, const std::function<void()> &run)
{
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        if (fails && !getenv("LGR_SHOW")) (void)!freopen("/dev/null", "w", stderr);
        run();
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    const bool failed = !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    printf("  %-60s %s\n", what, failed == fails ? (fails ? "caught" : "passes") : "WRONG");
    failures += failed != fails;
}
static void reverse(int barrier)
{
    device<int32_t> d(64);
    host<int32_t> h(64), want(64);
    for (int i = 0; i < 64; ++i) h[i] = i, want[i] = 63 - i;
    d.put(h.data());
    CHECK(lgr::launch(reversed, 1, 64, nullptr, d.data(), barrier) == LGR_OK);
    CHECK(d == want);
}

int main()
{
    device<int32_t> v(64);
    device<uint8_t> m(64);
#if defined(__SANITIZE_THREAD__)
    constexpr bool asan = false, tsan = true;
#elif defined(__SANITIZE_ADDRESS__)
    constexpr bool asan = true, tsan = false;
#else
    constexpr bool asan = false, tsan = false;
#endif
    const auto run1 = [&](auto kernel, unsigned threads) {
        return [&v, kernel, threads] {
            CHECK(lgr::launch(kernel, 1, threads, nullptr, v.data()) == LGR_OK);
        };
    };
    expect("a barrier between writers and readers", false, [] { reverse(1); });
    expect("no barrier between writers and readers", true, [] { reverse(0); });
    expect("one writer for each byte of a mask, two blocks", false,
           [&] { CHECK(lgr::launch(one_writer, 2, 64, nullptr, m.data()) == LGR_OK); });
    if (tsan)
        expect("eight writers of a byte in one block", true,
               [&] { CHECK(lgr::launch(bytes, 1, 32, nullptr, m.data(), 32) == LGR_OK); });
    if (tsan)
        expect("two blocks write one byte", true,
               [&] { CHECK(lgr::launch(bytes, 2, 32, nullptr, m.data(), 1) == LGR_OK); });
    expect("a vote after some lanes have left", true, run1(some_leave, 32));
    expect("half of a warp at a barrier, half at a vote", true, run1(some_wait, 32));
    expect("too much shared memory", true, run1(too_much, 32));
    expect("1025 threads", true, run1(past_end, 1025));
    expect("a pointer to the host's stack in a struct", true, [&] {
        const int32_t here = 3;
        lgr::launch(reads, 1, 1, nullptr, with_pointer{&here}, v.data());
    });
    expect("a pointer to the host's heap", true, [&] {
        std::vector<int32_t> here(64);
        lgr::launch(past_end, 1, 1, nullptr, here.data());
    });
    expect("shared memory that nobody wrote", true, [&] {
        CHECK(lgr::launch(unwritten, 1, 64, nullptr, v.data()) == LGR_OK);
        CHECK(v == host<int32_t>(64));
    });
    if (asan) expect("a step over the end of shared memory", true, run1(beyond, 64));
    if (asan) expect("a step over the end of device memory", true, run1(past_end, 64));
    if (asan) expect("the host reads device memory", true, [&] { printf("%d\n", v.data()[0]); });
    return failures != 0;
}
